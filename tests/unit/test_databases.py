"""Databases as sources: rows as a stream, nothing written, passwords nowhere."""

from __future__ import annotations

import gc
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from database_server import mariadb, postgresql
from record_files import receipt, rows

from llamaflow.databases import rows_of_query
from llamaflow.errors import TemporaryError, UsageError
from llamaflow.sources import Source, read_samplesheet
from llamaflow.watermarks import Watermark


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my tickets?.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE tickets (id INTEGER, asked TEXT, answered TEXT, kept BLOB)")
    database.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?)", [(number, f"Why {number} %?", f"At 12:30, {number}", b"\xff") for number in range(3)])
    database.commit()
    database.close()
    return path


def test_rows_of_a_query(file: Path) -> None:
    query = "SELECT id, asked AS question, answered AS answer, kept FROM tickets WHERE asked LIKE '%\\%?' ESCAPE '\\' AND answered <> ' :id' AND id < 2"
    assert list(rows_of_query(file, query, None)) == [
        (1, {"id": 0, "question": "Why 0 %?", "answer": "At 12:30, 0", "kept": "/w=="}),
        (2, {"id": 1, "question": "Why 1 %?", "answer": "At 12:30, 1", "kept": "/w=="}),
    ]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("DELETE FROM tickets", "readonly database"),
        ("SELECT nope FROM tickets", "no such column: nope"),
        ("SELECT 1; DROP TABLE tickets", "one statement at a time"),
    ],
)
def test_queries_that_are_refused(file: Path, query: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(rows_of_query(file, query, None))
    assert len(list(rows_of_query(file, "SELECT * FROM tickets", None))) == 3


def test_the_secret_is_a_variable_that_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKETS_PASSWORD", raising=False)
    with pytest.raises(UsageError, match="TICKETS_PASSWORD, which the column secret names, is not set"):
        list(rows_of_query("postgresql://reader@db.example.org/tickets", "SELECT 1", "TICKETS_PASSWORD"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "postgresql://reader@db/tickets"}, "a database needs a query"),
        ({"path": "faq.csv", "query": "SELECT 1"}, "a query needs a database"),
        ({"path": "postgresql://reader:hunter2@db/tickets", "query": "SELECT 1"}, "a path with a password would stand in reports"),
    ],
)
def test_sources_that_are_refused(tmp_path: Path, given: dict[str, str], words: str) -> None:
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"id,path,query\ntickets,{given['path']},{given.get('query', '')}\n")
    with pytest.raises(UsageError, match=words) as refused:
        read_samplesheet(sheet)
    assert "line 2: " in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_database_as_a_source(run_step: Any, file: Path, tmp_path: Path) -> None:
    source = {"id": "tickets", "path": file.name, "query": "SELECT asked AS question, answered AS answer, id AS subject_id FROM tickets"}
    run_step("collect_source", ["--path", file, "--outdir", tmp_path], {"source": source})
    assert [
        (record["messages"][0]["content"], record["meta"]["subject_id"], record["meta"]["location"]) for record in rows(tmp_path / "collected.parquet")
    ] == [
        ("Why 0 %?", "0", "query:1"),
        ("Why 1 %?", "1", "query:2"),
        ("Why 2 %?", "2", "query:3"),
    ]
    assert receipt(tmp_path / "collect_source.json")["counts"]["format"] == "sql"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL with 20,000 tickets."""
    with postgresql(tmp_path_factory.mktemp("postgresql")) as running:
        running.psql(
            "CREATE TABLE tickets (id serial, asked text, answered text, price numeric, made timestamptz DEFAULT '2026-11-22 10:00:00+00');"
            "INSERT INTO tickets (asked, answered, price) SELECT 'Why ' || n || '%?', '12:30', n * 1.5 FROM generate_series(1, 20000) n;"
        )
        yield running.get_uri()


@pytest.mark.slow
def test_a_server(server: str) -> None:
    query = r"SELECT asked, price, made::date AS day FROM tickets WHERE asked LIKE '%\%?' AND answered = '12:30' ORDER BY id"
    found = list(rows_of_query(server, query, None))
    assert len(found) == 20_000
    assert found[-1] == (20_000, {"asked": "Why 20000%?", "price": "30000.0", "day": "2026-11-22"})


@pytest.mark.slow
@pytest.mark.parametrize("query", ["DELETE FROM tickets", "WITH gone AS (DELETE FROM tickets RETURNING *) SELECT * FROM gone", "SELECT nope FROM tickets"])
def test_a_server_refuses(server: str, query: str) -> None:
    with pytest.raises(UsageError, match="refuses"):
        list(rows_of_query(server, query, None))
    assert list(rows_of_query(server, "SELECT count(*) AS left FROM tickets", None)) == [(1, {"left": 20_000})]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*ServerCursorMixin.__del__:pytest.PytestUnraisableExceptionWarning")  # nobody can close it any more
def test_a_server_that_goes_away_in_the_middle_is_asked_again(server: str) -> None:
    reading = rows_of_query(server, "SELECT asked FROM tickets a CROSS JOIN (SELECT 1 FROM generate_series(1, 50)) b", None)
    next(reading)
    others = "SELECT pg_terminate_backend(pid) AS gone FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    assert list(rows_of_query(server, others, None))
    with pytest.raises(TemporaryError, match="ended the query after"):
        list(reading)
    del reading
    gc.collect()


TICKETS = (
    "CREATE DATABASE tickets CHARACTER SET utf8mb4",
    "USE tickets",
    "CREATE TABLE tickets (id int, asked text, price decimal(10, 2), made datetime, facts json)",
    "INSERT INTO tickets SELECT seq, CONCAT('Why ', seq, '%? 🙂'), seq * 1.5, '2026-11-22 10:00:00', '{\"a\": 1}' FROM seq_1_to_20000",
    "CREATE USER reader@'localhost' IDENTIFIED BY 'a secret'",
    "GRANT ALL ON tickets.* TO reader@'localhost'",
)


@pytest.fixture(scope="module")
def tickets_in_mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MariaDB with 20,000 tickets."""
    if shutil.which("mariadbd") is None:
        pytest.skip("MariaDB is not installed (Debian: apt install mariadb-server)")
    with mariadb(tmp_path_factory.mktemp("mariadb"), TICKETS) as host:
        yield f"mysql://reader@{host}/tickets"


