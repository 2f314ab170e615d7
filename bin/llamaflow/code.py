"""Digests of the code behind a step.

Nextflow's -resume sees bin/<step>.py, since its name stands in the task script, but not the package beside it. Each
step's settings therefore carry a digest of the modules that the step imports: an edit re-runs what depends on it, no more.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

BIN = Path(__file__).resolve().parent.parent


def digest(step: str, root: Path = BIN) -> str:
    """Hash bin/<step>.py and every llamaflow module that it imports, directly or through another. 16 hex digits."""
    seen: set[Path] = set()
    waiting = [root / f"{step}.py"]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _imported(file, root)
    hashed = hashlib.sha256()
    for file in sorted(seen):
        hashed.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def _imported(file: Path, root: Path) -> list[Path]:
    """Files of llamaflow that a file imports; importing a package means all of its files."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found: list[Path] = []
    for name in names:
        path = root.joinpath(*name.split("."))
        if name.startswith("llamaflow.") and path.is_dir():
            found += sorted(path.rglob("*.py"))
        elif name.startswith("llamaflow"):
            found += [candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file()]
    return found
