"""What the tests of the n8n workflows share with those of the launchpad and of the steps, and with each other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "scripts"), str(TESTS / "api"), str(TESTS / "unit")]

from lab import wait_until  # noqa: E402
from listeners import Sink  # noqa: E402
from ports import free_port  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "n8n: runs n8n itself, which n8n/setup installs")


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.end()


@pytest.fixture(scope="module")
def storage() -> Iterator[str | None]:
    """The address of an S3 server; None where moto is not installed."""
    program = shutil.which("moto_server")
    if program is None:
        yield None
        return
    address = f"http://127.0.0.1:{free_port()}"
    with subprocess.Popen([program, "-p", address.rpartition(":")[2]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: _answers(address), 60)
        yield address
        process.terminate()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).is_success
    except httpx.TransportError:
        return False
