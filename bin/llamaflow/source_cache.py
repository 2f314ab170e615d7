"""Files that were fetched, kept for later runs: what has not changed since is not fetched again, and what was interrupted goes on.

<source_cache>/files/<first two digits>/<hash of the address>/
    file, file.json     what came last; its hash, when it came, and by which headers the server can tell whether it changed
    part, part.json     what has come so far of a newer one
    lock                held by the task that fetches
<source_cache>/hub/     as huggingface_hub keeps it

What a server sent is kept, what it was sent is not: neither addresses nor tokens are written. Only the owner can read what is here.
A cache that cannot be used costs the time to fetch everything, and never the run.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from llamaflow.files import link_or_copy, read_json, sha256, write_json
from llamaflow.steps import say

KEPT_HEADERS = ("etag", "last-modified", "date", "cache-control", "content-type", "content-encoding", "link")
Answer = TypeVar("Answer")
Headers = dict[str, str]


class Entry:
    """One address: the copy that is there (none if it has no headers), and what has come so far of a newer one. Headers have lower-case names."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.file, self.part = directory, directory / "file", directory / "part"
        self.headers: Headers = {}
        self.since = ""
        self._read_copy()
        self.begun: Headers = _read(directory / "part.json").get("headers", {})

    @property
    def come(self) -> int:
        """Bytes of the newer one that are there."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def begin(self, headers: Mapping[str, str]) -> None:
        """An empty `part`, of what these headers describe."""
        self.drop_part()
        self.begun = {name: headers[name] for name in KEPT_HEADERS if name in headers}
        self.part.touch(mode=0o600)
        write_json(self.directory / "part.json", {"headers": self.begun})

    def drop_part(self) -> None:
        self.begun = {}
        self.part.unlink(missing_ok=True)

    def finish(self) -> bool:
        """Make `part` the copy, unless no later run could ask whether it is still the same (RFC 9111, 3 and 5.2.2.5)."""
        if "no-store" in self.begun.get("cache-control", "").lower() or not {"etag", "last-modified"} & {*self.begun}:
            return False
        self.headers, self.since = self.begun, datetime.now(UTC).isoformat(timespec="seconds")
        written = {"headers": self.headers, "sha256": sha256(self.part), "since": self.since}
        self.part.replace(self.file)
        write_json(self.directory / "file.json", written)
        (self.directory / "part.json").unlink(missing_ok=True)
        return True

    def _read_copy(self) -> None:
        kept = _read(self.directory / "file.json")
        if kept and self.file.is_file() and sha256(self.file) == kept.get("sha256"):  # not what a crash or somebody left
            self.headers, self.since = kept["headers"], kept["since"]


class SourceCache:
    """Brings files, by address. With directory None nothing is kept."""

    def __init__(self, directory: str | None) -> None:
        self.root = Path(directory) if directory else None
        self.fetched = self.unchanged = 0
        self.since = self.error = ""
        self._is_given = bool(directory)

    def bring(self, address: str, path: Path, fetch: Callable[[Entry], Answer]) -> Answer:
        """Put what is at an address to `path`. `fetch` fills the entry's `part`, or leaves none if the copy is still what is there."""
        if self.root is not None:
            try:
                with self._locked(self.root, address) as entry:
                    answer = fetch(entry)
                    self._hand_over(entry, path)
                    return answer
            except OSError as error:
                self.give_up(error)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as directory:
            entry = Entry(Path(directory))
            answer = fetch(entry)
            entry.part.replace(path)
            self.count(is_new=True)
            return answer

    def directory(self, name: str) -> Path | None:
        """A directory of the cache for a library that has a cache of its own; None if nothing is kept."""
        if self.root is None:
            return None
        directory = self.root / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    def give_up(self, error: OSError) -> None:
        """From now on as without a cache."""
        self.error = f"--source_cache {self.root} cannot be used ({error.strerror or error}): everything is fetched. Check its room and permissions."
        say(f"warning: {self.error}")
        self.root = None

    def count(self, *, is_new: bool, since: str = "") -> None:
        self.fetched += is_new
        self.unchanged += not is_new
        self.since = max(self.since, since)

    @property
    def counts(self) -> dict[str, Any]:
        """For the receipt: how many files were fetched, how many had not changed, and, if none had, since when."""
        if not self._is_given or not self.fetched + self.unchanged:
            return {}
        found = {"fetched": self.fetched, "unchanged": self.unchanged, "unchanged_since": None if self.fetched else self.since}
        return found | ({"source_cache_error": self.error} if self.error else {})

    def _hand_over(self, entry: Entry, path: Path) -> None:
        path.unlink(missing_ok=True)  # it may be a link to another copy
        is_new = entry.part.exists()
        if is_new and not entry.finish():
            shutil.move(entry.part, path)
        else:
            link_or_copy(entry.file, path)
        self.count(is_new=is_new, since=entry.since)

    @contextmanager
    def _locked(self, root: Path, address: str) -> Iterator[Entry]:
        """The entry of an address, for this task alone: another one that wants it waits, and finds it unchanged."""
        name = hashlib.sha256(address.encode()).hexdigest()
        directory = root / "files" / name[:2] / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entry = Entry(directory)
            try:
                yield entry
            except OSError:
                entry.drop_part()  # a full disk is not to be kept full
                raise


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
