"""A source of many files in an object store or on the Hugging Face Hub, as files one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from llamaflow import hub, objects
from llamaflow.folders import is_hidden
from llamaflow.source_cache import SourceCache
from llamaflow.sources import Source, format_of

NAME_CHARACTERS = 60  # of an object's name that its file keeps, its ending among them


def address_of(source: Source) -> str:
    """What is read, and is said in the receipt: of a data set on the Hub, with the commit."""
    return hub.pinned(source.path) if source.is_on_hub else source.path


def files_in_store(source: Source, address: str, scratch: Path, cache: SourceCache) -> Iterator[tuple[str, Path]]:
    """Name and file, as folders.files_of gives them. Files of unknown kinds are named but not fetched."""
    listed, fetch = (hub.hub_files_of, hub.fetch_from_hub) if source.is_on_hub else (objects.objects_of, objects.fetch_object)
    for name, place in listed(address):
        if is_hidden(PurePosixPath(name).parts):
            continue
        file = _place(name, scratch)
        try:
            if source.format or format_of(name):
                fetch(place, file, cache)
            yield name, file
        finally:
            file.unlink(missing_ok=True)


def download_object(address: str, directory: Path, cache: SourceCache) -> Path:
    """One object, as a file under its name."""
    file = _place(address, directory)
    objects.fetch_object(address, file, cache)
    return file


def with_split(source: Source, name: str) -> Source:
    """On the Hub, a file's name tells its split, unless the samplesheet does."""
    return source.model_copy(update={"split": source.split or hub.split_of(name)}) if source.is_on_hub else source


def _place(name: str, directory: Path) -> Path:
    return directory / PurePosixPath(name).name[-NAME_CHARACTERS:]
