"""Bytes of a request, and requests a minute."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from lab import Lab, Server, launch_body

from launchpad.errors import ApiError
from launchpad.limits import RateLimit

MEGABYTE = b" " * 2**20


def chunks(megabytes: int = 50) -> Iterator[bytes]:
    for _ in range(megabytes):
        yield MEGABYTE


def test_each_client_has_a_bucket_of_its_own() -> None:
    limit = RateLimit(8)  # a quarter of a minute's: two at once
    limit.count("ana")
    limit.count("ana")
    with pytest.raises(ApiError) as refused:
        limit.count("ana")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "8"})
    limit.count("bo")


def test_too_many_requests_are_told_to_wait(tmp_path: Path) -> None:
    lab = Lab(tmp_path, requests_per_minute=4)
    ana = lab.client("ana")
    assert ana.get("/api/user-info").status_code == 200
    refused = ana.get("/api/user-info")
    assert (refused.status_code, list(refused.json()), refused.headers["retry-after"]) == (429, ["message"], "16")
    assert lab.client("bo").get("/api/user-info").status_code == 200
    assert TestClient(lab.app).get("/api/service-info").status_code == 200


def test_more_tokens_are_no_more_requests(tmp_path: Path) -> None:
    lab = Lab(tmp_path, requests_per_minute=4)
    assert lab.client("ana", "read").get("/api/user-info").status_code == 200
    assert lab.client("ana", "launch").get("/api/user-info").status_code == 429


def test_clients_that_were_here_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone can be a new one. Who has nothing left is not forgotten."""
    limit = RateLimit(8)
    monkeypatch.setattr("launchpad.limits.MOST_CLIENTS", 100)
    monkeypatch.setattr(limit, "left", dict.fromkeys(range(101), (limit.most, 0.0)))
    limit.count("ana")
    limit.count("ana")
    monkeypatch.setattr(limit, "left", limit.left | dict.fromkeys(range(101), (limit.most, 0.0)))
    with pytest.raises(ApiError):
        limit.count("ana")
    assert set(limit.left) == {"ana"}


@pytest.mark.parametrize("path", ["/api/workflow/launch", "/api/tokens", "/api/trace/create"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_50_megabytes(ana: TestClient, path: str, declared: bool) -> None:
    answer = ana.post(path, content=MEGABYTE * 50 if declared else chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert list(answer.json()) == ["message"]


def test_only_uploads_may_be_long(tmp_path: Path) -> None:
    lab = Lab(tmp_path, max_upload=4 * 2**20)
    ana = lab.client()
    address = f"/api/datasets/{ana.post('/api/datasets', json={'name': 'long'}).json()['dataset']['id']}"
    assert ana.post(f"{address}/upload", files={"file": ("x.csv", MEGABYTE * 3)}).status_code == 200
    assert ana.post(f"{address}/upload", files={"file": ("x.csv", MEGABYTE * 5)}).status_code == 413
    assert len(ana.get(f"{address}/versions").json()["versions"]) == 1
    stranger = TestClient(lab.app, headers={"Authorization": "Bearer lfp_none"})
    too_long = {"file": ("x.csv", b"x" * (lab.settings.max_body + 1))}
    for client in (stranger, lab.client(scope="read")):
        assert client.post(f"{address}/upload", files=too_long).status_code == 413  # not taken in only to be refused then


@pytest.mark.parametrize("length", [b"-1", b"x", b"1e9", "²".encode("latin-1")])
def test_lengths_that_are_none(ana: TestClient, length: bytes) -> None:
    assert ana.post("/api/workflow/launch", content=b"{}", headers=[(b"Content-Length", length)]).status_code in {400, 413}


@pytest.mark.parametrize("declared", [True, False])
def test_the_service_itself_refuses_a_body_of_50_megabytes(server: Server, declared: bool) -> None:
    with server.client() as client:
        answer = client.post("/workflow/launch", content=MEGABYTE * 50 if declared else chunks(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, list(answer.json())) == (413, ["message"])
        assert client.get("/user-info").status_code == 200


def test_a_client_that_goes_away_in_the_middle(server: Server) -> None:
    """Its request has no effect, and the service no error."""

    def broken() -> Iterator[bytes]:
        yield b'{"launch":'
        raise RuntimeError("gone")

    with server.client() as client:
        with pytest.raises(RuntimeError, match="gone"):
            client.post("/workflow/launch", content=broken(), headers={"Content-Type": "application/json"})
        assert client.get("/workflow").json()["totalSize"] == 0
    assert "Traceback" not in (server.data / "service.log").read_text()


def test_a_hundred_clients_at_once_are_all_answered(server: Server) -> None:
    def ask(_: int) -> set[int]:
        with server.client() as client:
            return {client.get("/workflow").status_code for _ in range(3)}

    with ThreadPoolExecutor(100) as pool:
        assert set().union(*pool.map(ask, range(100))) == {200}


def test_nothing_is_answered_to_other_origins(server: Server) -> None:
    answer = httpx.options(f"http://127.0.0.1:{server.port}/api/workflow", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-origin" not in answer.headers
    assert launch_body()["launch"]["pipeline"] not in answer.text
