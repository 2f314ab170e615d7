"""Files of data sets on the Hugging Face Hub. Only files are read; scripts of a data set are never run.

A token for private and gated data sets comes from the environment: HF_TOKEN.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.errors import TemporaryError, UsageError
from llamaflow.files import link_or_copy
from llamaflow.rows import SPLIT_NAMES
from llamaflow.source_cache import SourceCache
from llamaflow.sources import WILDCARDS, format_of

if TYPE_CHECKING:
    from huggingface_hub import HfFileSystem

PROTOCOL = "hf://"
FIRST_CHOICE = ("parquet", "arrow", "jsonl", "csv", "tsv", "json", "txt")  # many data sets are there in several formats, beside cards and notes
REFUSALS = (400, 401, 403, 404)
REMEDY = "Check the name; private and gated data sets need HF_TOKEN in the environment."


def pinned(address: str) -> str:
    """The address with the commit that its revision, or the newest one, means now: hf://datasets/OWNER/NAME@COMMIT[/path]."""
    from huggingface_hub import HfApi, parse_hf_uri

    with _explained(address):
        place = parse_hf_uri(address)
        commit = HfApi().dataset_info(place.id, revision=place.revision).sha
    return f"{PROTOCOL}datasets/{place.id}@{commit}" + (f"/{place.path_in_repo}" if place.path_in_repo else "")


def hub_files_of(address: str) -> Iterator[tuple[str, str]]:
    """Name in the repository and address of the files that a pinned address means.

    Of a directory those are the files below it that have the first format of FIRST_CHOICE that is there.
    """
    with _explained(address):
        found = _files().glob(address) if WILDCARDS.search(address) else _files().find(address)
    names = {path.split("/", 3)[-1]: PROTOCOL + path for path in sorted(found)}
    if not WILDCARDS.search(address) and address.removeprefix(PROTOCOL) not in found:
        present = {format_of(name) for name in names}
        chosen = next((kind for kind in FIRST_CHOICE if kind in present), None)
        names = {name: path for name, path in names.items() if format_of(name) == chosen and chosen}
    if not names:
        raise UsageError(f"there is no data file at {address} ({', '.join(FIRST_CHOICE)}). Look at its files on the Hub, and give a path or a pattern.")
    yield from names.items()


def fetch_from_hub(address: str, path: Path, cache: SourceCache) -> None:
    """A file of a commit, by an address that names it."""
    with _explained(address):
        try:
            if kept := cache.directory("hub"):
                link_or_copy(_kept_file(address, kept, cache), path)
                return
        except OSError as error:
            if not error.errno or isinstance(error, FileNotFoundError):
                raise  # of the Hub, not of the disk
            cache.give_up(error)
        _files().get_file(address, str(path))
        cache.count(is_new=True)


def _kept_file(address: str, directory: Path, cache: SourceCache) -> Path:
    """The file in huggingface_hub's own cache, which knows what commits have in common, goes on with what was interrupted, and asks nothing for what it has."""
    from huggingface_hub import hf_hub_download, parse_hf_uri

    place = parse_hf_uri(address)
    named: dict[str, Any] = {"repo_type": "dataset", "revision": place.revision, "cache_dir": directory}
    is_new = hf_hub_download(place.id, place.path_in_repo, **named, dry_run=True).will_download
    file = Path(hf_hub_download(place.id, place.path_in_repo, **named)).resolve()
    cache.count(is_new=is_new, since=datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds"))
    return file


def split_of(name: str) -> str | None:
    """The split that a file's name or its directory tells, the file's name first: data/train-00000-of-00001.parquet."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES), None)


def _files() -> HfFileSystem:
    from huggingface_hub import HfFileSystem

    return HfFileSystem()


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what the Hub says into our errors."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HfUriError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UsageError(f"{address} cannot be read offline. Unset HF_HUB_OFFLINE.") from error
    except LocalEntryNotFoundError as error:  # so huggingface_hub says that the Hub does not answer and that its cache has no such file
        raise TemporaryError(f"{address} cannot be read now: {_said(error)}. Check the network, and try again later.") from error
    except (FileNotFoundError, HfUriError) as error:
        raise UsageError(f"{address} is not on the Hugging Face Hub: {_said(error)}. {REMEDY}") from error
    except HTTPError as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in REFUSALS:
            raise UsageError(f"{address} cannot be read: {_said(error)}. {REMEDY}") from error
        raise TemporaryError(f"{address} cannot be read now: {_said(error)}. Check the network, and try again later.") from error
    except (OSError, RuntimeError) as error:  # too few bytes came, or what hf_xet says
        if getattr(error, "errno", None):
            raise  # of our own disk
        raise TemporaryError(f"{address} came incomplete: {_said(error)}. It is read again.") from error


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
