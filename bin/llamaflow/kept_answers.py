"""Answers of a model by what it was asked, kept outside the task's work directory: a retry, or a later run, does not pay for them again.

<checkpoint_dir>/answers/<first two digits>/<hash>      each written whole
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class KeptAnswers:
    """Texts by hash; several threads may ask, and `found` counts those that were there. With directory None nothing is kept."""

    def __init__(self, directory: str | None) -> None:
        self.root = Path(directory) / "answers" if directory else None
        self.found, self._counting = 0, threading.Lock()

    def find(self, asked: str) -> str | None:
        path = self.root / asked[:2] / asked if self.root else None
        if path is None or not path.is_file():
            return None
        with self._counting:
            self.found += 1
        return path.read_text(encoding="utf-8")

    def keep(self, asked: str, answer: str) -> None:
        if self.root is None:
            return
        path = self.root / asked[:2] / asked
        path.parent.mkdir(parents=True, exist_ok=True)
        # a name of its own: other threads and tasks may have asked the same
        part = path.with_name(f".{asked}.{os.getpid()}.{threading.get_ident()}.part")
        part.write_text(answer, encoding="utf-8", newline="")
        part.replace(path)
