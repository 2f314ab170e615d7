"""Datasets that users upload, and their addresses as parameters of a launch."""

from __future__ import annotations

import csv
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from launchpad.auth import Caller
from launchpad.errors import bad_request, forbidden
from launchpad.folders import checked_file_name, dataset_file, places
from launchpad.params import refuse_foreign_paths
from launchpad.settings import Settings
from launchpad.store import Dataset, DatasetVersion, now

MEDIA_TYPES = {".csv": "text/csv", ".tsv": "text/tab-separated-values"}
ADDRESS = re.compile(r"(?:https?://[^/\s]+)?/api/datasets/(?P<id>[0-9A-Za-z]{1,22})/v/(?P<version>\d{1,9})/n/(?P<name>[^/\s?#]+)(?:\?\S*)?")


def own(session: Session, caller: Caller, dataset_id: str) -> Dataset:
    """Raises ApiError 403 if it is another's, or is not there."""
    found = session.get(Dataset, dataset_id)
    if found is None or found.user_id != caller.user_id:
        raise forbidden()
    return found


def add_version(session: Session, settings: Settings, dataset: Dataset, file_name: str, stream: BinaryIO, *, header: bool) -> DatasetVersion:
    """Keep an upload as the next version of a dataset. Raises ApiError 400 for names that are none, and for what is neither CSV nor TSV."""
    name = checked_file_name(file_name)
    media_type = MEDIA_TYPES.get(Path(name).suffix.lower())
    if media_type is None:
        raise bad_request(f"{name!r} is neither .csv nor .tsv, which are what a dataset can be.")
    version = (session.scalar(select(func.max(DatasetVersion.version)).where(DatasetVersion.dataset_id == dataset.id)) or 0) + 1
    file = dataset_file(settings, dataset.id, version, name)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # an upload that was cut off may have left it
    part = unwanted = file.with_name(f"{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as target:
            shutil.copyfileobj(stream, target)
        size = part.stat().st_size
        if not size:
            raise bad_request(f"{name!r} is empty.")
        row = DatasetVersion(dataset_id=dataset.id, version=version, file_name=name, media_type=media_type, has_header=header, size=size)
        dataset.media_type, dataset.last_updated = media_type, now()
        session.add(row)
        session.flush()  # fails if another upload has become this version
        unwanted = part.replace(file)
        session.commit()
    except BaseException:
        unwanted.unlink(missing_ok=True)
        with suppress(OSError):  # another upload is in it
            file.parent.rmdir()
        raise
    return row


def address(base: str, version: DatasetVersion) -> str:
    return f"{base.rstrip('/')}/api/datasets/{version.dataset_id}/v/{version.version}/n/{quote(version.file_name)}"


def as_files(session: Session, settings: Settings, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the files of datasets in the place of their addresses, which only the launchpad's clients can read."""
    return {name: _as_file(session, settings, caller, name, value) for name, value in params.items()}


def _as_file(session: Session, settings: Settings, caller: Caller, name: str, value: Any) -> Any:
    found = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return value
    dataset = session.get(Dataset, found["id"])
    version = session.get(DatasetVersion, (found["id"], int(found["version"])))
    if dataset is None or dataset.user_id != caller.user_id or version is None or version.file_name != unquote(found["name"]):
        raise bad_request(f"--{name}: you have no dataset of that address. Its address is the url that its upload answered.")
    file = dataset_file(settings, dataset.id, version.version, version.file_name)
    if not caller.may("admin"):
        refuse_foreign_paths({name: list(_paths_in_samplesheet(file))}, places(settings, caller))
    return str(file)


def _paths_in_samplesheet(file: Path) -> Iterator[str]:
    """The column path of a table that is a samplesheet, which has the columns id and path, in whatever way a pipeline may read it.

    Names may have spaces around them, rows fewer fields than the header, the column may be there twice, and the ending need not tell the delimiter.
    """
    for delimiter in ",\t":
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            try:
                header = [name.strip() for name in next(rows, [])]
                if {"id", "path"} <= set(header):
                    yield from (field for row in rows for name, field in zip(header, row, strict=False) if name == "path")
            except csv.Error as error:
                raise bad_request(f"{file.name} cannot be read as a table, line {rows.line_num}: {error}.") from None


def delete(session: Session, settings: Settings, dataset: Dataset) -> None:
    """Forget a dataset, and remove its files."""
    session.execute(sql_delete(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id))
    session.delete(dataset)
    session.commit()
    shutil.rmtree(settings.data / "datasets" / dataset.id, ignore_errors=True)
