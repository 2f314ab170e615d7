"""The command that starts the service and makes its tokens."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from lab import PIPELINE

from launchpad import cli
from launchpad.app import create_app
from launchpad.locks import claim
from launchpad.migrations import LATEST
from launchpad.settings import Settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, standard output and errors of the command."""
    monkeypatch.setenv("LAUNCHPAD_DATA", str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llamaflow-launchpad", *words])
        return cli.main(), *capsys.readouterr()

    return run


def test_tokens_are_made_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    status, secret, _ = run("token", "create", "--user", "ana", "--name", "n8n", "--scope", "read", "--days", "7")
    assert (status, re.fullmatch(r"lfp_[\w-]{43}\n", secret) is not None) == (0, True)
    client = TestClient(create_app(Settings(data=tmp_path, pipeline=PIPELINE)), headers={"Authorization": f"Bearer {secret.strip()}"})
    assert client.get("/api/user-info").json()["user"]["userName"] == "ana"
    assert client.post("/api/labels", json={"name": "x"}).status_code == 403
    listed = run("token", "list")[1]
    assert listed.startswith("1\tana\tn8n\tread\texpires 2")
    assert secret.strip() not in listed
    assert run("token", "revoke", "1") == (0, "", "")
    assert client.get("/api/user-info").status_code == 401
    assert run("token", "revoke", "1")[0] == 64
    assert (tmp_path / "launchpad.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("words", [["token", "create", "--days", "0"], ["token", "revoke", "7"]])
def test_what_cannot_be_done_is_said_in_a_line(run: Run, words: list[str]) -> None:
    status, _, said = run(*words)
    assert (status, said.startswith("error: "), said.count("\n")) == (64, True, 1)


@pytest.mark.parametrize(("name", "value"), [("PORT", "x"), ("PORT", "0"), ("MAX_RUNNING", "0"), ("GRACE", "-1")])
def test_settings_that_are_none_are_named(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"LAUNCHPAD_{name}", value)
    status, _, said = run("serve")
    assert (status, said.startswith(f"error: LAUNCHPAD_{name}: ")) == (64, True)


def test_data_that_cannot_be_used_is_said_in_a_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*words: str) -> str:
        status, _, text = run(*words)
        assert (status, text.startswith("error: "), text.count("\n")) == (64, True, 1)
        return text

    database = tmp_path / "launchpad.sqlite"
    database.write_bytes(b"no database" * 100)
    assert "launchpad.sqlite: file is not a database" in said("serve")
    database.unlink()
    run("token", "create")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA user_version = {LATEST + 1}")
    for words in (["serve"], ["token", "list"]):
        assert "later launchpad" in said(*words)
    database.unlink()
    with claim(tmp_path):
        assert "another launchpad works in" in said("serve")
    monkeypatch.setenv("LAUNCHPAD_DATA", str(database))
    assert "LAUNCHPAD_DATA says where" in said("token", "list")


def test_help_needs_no_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launchpad.cli", "--help"], env={"PYTHONPATH": str(Path(cli.__file__).parents[1])}, capture_output=True, text=True, check=True
    )
    assert "token" in done.stdout
