"""The samplesheet: one row a data source."""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from llamaflow.errors import UsageError
from llamaflow.groups import NAME, Group
from llamaflow.sheets import read_sheet, refusal
from llamaflow.templates import columns_of, folded, parts_of
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
MAIL_FORMATS = ("mbox", "eml")
SQLITE = (".sqlite", ".sqlite3")
COMPRESSIONS = (".gz", ".zst")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
STORES = ("s3://", "gs://", "hf://")
PLACES = re.compile(r"(s3|gs)://[^/*?]+(/.*)?|hf://datasets/[^/*?]+/[^/*?]+(/.*)?", re.DOTALL)  # what an address in a store looks like
WILDCARDS = re.compile(r"[*?]")
SHEET = "samplesheet"
OF_THE_MIXTURE = ("weight", "max_records")  # what is done with a source's records, which have been read by then
PAGES_OF_API = re.compile(r"link|(page|offset)(:[^:]+)?|next:.+|cursor:[^:]+:.+")
PAGES_OF_WEBSITE = re.compile(r"sitemap|links(:[1-9])?")


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
    watermark: str | None = Field(
        None,
        description="Of a database: a column of the query's result that only grows (a number, a time). With previous_dataset, only rows from its highest value on are read, and the others' records come from there.",
    )
    secret: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable with the database's password, or the token of an http(s) address; the path has none.",
    )
    rows: str | None = Field(None, description="Of an HTTP API: where the list of rows is in an answer (data.items). Default: the answer is the list.")
    pages: str | None = Field(
        None,
        description="Of an http(s) address: how it goes on. An API: link, page[:NAME], offset[:NAME], next:PATH, cursor:NAME:PATH; web pages: sitemap, links[:DEPTH].",
    )
    license: str | None = Field(None, description="Licence of the data (an SPDX name), for the data card.")
    language: str | None = Field(None, description="Language of the records (an ISO 639-1 code).")
    split: Literal["train", "validation", "test"] | None = Field(None, description="Put the whole source into this split.")
    weight: float | None = Field(
        None,
        ge=0,
        description="Share of the training text that is to come from this source, relative to the weights of the others; all sources have one, or none.",
    )
    max_records: int | None = Field(None, ge=1, description="Keep at most so many of its records: a sample, the same one in every run.")
    prompt: str | None = Field(None, description="Template of the question, with columns in braces: {question}. Together with completion.")
    completion: str | None = Field(None, description="Template of the answer: {answer}.")
    system: str | None = Field(None, description="Template of the system message before prompt and completion.")
    text: str | None = Field(None, description=r"Template of a text: {title}\n\n{body}, where \n is a new line.")
    assistant: str | None = Field(
        None,
        description="Whose messages are the assistant's: addresses, domains or names, separated by commas. Threads of mail, or of a table with the column conversation, become conversations.",
    )
    conversation: str | None = Field(None, description="Of a table with one message a row: the column by which messages belong together.")
    labels: str | None = Field(None, description="Words for the codes in the column label: 0=negative,1=positive.")
    generate: int | None = Field(
        None, ge=1, le=10, description="Of texts: how many questions with answers, at most, a model is to write about each; needs generation_endpoint."
    )

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

    @field_validator("pages")
    @classmethod
    def _is_a_way_to_go_on(cls, pages: str | None) -> str | None:
        if pages and not (PAGES_OF_API.fullmatch(pages) or PAGES_OF_WEBSITE.fullmatch(pages)):
            raise ValueError(
                "expected link, page, page:NAME, offset, offset:NAME, next:PATH or cursor:NAME:PATH (an API), sitemap, links or links:2 (web pages)"
            )
        return pages

    @model_validator(mode="after")
    def _goes_on_only_if_an_address(self) -> Self:
        if (self.rows or self.pages) and not self.is_url:
            raise ValueError("rows and pages are for http(s) addresses")
        if self.rows and self.is_website:
            raise ValueError(f"rows is for the answers of an API, and pages = {self.pages} for web pages")
        if (self.is_api and self.format not in (None, "json")) or (self.is_website and self.format):
            raise ValueError(f"with rows or pages there is no format {self.format}: an API answers in JSON, and each web page says what it is")
        return self

    @model_validator(mode="after")
    def _has_a_query_if_a_database(self) -> Self:
        is_database = self.is_server or self.path.lower().endswith(SQLITE)
        if is_database != bool(self.query):
            raise ValueError("a database needs a query" if is_database else "a query needs a database: postgresql://, mysql:// or a .sqlite file as path")
        if (self.is_server or self.is_url) and urlsplit(self.path).password:
            raise ValueError("a path with a password would stand in reports; put the password into an environment variable, and its name into secret")
        return self

    @model_validator(mode="after")
    def _can_be_read_on(self) -> Self:
        if self.watermark and not self.query:
            raise ValueError("watermark is for databases: it names a column of the query's result")
        if self.watermark and (self.has_messages or self.generate or self.weight is not None):
            raise ValueError(
                "watermark takes the records of earlier rows from previous_dataset, where those of assistant, conversation, generate and weight are not what was read: leave one of them out"
            )
        return self

    @field_validator("prompt", "completion", "system", "text")
    @classmethod
    def _is_a_template(cls, template: str | None) -> str | None:
        parts_of(template or "")
        return template

    @field_validator("labels")
    @classmethod
    def _names_labels(cls, text: str | None) -> str | None:
        words_of(text or "")
        return text

    @model_validator(mode="after")
    def _has_templates_that_fit_together(self) -> Self:
        if (self.prompt is None) != (self.completion is None) or (self.system and not self.prompt):
            raise ValueError("prompt and completion need each other, and system needs them")
        if self.prompt and self.text:
            raise ValueError("prompt and completion make conversations, text makes texts: a source has one of them")
        for made, column in (("chat", self.completion), ("text", self.text)):
            if column and not columns_of(column):
                raise ValueError(f"the template {column!r} names no column, so that all records would be the same")
            if column and self.type not in (None, made):
                raise ValueError(f"its templates make records of type {made}, not {self.type}")
        return self

    @model_validator(mode="after")
    def _has_messages_where_it_says_so(self) -> Self:
        if not self.has_messages:
            return self
        if self.templates or self.type not in (None, "chat"):
            raise ValueError("assistant and conversation make conversations of messages: no templates, and no other type, go with them")
        known = self.format or format_of(self.path)
        if not self.conversation and (self.query or known not in (None, *MAIL_FORMATS)):
            raise ValueError("assistant is for mail (mbox, eml); a table needs conversation too, the column by which messages belong together")
        return self

    @property
    def has_messages(self) -> bool:
        """Whether a row is one message of a conversation."""
        return bool(self.assistant or self.conversation)

    @property
    def assistants(self) -> set[str]:
        return {name.strip().lower().removeprefix("@") for name in (self.assistant or "").split(",")} - {""}

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.system, self.prompt, self.completion, self.text)))

    @property
    def is_server(self) -> bool:
        return urlsplit(self.path).scheme in ("postgresql", "mysql")

    @property
    def is_on_hub(self) -> bool:
        return self.path.startswith("hf://")

    @property
    def is_url(self) -> bool:
        return urlsplit(self.path).scheme in ("http", "https")

    @property
    def is_api(self) -> bool:
        return self.rows is not None or bool(PAGES_OF_API.fullmatch(self.pages or ""))

    @property
    def is_website(self) -> bool:
        return bool(PAGES_OF_WEBSITE.fullmatch(self.pages or ""))


@lru_cache(maxsize=64)
def words_of(labels: str) -> dict[str, str]:
    """The word for each code, of a text such as 0=negative,1=positive; codes are folded as column names are. Raises ValueError for any other."""
    pairs = [[part.strip() for part in pair.split("=", 1)] for pair in labels.split(",")] if labels else []
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError("expected a word for each code, such as 0=negative,1=positive")
    words = {folded(code): word for code, word in pairs}
    if len(words) < len(pairs):
        raise ValueError("a code is there twice")
    return words


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
    unweighted = [source.id for source in sources if source.weight is None]
    if unweighted and len(unweighted) < len(sources):
        problems.append(f"weight: {', '.join(unweighted)} {'has' if len(unweighted) == 1 else 'have'} none; give every source one, or none at all")
    if sources and all(source.weight == 0 for source in sources):
        problems.append("weight: all are 0, so nothing would be trained on")
    if problems:
        raise UsageError(refusal(path, SHEET, problems))
    return sources
