"""Digests of the code behind a step.

Nextflow's -resume sees bin/<step>.py, since its name stands in the task script, but not the package beside it. Each
step's settings therefore carry a digest of the modules that the step imports: an edit re-runs what depends on it, no more.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

BIN = Path(__file__).resolve().parent.parent


def digest(step: str, root: Path = BIN) -> str:
    """Hash the names and bytes of a step's code (see files_of). 16 hex digits."""
    hashed = hashlib.sha256()
    for file in files_of(step, root):
        hashed.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def files_of(step: str, root: Path = BIN) -> list[Path]:
    """bin/<step>.py and every llamaflow module that it imports, directly or through another, sorted."""
    seen: set[Path] = set()
    waiting = [root / f"{step}.py"]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _imported(file, root)
    return sorted(seen)


def _imported(file: Path, root: Path) -> list[Path]:
    """Files of llamaflow that a file imports; importing a package means all of its files."""
    found: list[Path] = []
    for name in _imported_names(file.read_bytes()):
        path = root.joinpath(*name.split("."))
        if name.startswith("llamaflow.") and path.is_dir():
            found += sorted(path.rglob("*.py"))
        elif name.startswith("llamaflow"):
            found += [candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file()]
    return found


@functools.cache
def _imported_names(source: bytes) -> frozenset[str]:
    """Most files are behind several steps: each is parsed once."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)
