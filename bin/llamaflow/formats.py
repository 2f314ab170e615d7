"""Data files as rows: JSONL, JSON, CSV, TSV, Parquet, Arrow, TXT and Markdown, each plain, .gz or .zst; documents as in documents.py, mail as in mail.py.

All formats are read as a stream except JSON, which is read whole: it takes about five times its size in memory, so large data belongs in JSONL.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from llamaflow import documents, mail
from llamaflow.errors import DataError
from llamaflow.sections import paragraphs, sections
from llamaflow.textfiles import LINE_BYTES, Unusable, compression_of, decode, lines, open_bytes, open_utf8

Row = tuple[int | str, dict[str, Any] | Unusable]  # line number in text formats, row number in JSON and Parquet
PARQUET_ROWS = 512


def rows_of(path: Path, file_format: str) -> Iterator[Row]:
    """Iterate over the rows of a file. A malformed row comes as Unusable; a file that cannot be read raises DataError."""
    return READERS[file_format](path)


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in lines(path):
        if isinstance(line, Unusable):
            yield number, line
        elif line.strip():
            yield number, _object(line)


def _object(line: str) -> dict[str, Any] | Unusable:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return Unusable("not valid JSON", f"{error.msg}, column {error.colno}", line)
    except (ValueError, RecursionError) as error:
        return Unusable("not valid JSON", str(error), line)
    return value if isinstance(value, dict) else Unusable("not a JSON object", "expected {...} on every line", line)


def _json(path: Path) -> Iterator[Row]:
    """An array of objects, or an object with one list of objects inside; JSON lines under a .json name are seen as such."""
    with open_utf8(path) as stream:
        first = stream.readline(LINE_BYTES)
        rest = stream.read(4096)
        is_lines = first.startswith(b"{") and bool(rest.strip()) and isinstance(_object(first.decode("utf-8", "replace")), dict)
        data = b"" if is_lines else first + rest + stream.read()
    yield from _jsonl(path) if is_lines else _json_array(decode(data, path), path)


def _json_array(text: str, path: Path) -> Iterator[Row]:
    try:
        value = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path.name}:{error.lineno}: not valid JSON ({error.msg}, column {error.colno}). Mend the file, or use JSONL: one object a line."
        ) from error
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list) and inner and all(isinstance(row, dict) for row in inner)]
        value = lists[0] if len(lists) == 1 else None
    if not isinstance(value, list):
        raise DataError(f"{path.name}: expected an array of objects, [{{...}}, {{...}}], or an object with exactly one such array inside.")
    for number, row in enumerate(value, 1):
        yield number, row if isinstance(row, dict) else Unusable("not a JSON object", given=row)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file in which a line without end makes the rest meaningless."""
    for number, line in lines(path):
        if isinstance(line, Unusable):
            raise DataError(f"{path.name}:{number}: {line.reason}. Is this the right format for the file?")
        yield number, line


def _csv(path: Path) -> Iterator[Row]:
    """RFC 4180. A header with semicolons and no comma (spreadsheets in many countries) makes the semicolon the separator."""
    csv.field_size_limit(LINE_BYTES)
    header_line = next((line for _, line in text_lines(path) if line.strip()), "")
    separator = ";" if ";" in header_line and "," not in header_line else ","
    reader = csv.reader((line + "\n" for _, line in text_lines(path)), delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if str(error) == "unexpected end of data" or "field limit" in str(error):
                raise DataError(
                    f'{path.name}:{start}: a quote (") is opened in this row and never closed. Close it, or double it if it belongs to the text.'
                ) from error
            yield start, Unusable("malformed CSV row", f"lines {start} to {reader.line_num}: {error}")
            continue
        if cells is None:
            return
        if header is None:
            header = cells or None
        elif cells:
            yield start, _cells(header, cells)


def _cells(header: list[str], cells: list[str]) -> dict[str, Any] | Unusable:
    if len(header) == len(cells):
        return dict(zip(header, cells, strict=True))
    return Unusable("wrong number of cells", f"{len(cells)}, but the header has {len(header)}", dict(enumerate(cells)))


def _tsv(path: Path) -> Iterator[Row]:
    """One row a line, as the media type text/tab-separated-values says; a cell that is quoted as a whole (Excel) is unquoted."""
    header: list[str] | None = None
    for number, line in text_lines(path):
        cells = [_unquoted(cell) for cell in line.split("\t")]
        if header is None:
            header = cells if line.strip() else None
        elif line.strip():
            yield number, _cells(header, cells)


def _unquoted(cell: str) -> str:
    inner = cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner else cell


def _txt(path: Path) -> Iterator[Row]:
    yield from paragraphs(text_lines(path))


def _markdown(path: Path) -> Iterator[Row]:
    yield from sections(text_lines(path))


def _parquet(path: Path) -> Iterator[Row]:
    with _seekable(path) as file:
        try:
            # buffered: pages are read as they are needed, not whole row groups, which may be the whole file
            with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as parquet:
                batches = parquet.iter_batches(batch_size=PARQUET_ROWS)
                yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path.name} is not a Parquet file, or is damaged: {error}. Write or download it again.") from error


def _arrow(path: Path) -> Iterator[Row]:
    """Arrow IPC, as a file (Feather) or a stream."""
    with _seekable(path) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        source: Any = file
        try:
            batches = _batches_of_file(pa.ipc.open_file(source)) if is_file else pa.ipc.open_stream(source)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path.name} is not an Arrow file, or is damaged: {error}. Write or download it again.") from error


def _batches_of_file(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    yield from (reader.get_batch(place) for place in range(reader.num_record_batches))


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    if compression_of(path) is None:
        with path.open("rb") as file:
            yield file
    else:
        with open_bytes(path) as stream, tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(stream, unpacked, 1 << 20)
            unpacked.seek(0)
            yield unpacked


DOCUMENTS = frozenset({"txt", "markdown", "html", "pdf", "docx", "epub"})  # whose rows are parts of one text
READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
    "txt": _txt,
    "markdown": _markdown,
    "html": documents.html,
    "pdf": documents.pdf,
    "arrow": _arrow,
    "mbox": mail.mbox,
    "eml": mail.eml,
    "docx": documents.docx,
    "xlsx": documents.xlsx,
    "epub": documents.epub,
}
