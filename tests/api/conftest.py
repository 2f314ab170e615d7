"""Fixtures of the launchpad's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from lab import Lab, Server, launch_body


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def ana(lab: Lab) -> TestClient:
    """Who may launch."""
    return lab.client("ana")


@pytest.fixture
def bo(lab: Lab) -> TestClient:
    """Another who may."""
    return lab.client("bo")


@pytest.fixture
def reader(lab: Lab) -> TestClient:
    return lab.client("ana", "read")


@pytest.fixture
def admin(lab: Lab) -> TestClient:
    return lab.client("ana", "admin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that runs two pipelines at a time."""
    server = Server(tmp_path_factory.mktemp("server"), max_running=2, grace=5).start()
    yield server
    server.end()


@pytest.fixture
def launch(lab: Lab, ana: TestClient) -> Iterator[Callable[..., Any]]:
    """Launch what is refused: afterwards there is no run and no file more."""
    before = (ana.get("/api/workflow").json()["totalSize"], lab.files())
    yield lambda params=None, **fields: ana.post("/api/workflow/launch", json=launch_body(params, **fields))
    assert (ana.get("/api/workflow").json()["totalSize"], lab.files()) == before
