"""A source of many files: a directory, those files in it that fit a pattern, or an archive (ZIP, TAR), as files one after the other."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from llamaflow.errors import DataError, UsageError
from llamaflow.sources import ARCHIVES, is_archive, pattern_of

UNPACKED_BYTES, TIMES = 1 << 30, 100  # an archive with more than both of that was made to fill disks: text packs to a tenth
DAMAGES = (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def has_many_files(path: Path) -> bool:
    return path.is_dir() or is_archive(path.name)


def files_of(path: Path, given: str, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Name within the source, and the file; `given` is the path as the user wrote it. Hidden files are left out.

    The files of an archive lie in `scratch`, one at a time: each is gone when the next one is asked for.
    """
    if path.is_dir():
        yield from _files_in_directory(path, pattern_of(given))
    else:
        members = _zip_members if path.name.lower().endswith(".zip") else _tar_members
        try:
            yield from _unpacked(members(path), path, scratch)
        except DAMAGES as error:
            raise DataError(f"{path.name} is damaged, or is no archive ({', '.join(ARCHIVES)}): {error}. Download or pack it again.") from error


def _files_in_directory(path: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    found = sorted(file for file in path.glob(pattern) if file.is_file())
    names = [(file.relative_to(path), file) for file in found]
    visible = [(name.as_posix(), file) for name, file in names if not is_hidden(name.parts)]
    if not visible:
        raise UsageError(f"there is no file in {path.name}" + (f" that fits {pattern}." if pattern != "**/*" else "."))
    yield from visible


def is_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _unpacked(members: Iterable[tuple[str, IO[bytes]]], path: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Only the last part of a member's name becomes a file name, so none can lead out of `scratch`."""
    allowed = max(UNPACKED_BYTES, TIMES * path.stat().st_size)
    for name, stream in members:
        if is_hidden(PurePosixPath(name).parts):
            continue
        target = scratch / (PurePosixPath(name).name or "file")
        try:
            with target.open("wb") as file:
                while chunk := stream.read(1 << 20):
                    allowed -= file.write(chunk)
                    if allowed < 0:
                        raise DataError(
                            f"{path.name} unpacks to more than {TIMES} times its size: it was made to fill disks. Unpack it by hand, and give the directory."
                        )
            yield name, target
        finally:
            target.unlink(missing_ok=True)


def _zip_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.flag_bits & 1:
                raise DataError(f"{path.name} needs a password. Unpack it, and give the directory.")
            if not entry.is_dir():
                with archive.open(entry) as stream:
                    yield entry.filename, stream


def _tar_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path) as archive:
        for entry in archive:
            stream = archive.extractfile(entry) if entry.isfile() else None  # no links, no devices
            if stream:
                with stream:
                    yield entry.name, stream
