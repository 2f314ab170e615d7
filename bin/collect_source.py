#!/usr/bin/env python3
"""Read one data source into records: a file, a directory, an archive, a query, objects of a store or a data set of the Hub.

    collect_source.py --path faq.csv < settings.json

The settings hold {"collection": {...}, "source": {a row of the samplesheet}}; without --path the source's address is downloaded.
Writes collected.parquet (not if the source is skipped), collect_source.dropped.parquet (rows that cannot become records, with the reason) and the receipt collect_source.json.
The first row whose columns are understood decides how the whole source is read (see llamaflow/rows.py).
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from llamaflow.data_params import Collection
from llamaflow.databases import rows_of_query
from llamaflow.download import download
from llamaflow.errors import DataError, LlamaflowError, StorageError, TemporaryError, UsageError, exits_cleanly
from llamaflow.files import sha256
from llamaflow.folders import files_of, has_many_files
from llamaflow.formats import Row, rows_of
from llamaflow.records import DroppedWriter, ParquetWriter
from llamaflow.rows import Shape, expected, shape_of, to_record
from llamaflow.sources import FORMATS, Source, format_of, is_object, is_stored
from llamaflow.steps import read_settings, receipt, say
from llamaflow.stores import address_of, download_object, files_in_store, with_split
from llamaflow.textfiles import Unusable

STEP = "collect_source"
NO_SHAPE = "columns not understood"
UNREADABLE = "source that cannot be read"
UNKNOWN_KIND = "file of an unknown kind"
ROWS_BEFORE_GIVING_UP = 1000
COLUMNS_LISTED = 100


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--path", type=Path, help="the source's file; without it, its address is downloaded")
    parser.add_argument("--last-attempt", action="store_true", help="what may succeed later is not tried again")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(source: Source, collection: Collection, path: Path | None, outdir: Path, settings: Mapping[str, Any]) -> None:
    collected, rejected = outdir / "collected.parquet", outdir / f"{STEP}.dropped.parquet"
    with receipt(STEP, settings, outdir) as written, _local(source, path, outdir) as given:
        if given and not given.is_dir():
            written.add_input(given)
        with ParquetWriter(collected) as kept, DroppedWriter(rejected, STEP) as dropped:
            if source.query:
                found = _read_database(source, given, kept, dropped)
            elif given is None or has_many_files(given):
                found = _read_folder(source, given, kept, dropped, outdir)
            else:
                found = _read_file(source, given, kept, dropped)
            dropped.refuse_too_many({source.id: kept.count}, collection.max_dropped_fraction)
        written.inputs |= found.pop("inputs", {})
        written.add_output(collected)
        written.add_output(rejected)
        written.counts = {
            "records": kept.count,
            "dropped": dropped.reasons,
            "sources": {source.id: {"kept": kept.count, "dropped": dropped.reasons}},
            **found,
            "sha256": next(iter(written.inputs.values()), None),
        }


def skip(source: Source, error: LlamaflowError, outdir: Path, settings: Mapping[str, Any]) -> None:
    """No records; what was dropped is the source, whole, with what was wrong."""
    rejected = outdir / f"{STEP}.dropped.parquet"
    with receipt(STEP, settings, outdir) as written:
        with DroppedWriter(rejected, STEP) as dropped:
            dropped.drop(source.id, source.path, UNREADABLE, str(error))
        written.add_output(rejected)
        counts = {"kept": 0, "dropped": dropped.reasons}
        # its first line only: what follows shows records, and the receipt is published
        written.counts = {"records": 0, "dropped": dropped.reasons, "sources": {source.id: counts}, "error": str(error).splitlines()[0]}
    say(f"skipped: {error}")


def _read_database(source: Source, file: Path | None, kept: ParquetWriter, dropped: DroppedWriter) -> dict[str, Any]:
    """The rows of a query to a server or a SQLite file."""
    reader = Reader(source, "query", dropped)
    for record in reader.records(rows_of_query(file or source.path, source.query or "", source.secret)):
        kept.write(record)
    reader.check(kept.count)
    return {"format": "sql", "ignored_columns": sorted(reader.ignored)[:COLUMNS_LISTED]}


def _read_file(source: Source, file: Path, kept: ParquetWriter, dropped: DroppedWriter) -> dict[str, Any]:
    file_format = source.format or format_of(source.path) or format_of(file.name)
    if file_format is None:
        raise UsageError(
            f"the format of {source.path} cannot be told from its ending. Name it in the column format: {', '.join(dict.fromkeys(FORMATS.values()))}."
        )
    reader = Reader(source, file.name, dropped)
    for record in reader.records(rows_of(file, file_format)):
        kept.write(record)
    reader.check(kept.count)
    return {"format": file_format, "ignored_columns": sorted(reader.ignored)[:COLUMNS_LISTED], "bytes": file.stat().st_size}


def _read_folder(source: Source, folder: Path | None, kept: ParquetWriter, dropped: DroppedWriter, outdir: Path) -> dict[str, Any]:
    """All files, each by its own columns. One that cannot be read is dropped with the reason, and the others go on."""
    formats, ignored, size, digest = Counter[str](), set[str](), 0, hashlib.sha256()
    address = folder.name if folder else address_of(source)
    with tempfile.TemporaryDirectory(dir=outdir, prefix=".unpacked-") as directory:
        scratch = Path(directory)
        for name, file in files_of(folder, source.path, scratch) if folder else files_in_store(source, address, scratch):
            file_format = source.format or format_of(name)
            if file_format is None:
                dropped.drop(source.id, name, UNKNOWN_KIND, "", by_choice=True)
                continue
            reader = Reader(with_split(source, name), name, dropped)
            try:
                for record in reader.records(rows_of(file, file_format)):
                    kept.write(record)
                reader.check(kept=1)  # what was dropped is counted by row already
            except DataError as error:
                dropped.drop(source.id, name, "file that cannot be read", str(error), str(error))
            formats[file_format] += 1
            ignored |= reader.ignored
            size += file.stat().st_size
            digest.update(f"{name}\0{sha256(file)}\n".encode())  # of what was read: beside it there may be anything
    if not formats:
        raise UsageError(f"source {source.id!r}: {address} holds no file of a kind that is known: {' '.join(FORMATS)}.")
    columns = sorted(ignored)[:COLUMNS_LISTED]
    return {
        "format": ", ".join(sorted(formats)),
        "files": dict(sorted(formats.items())),
        "ignored_columns": columns,
        "bytes": size,
        "inputs": {} if folder and folder.is_file() else {address: digest.hexdigest()},
    }


@contextmanager
def _local(source: Source, path: Path | None, outdir: Path) -> Iterator[Path | None]:
    """The source's file or directory: the given one, or one downloaded for the time being; None for a server, and for many files in a store."""
    if source.is_server or (is_stored(source.path) and not is_object(source.path)):
        yield None
        return
    if path is None and (source.is_url or is_stored(source.path)):
        # beside the results, since the system's temporary directory may be small
        with tempfile.TemporaryDirectory(dir=outdir, prefix=".download-") as directory:
            yield (download if source.is_url else download_object)(source.path, Path(directory))
        return
    given = path or Path(source.path)
    if not given.exists():
        raise UsageError(f"source {source.id!r}: {given} is not there. Check the column path of the samplesheet.")
    yield given


