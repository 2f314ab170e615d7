"""The record: the one form that data has between collect_source and tokenize_dataset.

Parquet (zstd), read and written in batches, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from llamaflow.faults import EXAMPLES, Faults

Record = dict[str, Any]

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
META = pa.struct([(name, pa.string()) for name in ("location", "document_id", "subject_id", "license", "language", "created_at", "url", "replaces")])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # content hash, see content_id
        ("source", pa.string()),
        ("type", pa.string()),  # text | chat | preference
        ("text", pa.string()),  # text
        ("messages", MESSAGES),  # chat: roles system, user, assistant
        ("prompt", MESSAGES),  # preference, as are chosen and rejected
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("label", pa.string()),  # classification: the class, which is also the assistant's answer
        ("liked", pa.bool_()),  # what people thought of the answer, where that is known
        ("split", pa.string()),  # train | validation | test where the user gave it
        ("meta", META),  # location: file name and line or row number
    ]
)
DROPPED_SCHEMA = pa.schema([(name, pa.string()) for name in ("source", "location", "step", "reason", "subject_id", "record")])
SPLITS = ("train", "validation", "test")
BATCH_ROWS = 2048
BATCH_CHARACTERS = 8_000_000
EXCERPT = 2000  # characters of a dropped record that are kept


class ParquetWriter:
    """Write dictionaries to a Parquet file in batches; the file appears, whole, when the context ends without an error."""

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA) -> None:
        self.path, self.schema, self.count = Path(path), schema, 0
        self._part = self.path.with_name(self.path.name + ".part")
        self._writer = pq.ParquetWriter(self._part, schema, compression="zstd")
        self._batch: list[dict[str, Any]] = []
        self._characters = 0
        self._pending: list[pa.RecordBatch] = []

    def write(self, row: dict[str, Any]) -> None:
        self._batch.append(row)
        self.count += 1
        self._characters += sum(map(len, texts_of(row)))
        if len(self._batch) >= BATCH_ROWS or self._characters >= BATCH_CHARACTERS:
            self._flush()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write rows that have the file's schema already; small batches are put together, so that row groups are not tiny."""
        self._pending.append(batch)
        self.count += batch.num_rows
        if sum(waiting.num_rows for waiting in self._pending) >= BATCH_ROWS or sum(waiting.nbytes for waiting in self._pending) >= BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            self._pending.append(pa.RecordBatch.from_pylist(self._batch, schema=self.schema))
        if self._pending:
            self._writer.write_table(pa.Table.from_batches(self._pending, schema=self.schema))
        self._batch, self._characters, self._pending = [], 0, []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


class ShardsWriter:
    """Write records to `path`, a directory with a Parquet file for every so many of them; it appears, whole, when the context ends without an error."""

    def __init__(self, path: Path, records_per_shard: int) -> None:
        self.path, self.records_per_shard, self.count = path, records_per_shard, 0
        self._part = path.with_name(path.name + ".part")
        shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir(parents=True)
        self._shards = 0
        self._writer = self._next()

    def _next(self) -> ParquetWriter:
        self._shards += 1
        return ParquetWriter(self._part / f"{self._shards:05d}.parquet")

    def write(self, row: dict[str, Any]) -> None:
        if self._writer.count == self.records_per_shard:
            self._writer.__exit__(None, None, None)
            self._writer = self._next()
        self._writer.write(row)
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, trace)
        if kind is None:
            shutil.rmtree(self.path, ignore_errors=True)
            self._part.rename(self.path)
        else:
            shutil.rmtree(self._part, ignore_errors=True)


class DroppedWriter(ParquetWriter):
    """Write dropped records with the step and the reason; count them by source and reason, remember the first ones."""

    def __init__(self, path: Path, step: str) -> None:
        super().__init__(path, DROPPED_SCHEMA)
        self.step = step
        self.by_source: dict[str, dict[str, int]] = {}
        self.by_choice: set[str] = set()
        self.first: dict[str, list[str]] = {}

    @property
    def reasons(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for counts in self.by_source.values():
            for reason, count in counts.items():
                total[reason] = total.get(reason, 0) + count
        return total

    def drop(self, source: str, location: str | None, reason: str, record: Any, detail: str = "", *, by_choice: bool = False) -> None:
        """`reason` is one of a few and is counted; `detail` is for the message if too many are dropped. What a filter of the user's
        leaves out is dropped by choice: that is no fault of the source."""
        subject = None
        if isinstance(record, dict):
            subject = (record.get("meta") or record).get("subject_id")
            record = {name: value for name, value in record.items() if value is not None}
        excerpt = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False, default=str)
        # what is dropped may be what Parquet cannot hold: half of a surrogate pair
        excerpt = excerpt[:EXCERPT].encode("utf-8", "replace").decode()
        counts = self.by_source.setdefault(source, {})
        counts[reason] = counts.get(reason, 0) + 1
        if by_choice:
            self.by_choice.add(reason)
        elif len(self.first.setdefault(source, [])) < EXAMPLES:
            self.first[source].append(f"{location}: {reason}" + (f" ({detail})" if detail else ""))
        self.write(
            {
                "source": source,
                "location": location,
                "step": self.step,
                "reason": reason,
                "subject_id": None if subject is None else str(subject),
                "record": excerpt,
            }
        )

    @property
    def faults(self) -> dict[str, Faults]:
        """What was dropped of each source, but not by choice."""
        return {
            source: {"reasons": {reason: count for reason, count in self.by_source[source].items() if reason not in self.by_choice}, "first": first}
            for source, first in self.first.items()
        }


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Record]:
    """Iterate over the rows of a Parquet file, a batch in memory at a time."""
    for batch in read_batches(path, columns):
        yield from batch.to_pylist()


def read_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Iterate over a Parquet file, or a directory of such. Batches stay within row groups, whose size ParquetWriter bounds in characters too."""
    for part in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                yield from file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=list(columns) if columns else None)


def values(batch: pa.RecordBatch, column: str) -> list[Any]:
    """A column as Python values."""
    return list(batch[column].to_pylist())


def count_rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def turns_of(record: Record) -> list[dict[str, str]]:
    """All messages of a chat or preference record, in order."""
    return [turn for field in ("messages", "prompt", "chosen", "rejected") for turn in record.get(field) or ()]


def texts_of(record: Record) -> Iterator[str]:
    """Every text in a record, in order."""
    if record.get("text"):
        yield record["text"]
    for turn in turns_of(record):
        yield turn["content"] or ""


def content_id(record: Record) -> str:
    """Hash what a record says: equal for records that differ in case, white space or Unicode form only. 32 hex digits."""
    parts = [record["type"], fold(record.get("text") or "")]
    for field in ("messages", "prompt", "chosen", "rejected"):
        parts += [f"{field}/{turn['role']}\x1f{fold(turn['content'])}" for turn in record.get(field) or ()]
    return hashlib.sha256("\x1e".join(parts).encode()).hexdigest()[:32]


def finished(record: Record, system_prompt: str | None) -> Record:
    """Add the system message where there is none, and give the record the id of its new content."""
    field = {"chat": "messages", "preference": "prompt"}.get(record["type"])
    if system_prompt and field and record[field][0]["role"] != "system":
        record[field] = [{"role": "system", "content": system_prompt}, *record[field]]
    record["id"] = content_id(record)
    return record


def seconds_of(date: str | None) -> float | None:
    """A date in ISO 8601's form, in seconds since 1970, in UTC unless it says otherwise; None if it is no such date."""
    try:
        moment = datetime.fromisoformat(date or "")
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def fold(text: str) -> str:
    """NFKC, case-folded, runs of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
