"""Databases that earlier and later launchpads wrote, and the locks that keep two from changing one at the same time."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lab import Lab
from sqlalchemy.exc import OperationalError

from launchpad import migrations
from launchpad.errors import ApiError
from launchpad.locks import claim
from launchpad.store import open_store

FIRST = Path(__file__).with_name("first_store.sql")  # a dump of what the first launchpad left of one run, before migrations were counted


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The directory of the first launchpad."""
    with closing(sqlite3.connect(tmp_path / "launchpad.sqlite")) as connection:
        connection.executescript(FIRST.read_text())
    return tmp_path


def asked(data: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(data / "launchpad.sqlite")) as connection, connection:
        return connection.execute(statement).fetchall()


def tables(data: Path) -> dict[str, set[Any]]:
    """Columns and indexes of each table."""
    found = {}
    for (name,) in asked(data, "SELECT name FROM sqlite_master WHERE type = 'table'"):
        columns = {row[1:4] for row in asked(data, f"PRAGMA table_info({name})")}
        found[name] = columns | {(row[1], row[2]) for row in asked(data, f"PRAGMA index_list({name})")}
    return found


def test_a_database_of_the_first_launchpad_is_opened_with_all_that_is_in_it(old: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    lab = Lab(old)
    ana = lab.client("ana")
    (entry,) = ana.get("/api/workflow").json()["workflows"]
    workflow_id = entry["workflow"]["id"]
    assert [entry["workflow"][name] for name in ("runName", "status", "projectName")] == ["kept_llama_1", "SUCCEEDED", "llamaflow"]
    progress = ana.get(f"/api/workflow/{workflow_id}/progress").json()["progress"]
    assert (progress["workflowProgress"]["succeeded"], progress["totalProcesses"]) == (2, 2)
    assert [process["process"] for process in progress["processesProgress"]] == ["GREET", "COLLECT"]
    assert [entry["task"]["name"] for entry in ana.get(f"/api/workflow/{workflow_id}/tasks").json()["tasks"]] == ["GREET (1)", "COLLECT"]
    assert [len(ana.get(f"/api/{kind}").json()[kind]) for kind in ("datasets", "actions", "labels")] == [1, 1, 1]
    assert lab.launched()
    new = tmp_path_factory.mktemp("new")
    open_store(new / "launchpad.sqlite")
    assert tables(old) == tables(new)
    assert asked(old, "PRAGMA user_version") == [(migrations.LATEST,)]


def test_a_database_from_before_migrations_were_counted_is_known_by_its_columns(tmp_path: Path) -> None:
    workflow_id = Lab(tmp_path).launched()
    asked(tmp_path, "PRAGMA user_version = 0")
    assert Lab(tmp_path).client().get(f"/api/workflow/{workflow_id}").status_code == 200
    assert asked(tmp_path, "PRAGMA user_version") == [(migrations.LATEST,)]


def test_a_database_of_a_later_launchpad_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path / "launchpad.sqlite")
    asked(tmp_path, f"PRAGMA user_version = {migrations.LATEST + 1}")
    with pytest.raises(ApiError, match="later launchpad"):
        open_store(tmp_path / "launchpad.sqlite")
    assert asked(tmp_path, "PRAGMA user_version") == [(migrations.LATEST + 1,)]


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tables(old)
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", [[*migrations.MIGRATIONS[0], "DROP TABLE nothing"]])
        with pytest.raises(OperationalError):
            open_store(old / "launchpad.sqlite")
    assert (tables(old), asked(old, "PRAGMA user_version")) == (before, [(0,)])
    open_store(old / "launchpad.sqlite")
    assert tables(old) != before


def test_a_database_is_not_changed_under_a_launchpad_that_works_with_it(old: Path) -> None:
    """One that was updated, but not yet started again, while somebody makes a token with the new one."""
    with claim(old), pytest.raises(ApiError, match="another launchpad works"):
        open_store(old / "launchpad.sqlite")
    assert asked(old, "PRAGMA user_version") == [(0,)]


@pytest.mark.parametrize("there", [True, False])
def test_a_database_is_made_and_changed_once(there: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if there:
        request.getfixturevalue("old")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: open_store(tmp_path / "launchpad.sqlite"), range(8)))
    assert len(asked(tmp_path, "SELECT id FROM workflow")) == int(there)
