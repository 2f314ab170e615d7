"""What the scenarios need: a tiny model, and an environment without a hub."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))


def pytest_configure(config: pytest.Config) -> None:
    """Make the tiny model before pytest-workflow starts its commands, which read its place from the environment.

    Workers of pytest-xdist find there the one that their parent made.
    """
    os.environ |= {"NXF_OFFLINE": "true", "HF_HUB_OFFLINE": "1"}
    if "PYTEST_XDIST_WORKER" not in os.environ:
        from tiny import write_model

        folder = Path(tempfile.mkdtemp(prefix="llamaflow-"))
        config.add_cleanup(lambda: shutil.rmtree(folder))
        os.environ["LLAMAFLOW_TINY"] = str(write_model(folder / "tiny-model"))
