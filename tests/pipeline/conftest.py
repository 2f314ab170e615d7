"""What the scenarios need: a tiny model, and an environment without a hub."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))


def pytest_configure(config: pytest.Config) -> None:
    """Make the tiny model before pytest-workflow starts its commands, which read its place from the environment."""
    from tiny import write_model

    model = Path(tempfile.mkdtemp(prefix="llamaflow-")) / "tiny-model"
    write_model(model)
    os.environ |= {"LLAMAFLOW_TINY": str(model), "NXF_OFFLINE": "true", "HF_HUB_OFFLINE": "1"}
