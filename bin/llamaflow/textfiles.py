"""A user's file as lines of text: decompressed, decoded as UTF-8, every line with its number.

Nothing is guessed: what is neither UTF-8 nor marked as UTF-16 or UTF-32 by its first bytes is refused, with the place and the remedy.
"""

from __future__ import annotations

import codecs
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from llamaflow.errors import DataError

CHUNK = 1 << 20
LINE_BYTES = 64 << 20  # a longer line is one unusable row, so that it cannot take the memory
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # RFC 1952, RFC 8878
BOMS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class Unusable(Exception):  # noqa: N818  a result, not a failure: the row is dropped with this reason
    """A row that cannot become a record: the reason is counted, the detail is shown, `given` is the row.

    What the user's own choice leaves out is `by_choice`, and no fault of the source.
    """

    def __init__(self, reason: str, detail: str = "", given: object = "", *, by_choice: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.given, self.by_choice = reason, detail, given, by_choice


def compression_of(path: Path) -> Any:
    """gzip, zstd or None, by the first bytes: an address or a server may hide the ending."""
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file, decompressed. Raises DataError if the compressed data is damaged or cut off."""
    try:
        # unlike Python's zstandard, pyarrow tells when a file is cut off
        with pa.input_stream(str(path), compression=compression_of(path)) as stream:
            yield cast(BinaryIO, io.BufferedReader(stream, CHUNK))
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{path.name} is damaged or was cut off: {error}. Download or compress it again.") from error


@contextmanager
def open_utf8(path: Path) -> Iterator[BinaryIO]:
    """Open a text file as UTF-8 bytes without byte order mark. Raises DataError for what is not text."""
    with open_bytes(path) as stream, tempfile.TemporaryFile() as converted:
        head = cast(io.BufferedReader, stream).peek(4096)[:4096]
        encoding = next((name for bom, name in BOMS if head.startswith(bom)), None)
        if encoding:
            _convert(stream, encoding, converted, path)
            yield cast(BinaryIO, converted)
            return
        if b"\0" in head:
            raise DataError(f"{path.name} is not a text file: it has zero bytes. Is it another format (Excel, ZIP), or UTF-16 without a byte order mark?")
        if head.startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        yield stream


def _convert(stream: BinaryIO, encoding: str, target: BinaryIO, path: Path) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while chunk := stream.read(CHUNK):
            target.write(decoder.decode(chunk).encode())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} begins like {encoding.upper()} but is not: {error.reason}. Save it as UTF-8.") from error
    target.seek(0)


def lines(path: Path) -> Iterator[tuple[int, str | Unusable]]:
    """Iterate over (line number, line without its end). Raises DataError at the first byte that is not UTF-8."""
    with open_utf8(path) as stream:
        number = offset = 0
        while line := stream.readline(LINE_BYTES):
            number += 1
            if len(line) == LINE_BYTES and not line.endswith(b"\n"):
                offset += len(line) + _skip_line(stream)
                yield number, Unusable(f"line longer than {LINE_BYTES >> 20} MiB", given=line[:4000].decode("utf-8", "replace"))
                continue
            yield number, decode(line, path, number, offset).rstrip("\r\n")
            offset += len(line)


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while part := stream.readline(CHUNK):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def decode(data: bytes, path: Path, line: int = 1, offset: int = 0) -> str:
    """Decode bytes that begin at a line and byte offset of a file. Raises DataError that says where and how to convert."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        plain = path.name if compression_of(path) is None else f"the unpacked {path.name}"
        raise DataError(
            f"{path.name}: line {line}, byte {offset + error.start}: 0x{data[error.start]:02X} is not UTF-8. "
            f"Files from Excel or older Windows programs are often in Windows-1252. Convert {plain}, then look at it before you use it:\n"
            f"  iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8_{path.name}"
        ) from error
