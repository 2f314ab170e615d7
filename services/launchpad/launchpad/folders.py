"""Where the files of runs and datasets are. Ids are ours: no name that a user gives becomes part of a path unchecked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from launchpad.auth import Caller
from launchpad.errors import ApiError, bad_request
from launchpad.locks import take_lock
from launchpad.settings import Settings

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,199}")


class RunFolder:
    """The files of one run: what Nextflow is given, and what it writes besides its results."""

    def __init__(self, settings: Settings, workflow_id: str) -> None:
        self.path = settings.data / "runs" / workflow_id
        self.params = self.path / "params.json"
        self.config = self.path / "launch.config"
        self.extra_config = self.path / "user.config"
        self.pre_run = self.path / "pre_run.sh"
        self.post_run = self.path / "post_run.sh"
        self.log = self.path / "nextflow.log"
        self.console = self.path / "console.txt"
        self.trace = self.path / "trace.txt"
        self.launch_dir = self.path / "launch"
        self.results = self.path / "results"
        self.lock = self.path / "lock"
        self.pid = self.path / "pid"
        self.exit = self.path / "exit"

    def take_lock(self) -> BinaryIO | None:
        """The run's lock, which its processes hold as long as they live; None if they do."""
        return take_lock(self.lock)

    @property
    def was_started(self) -> bool:
        return self.lock.exists()

    @property
    def is_alive(self) -> bool:
        if self.exit.exists() or not self.lock.exists():
            return False
        taken = self.take_lock()
        if taken:
            taken.close()
        return taken is None

    def group(self) -> int | None:
        """The id of the run's process group, as long as it lives."""
        try:
            return int(self.pid.read_text()) if self.is_alive else None
        except (FileNotFoundError, ValueError):  # it has only just begun
            return None


def places(settings: Settings, caller: Caller) -> list[Path]:
    """Where a user who is no administrator may read and write: a directory of their own, and what the operator has opened to all."""
    return [settings.data / "users" / str(caller.user_id), *settings.allowed_roots]


def dataset_file(settings: Settings, dataset_id: str, version: int, file_name: str) -> Path:
    return settings.data / "datasets" / dataset_id / str(version) / file_name


def checked_file_name(name: str) -> str:
    """Raises ApiError 400 unless it is a plain name, without directories."""
    if not FILE_NAME.fullmatch(name):
        raise bad_request(f"{name[:200]!r} is no file name that can be kept: letters, digits, '.', '_', '-' and spaces, no directories.")
    return name


def below(root: Path, name: str) -> Path:
    """The file of that relative name below root. Raises ApiError 403 (as for what does not exist) if it is not there, or not below."""
    try:
        found = (root / name).resolve()
        there = found.is_relative_to(root.resolve()) and found.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a null
        there = False
    if not there:
        raise ApiError(403, "")
    return found


def environment() -> dict[str, str]:
    """The service's own environment without its settings: a run has what its operator gives it, for instance HF_TOKEN."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LAUNCHPAD_")}
