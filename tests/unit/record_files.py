"""Data files in every format, and records in Parquet, for the tests of the data steps."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from llamaflow.records import ParquetWriter, content_id

ENDINGS = {"jsonl": ".jsonl", "json": ".json", "csv": ".csv", "tsv": ".tsv", "parquet": ".parquet", "txt": ".txt", "markdown": ".md"}
Splits = dict[str, list[dict[str, Any]]]
Split = Callable[..., Splits]  # the fixture `split`
NAMES = ("train", "validation", "test")
PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def encoded(rows: Sequence[Mapping[str, Any]], file_format: str) -> bytes:
    """Rows as the bytes of a table format."""
    if file_format == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if file_format == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1).encode()
    if file_format == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), sink)
        return sink.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), dialect="excel" if file_format == "csv" else "excel-tab")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"type": "chat", "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write records; id, source and location are filled in where they are missing."""
    with ParquetWriter(path) as writer:
        for number, given in enumerate(records, 1):
            record = {"source": "faq", "meta": {"location": f"faq.csv:{number}"}, **given}
            writer.write({"id": content_id(record), **record})
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def receipt(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def texts(count: int, source: str = "faq", **more: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": f"{source} text {number}", "source": source, **more} for number in range(count)]


def described(folder: Path) -> Any:
    """What split_dataset says of the data set in a folder."""
    return receipt(folder / "dataset" / "dataset.json")


def ids(splits: Splits) -> dict[str, set[str]]:
    return {name: {record["id"] for record in records} for name, records in splits.items()}
