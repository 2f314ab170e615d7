"""The samplesheet: one row a data source."""

from __future__ import annotations

import csv
import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from llamaflow.errors import UsageError
from llamaflow.groups import NAME, Group
from llamaflow.sheets import read_sheet, refusal
from llamaflow.validation import describe

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "txt",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".xlsx": "xlsx",
    ".epub": "epub",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".mbox": "mbox",
    ".eml": "eml",
}
SQLITE = (".sqlite", ".sqlite3")
COMPRESSIONS = (".gz", ".zst")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
STORES = ("s3://", "gs://", "hf://")
PLACES = re.compile(r"(s3|gs)://[^/*?]+(/.*)?|hf://datasets/[^/*?]+/[^/*?]+(/.*)?", re.DOTALL)  # what an address in a store looks like
WILDCARDS = re.compile(r"[*?]")
SHEET = "samplesheet"


class Source(Group):
    """A data source: a row of the samplesheet."""

    id: str = Field(pattern=NAME, description="Name of the source, used in reports and file names.")
    path: str = Field(
        min_length=1,
        description="File, directory, pattern (docs/**/*.pdf) or archive (.zip, .tar, .tar.gz), absolute or relative to the samplesheet; http(s) address of a file or archive; objects of a store (s3://, gs://); or a data set of the Hugging Face Hub (hf://datasets/OWNER/NAME).",
    )
    type: Literal["text", "chat", "preference"] | None = Field(None, description="Kind of records. Default: seen from the columns.")
    format: Literal["jsonl", "json", "csv", "tsv", "parquet", "txt", "markdown", "html", "pdf", "docx", "xlsx", "epub", "arrow", "mbox", "eml"] | None = Field(
        None, description="File format. Default: by the file's ending."
    )
    query: str | None = Field(None, description="Of a database (postgresql://, mysql:// or a .sqlite file): the SQL query whose rows are the data.")
    secret: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name of the environment variable with the database's password; the path has none."
    )
    license: str | None = Field(None, description="Licence of the data (an SPDX name), for the data card.")
    language: str | None = Field(None, description="Language of the records (an ISO 639-1 code).")
    split: Literal["train", "validation", "test"] | None = Field(None, description="Put the whole source into this split.")

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any) -> Any:
        return (value.strip() or None) if isinstance(value, str) else value

    @field_validator("path")
    @classmethod
    def _stays_below(cls, path: str) -> str:
        if is_stored(path) and not PLACES.fullmatch(path):
            raise ValueError("expected s3://BUCKET/PREFIX/, gs://BUCKET/PREFIX/ or hf://datasets/OWNER/NAME; * and ? may stand after that only")
        parts = [] if "://" in path and not is_stored(path) else pattern_of(path).split("/")
        if ".." in parts or any("**" in part and part != "**" for part in parts):
            raise ValueError("after * or ? there can be no .. in a path, and ** stands alone between slashes: docs/**/*.pdf")
        return path

    @model_validator(mode="after")
    def _has_a_query_if_a_database(self) -> Self:
        is_database = self.is_server or self.path.lower().endswith(SQLITE)
        if is_database != bool(self.query):
            raise ValueError("a database needs a query" if is_database else "a query needs a database: postgresql://, mysql:// or a .sqlite file as path")
        if self.is_server and urlsplit(self.path).password:
            raise ValueError("a path with a password would stand in reports; put the password into an environment variable, and its name into secret")
        return self

    @property
    def is_server(self) -> bool:
        return urlsplit(self.path).scheme in ("postgresql", "mysql")

    @property
    def is_on_hub(self) -> bool:
        return self.path.startswith("hf://")

    @property
    def is_url(self) -> bool:
        return urlsplit(self.path).scheme in ("http", "https")


def format_of(path: str) -> str | None:
    """The format that a file's name or an address tells, without .gz or .zst; None if it tells none."""
    name = PurePosixPath(urlsplit(path).path if "://" in path else path)
    if name.suffix.lower() in COMPRESSIONS:
        name = name.with_suffix("")
    return FORMATS.get(name.suffix.lower())


def is_stored(path: str) -> bool:
    """Objects of a store or files on the Hub, which the step reads itself."""
    return path.startswith(STORES)


def is_object(path: str) -> bool:
    """One object of a store, by its ending; anything else is a prefix or a pattern."""
    return path.startswith(("s3://", "gs://")) and not WILDCARDS.search(path) and bool(format_of(path) or is_archive(path))


def is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVES)


def pattern_of(path: str) -> str:
    """What of a path is a pattern: from the first part with * or ? on; without one, all files below it."""
    parts = path.split("/")
    first = next((place for place, part in enumerate(parts) if WILDCARDS.search(part)), None)
    return "/".join(parts[first:]) if first is not None else "**/*"


def is_samplesheet(path: Path) -> bool:
    """A CSV is a samplesheet if its header has the columns id and path."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file), [])
    return {"id", "path"} <= {name.strip() for name in header}


def read_samplesheet(path: Path) -> list[Source]:
    """Read and check all rows. Raises UsageError with every fault, by line."""
    rows, problems = read_sheet(path, SHEET, Source.model_fields)
    sources: list[Source] = []
    for line, row in rows:
        try:
            source = Source.model_validate(row)
        except ValidationError as error:
            problems += [f"line {line}: {fault}" for fault in describe(error, prefix="")]
            continue
        if source.id in {other.id for other in sources}:
            problems.append(f"line {line}: id {source.id!r} is there twice; every source needs its own")
        sources.append(source)
    if problems:
        raise UsageError(refusal(path, SHEET, problems))
    return sources
