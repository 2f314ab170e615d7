"""What a run made: the files of its output directory, and which of them are for people, as the pipeline's tower.yml declares."""

from __future__ import annotations

import json
import mimetypes
from pathlib import Path
from typing import Any

import yaml

from launchpad.shapes import Report
from launchpad.store import Workflow

INDEX = "index.json"
NAMED = {".csv": "text/csv", ".md": "text/markdown", ".json": "application/json", ".html": "text/html", ".txt": "text/plain"}


def root(workflow: Workflow) -> Path | None:
    """Where the results are; None if that is not on this machine, or not there yet."""
    path = Path(workflow.output_dir) if workflow.output_dir else None
    return path if path and path.is_dir() else None


def index(workflow: Workflow) -> dict[str, Any] | None:
    """The run's index.json, which a finished run of LlamaFlow leaves."""
    directory = root(workflow)
    file = directory / INDEX if directory else None
    if file is None or not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # another pipeline's, or not written to its end
        return None
    return found if isinstance(found, dict) else None


def reports(workflow: Workflow) -> list[Report]:
    """The declared reports that are there. Patterns are those of tower.yml; a pipeline elsewhere declares none that can be read here."""
    directory, declaration = root(workflow), Path(workflow.repository) / "tower.yml"
    if directory is None or not declaration.is_file():
        return []
    declared = (yaml.safe_load(declaration.read_text(encoding="utf-8")) or {}).get("reports") or {}
    found = []
    for pattern, how in declared.items():
        for file in sorted(directory.glob(pattern.removeprefix("/"))):
            if file.is_file():
                path, kind = str(file.relative_to(directory)), how.get("mimeType") or mime_type(file)
                found.append(Report(display=how.get("display") or file.name, mime_type=kind, path=path, size=file.stat().st_size))
    return found


def mime_type(file: Path) -> str:
    return NAMED.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
