"""Locks of files, which the system lets go when the last process that holds one is gone."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

from launchpad.errors import ApiError
from launchpad.settings import PREFIX


def take_lock(path: Path) -> BinaryIO | None:
    """Held as long as this file is open, here or in a process that has inherited it; None if another holds it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def claim(data: Path) -> BinaryIO:
    """The lock of the one launchpad that works in a directory. Raises ApiError 409 if there is another."""
    lock = take_lock(data / "lock")
    if lock is None:
        raise ApiError(409, f"another launchpad works in {data}: stop it first, or set {PREFIX}DATA to another directory")
    return lock
