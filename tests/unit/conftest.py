"""What the tests of all steps share."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

RunStep = Callable[[str, Sequence[Any], Mapping[str, Any]], None]


@pytest.fixture
def run_step(monkeypatch: pytest.MonkeyPatch) -> RunStep:
    """Run a step as the pipeline does: arguments on the command line, settings as JSON on standard input."""

    def run(step: str, args: Sequence[Any], settings: Mapping[str, Any] | None = None) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(settings or {})))
        importlib.import_module(step).main([str(argument) for argument in args])

    return run
