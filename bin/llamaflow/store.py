"""The checkpoint store: what a trial left behind, kept outside the task's work directory.

A retry, or a later run, gets a new work directory; the store is where it finds the last checkpoint and finished results:

<checkpoint_dir>/<trial_id>/<name>/      each written whole (temporary directory, then rename)

Every entry names the key it was made under (a digest of code and inputs); an entry with another key is not used.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamaflow.files import link_or_copy, read_json
from llamaflow.trials import TECHNIQUES, Trial

KEY = "store_key"
TRAINED = "trained"  # the entry of a finished trial


class Store:
    """Directories by trial and name. With directory None nothing is kept."""

    def __init__(self, directory: str | None) -> None:
        self.root = Path(directory) if directory else None

    def find(self, trial_id: str, name: str, key: str) -> Path | None:
        """The entry, if there is one that was completed under this key."""
        entry = self.root / trial_id / name if self.root else None
        return entry if entry and (entry / KEY).is_file() and (entry / KEY).read_text() == key else None

    def trained(self) -> Iterator[tuple[Trial, dict[str, Any]]]:
        """Every finished trial with how it ended, in the order of their ids; also those of other code, as far as they can be read."""
        for entry in sorted(self.root.glob(f"*/{TRAINED}") if self.root else ()):
            try:
                trial, counts = Trial.model_validate(read_json(entry / "trial.json")), read_json(entry / "train_trials.json")["counts"]
            except (OSError, KeyError, ValueError):
                continue
            if trial.technique in TECHNIQUES:
                yield trial, counts

    def keep(self, trial_id: str, name: str, key: str, source: Path) -> None:
        """Take over a copy of a directory (hard links where the file system allows) in one step."""
        if self.root is None:
            return
        entry = self.root / trial_id / name
        part = entry.with_name(f".{name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            copy_tree(source, part)
            (part / KEY).write_text(key)
            self.drop(trial_id, name)
            part.rename(entry)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def drop(self, trial_id: str, name: str) -> None:
        """Remove an entry: out of sight first, so that a process killed in the middle leaves no half of it behind."""
        if self.root is None:
            return
        entry = self.root / trial_id / name
        dropped = entry.with_name(f".{name}.{os.getpid()}.dropped")
        if entry.exists():
            entry.rename(dropped)
        shutil.rmtree(dropped, ignore_errors=True)

    def restore(self, trial_id: str, name: str, key: str, target: Path) -> bool:
        """Copy an entry to target; False if there is none for this key."""
        entry = self.find(trial_id, name, key)
        if entry is None:
            return False
        copy_tree(entry, target)
        (target / KEY).unlink()
        return True


def copy_tree(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, copy_function=link_or_copy)