class Reader:
    """Turn the rows of one file or query into records; rows that cannot be used go to `dropped`."""

    def __init__(self, source: Source, name: str, dropped: DroppedWriter) -> None:
        self.source, self.name, self.dropped = source, name, dropped
        self.shape: Shape | None = None
        self.columns: set[str] = set()
        self.rows = 0

    @property
    def ignored(self) -> set[str]:
        return self.columns - (self.shape.columns if self.shape else set())

    def records(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        for number, row in rows:
            self.rows += 1
            location = f"{self.name}:{number}"
            try:
                if isinstance(row, Unusable):
                    raise row
                yield self._record({_folded(name): value for name, value in row.items()}, location)
            except Unusable as problem:
                self.dropped.drop(self.source.id, location, problem.reason, problem.given or row, problem.detail)
            if self.shape is None and self.rows >= ROWS_BEFORE_GIVING_UP:
                self.check(kept=0)

    def _record(self, row: dict[str, Any], location: str) -> dict[str, Any]:
        if not self.columns.issuperset(row) and len(self.columns) <= COLUMNS_LISTED:
            self.columns.update(row)
        self.shape = self.shape or shape_of(row, self.source.type)
        if self.shape is None:
            raise Unusable(NO_SHAPE, f"found {', '.join(row)}")
        return to_record(row, self.shape, self.source, location)

    def check(self, kept: int) -> None:
        """Raise DataError if there is nothing, or nothing that is understood."""
        if self.rows == 0:
            raise DataError(f"source {self.source.id!r}: {self.name} has no rows.")
        if self.shape is None and self.columns:
            wanted = f" for records of type {self.source.type}" if self.source.type else ""
            raise DataError(
                f"source {self.source.id!r}: the columns of {self.name} are not understood{wanted}. "
                f"Found: {', '.join(sorted(map(str, self.columns)))}. Expected one of: {expected(self.source.type)}. "
                "Rename the columns in the file's first line (CSV, TSV) or in its objects."
            )
        if kept == 0:
            self.dropped.refuse_too_many({}, 0.0)


@lru_cache(maxsize=4096)
def _folded(name: object) -> str:
    """Column names are compared without case and outer white space."""
    return str(name).strip().lower()


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    source, collection = Source.model_validate(settings.get("source", {})), Collection.model_validate(settings.get("collection", {}))
    try:
        run(source, collection, args.path, args.outdir, settings)
    except LlamaflowError as error:
        tried_again = isinstance(error, TemporaryError) and not args.last_attempt
        if collection.on_source_error == "stop" or isinstance(error, StorageError) or tried_again:
            raise
        skip(source, error, args.outdir, settings)


if __name__ == "__main__":
    main()
