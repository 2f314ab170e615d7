"""Which of several processes this is, if they train together: torchrun tells by its environment variables."""

from __future__ import annotations

import os


def rank() -> int:
    """The number of this process, 0 for the one that writes; that of every training in one process."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
