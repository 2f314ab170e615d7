"""What the tests of the n8n workflows share with those of the launchpad and of the steps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "scripts"), str(TESTS / "api"), str(TESTS / "unit")]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "n8n: runs n8n itself, which n8n/setup installs")