@pytest.fixture
def mysql(tickets_in_mariadb: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its address, without the password, which is in the environment."""
    monkeypatch.setenv("MYSQL_PASSWORD", "a secret")
    return tickets_in_mariadb


@pytest.mark.slow
def test_mysql(mysql: str) -> None:
    query = r"SELECT asked, price, made, facts FROM tickets WHERE asked LIKE '%\%?%' AND asked <> ' :id' ORDER BY id"
    found = list(rows_of_query(mysql, query, "MYSQL_PASSWORD"))
    assert len(found) == 20_000
    assert found[-1] == (20_000, {"asked": "Why 20000%? 🙂", "price": "30000.00", "made": "2026-11-22 10:00:00", "facts": '{"a": 1}'})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("DELETE FROM tickets", "refuses: Cannot execute statement in a READ ONLY transaction. Check"),
        ("SELECT nope FROM tickets", "refuses: Unknown column 'nope'"),
        ("SELECT 1; DROP TABLE tickets", "refuses: You have an error in your SQL syntax"),
        ("DO 1", "does not return rows. It has been closed automatically. Expected"),
    ],
)
def test_mysql_refuses(mysql: str, query: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(rows_of_query(mysql, query, "MYSQL_PASSWORD"))
    assert list(rows_of_query(mysql, "SELECT count(*) AS still FROM tickets", "MYSQL_PASSWORD")) == [(1, {"still": 20_000})]


@pytest.mark.slow
def test_mysql_reads_from_the_watermark_on(mysql: str) -> None:
    query = "SELECT id, asked FROM tickets"
    watermark = Watermark(Source.model_validate({"id": "tickets", "path": mysql, "query": query, "watermark": "id"}), None)
    watermark.since = 19_999
    assert [row["id"] for _, row in rows_of_query(mysql, query, "MYSQL_PASSWORD", watermark)] == [19_999, 20_000]
    assert watermark.highest == 20_000


@pytest.mark.slow
def test_mysql_that_goes_away_in_the_middle_is_asked_again(mysql: str) -> None:
    reading = rows_of_query(mysql, "SELECT asked FROM tickets CROSS JOIN seq_1_to_50", "MYSQL_PASSWORD")
    next(reading)
    ((_, other),) = rows_of_query(mysql, "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT asked %'", "MYSQL_PASSWORD")
    with pytest.raises(UsageError, match="not return rows"):
        list(rows_of_query(mysql, f"KILL {other['id']}", "MYSQL_PASSWORD"))
    with pytest.raises(TemporaryError, match=r"ended the query after \d+ rows: Lost connection"):
        list(reading)
    del reading
    gc.collect()


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="Connection refused"):
        list(rows_of_query("postgresql://nobody@127.0.0.1:1/x", "SELECT 1", None))
