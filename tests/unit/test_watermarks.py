"""Tables that are read on from where an earlier run ended: nothing is lost, nothing is asked for twice, and the data set is as if all had been read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from database_server import postgresql
from record_files import receipt, rows, write_records

from llamaflow.databases import rows_of_query
from llamaflow.errors import UsageError
from llamaflow.sources import Source, read_samplesheet
from llamaflow.watermarks import Watermark

QUERY = "SELECT id, asked AS question, answered AS answer, made FROM tickets -- all of them"
SPLITS = ("train", "validation", "test")


class Table:
    """Tickets in a SQLite file, and the runs of the data steps over it."""

    def __init__(self, directory: Path, run_step: Any) -> None:
        self.directory, self.run_step = directory, run_step
        self.database = sqlite3.connect(directory / "my tickets.sqlite")
        self.database.execute("CREATE TABLE tickets (id, asked TEXT, answered TEXT, made TEXT)")

    def add(self, *numbers: Any, made: str | None = None) -> None:
        many = [(number, f"What about ticket {number} of ours?", f"Answer {number}, by mail to a{number}@x.org.", made) for number in numbers]
        self.database.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?)", many)
        self.database.commit()

    def collect(self, name: str, previous: str | None = None, **source: Any) -> Any:
        """The counts of the receipt."""
        outdir = self.directory / name
        outdir.mkdir()
        row = {"id": "tickets", "path": "my tickets.sqlite", "query": QUERY, **source}
        args = ["--path", self.directory / "my tickets.sqlite", "--outdir", outdir]
        self.run_step("collect_source", [*args, *(["--previous", self.directory / previous / "dataset"] if previous else [])], {"source": row})
        return receipt(outdir / "collect_source.json")["counts"]

    def prepare(self, name: str, previous: str | None = None, **source: Any) -> Any:
        """Collect, and all steps to the data set; the counts of the first."""
        counts, outdir = self.collect(name, previous, **source), self.directory / name
        earlier = ["--previous", self.directory / previous / "dataset"] if previous else []
        self.run_step("clean_records", ["--records", outdir / "collected.parquet/00001.parquet", "--outdir", outdir])
        self.run_step("deduplicate_records", ["--records", outdir / "cleaned.parquet", *earlier, "--outdir", outdir])
        receipts = [outdir / f"{step}.json" for step in ("collect_source", "clean_records", "deduplicate_records")]
        self.run_step("split_dataset", ["--records", outdir / "deduplicated.parquet", "--receipts", *receipts, *earlier, "--outdir", outdir])
        return counts

    def data(self, name: str) -> dict[str, set[str]]:
        """The ids of each split; no record is there twice."""
        ids = {split: [row["id"] for row in rows(self.directory / name / "dataset" / f"{split}.parquet")] for split in SPLITS}
        assert all(len(set(split)) == len(split) for split in ids.values())
        return {split: set(found) for split, found in ids.items()}


@pytest.fixture
def table(tmp_path: Path, run_step: Any) -> Iterator[Table]:
    made = Table(tmp_path, run_step)
    yield made
    made.database.close()


@pytest.fixture
def refused(table: Table, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(status: int, *args: Any, **source: Any) -> str:
        with pytest.raises(SystemExit) as stopped:
            table.collect(*args, **source)
        assert stopped.value.code == status
        return capsys.readouterr().err

    return run


def test_a_second_run_asks_for_new_rows_and_has_all(table: Table) -> None:
    table.add(*range(1, 41))
    first = table.prepare("one", watermark="id")
    assert (first["earlier_records"], first["watermark"]["value"]) == (0, "40")
    assert receipt(table.directory / "one/dataset/dataset.json")["watermarks"] == {"tickets": first["watermark"]}
    # so that a second reading of the first rows would show
    table.database.execute("UPDATE tickets SET answered = 'Read again.' WHERE id < 40")
    table.add(*range(41, 61))
    second = table.prepare("two", "one", watermark="id")
    assert (second["earlier_records"], second["records"], second["watermark"]["value"]) == (40, 61, "60")
    assert second["ignored_columns"] == ["made"]
    assert {f"previous/{split}.parquet" for split in SPLITS} <= {*receipt(table.directory / "two/collect_source.json")["inputs"]}
    assert not any("Read again." in str(row) for row in rows(table.directory / "two/collected.parquet"))
    before, after = table.data("one"), table.data("two")
    assert all(before[split] <= after[split] for split in SPLITS)
    assert {split: len(ids) for split, ids in after.items()} == {"train": 48, "validation": 6, "test": 6}
    dropped = receipt(table.directory / "two/deduplicate_records.json")["counts"]["dropped"]
    assert dropped == {"exact duplicate": 1}, "the row with the highest id, which comes again"


def test_the_data_set_is_the_same_as_if_all_had_been_read(table: Table) -> None:
    table.add(*range(1, 31))
    table.prepare("one", watermark="id")
    table.add(*range(31, 51))
    table.prepare("two", "one", watermark="id")
    table.prepare("whole", "one")
    assert table.data("two") == table.data("whole")


def test_a_third_run_without_new_rows(table: Table) -> None:
    table.add(*range(1, 31))
    table.prepare("one", watermark="id")
    table.prepare("two", "one", watermark="id")
    table.database.execute("DELETE FROM tickets")
    table.database.commit()
    third = table.prepare("three", "two", watermark="id")
    assert (third["records"], third["watermark"]["value"]) == (30, "30")
    assert table.data("one") == table.data("three")


def test_rows_at_the_border_and_without_a_value_are_not_lost(table: Table) -> None:
    table.add(*range(20), made="2026-11-01 10:00:00")
    table.add(*range(20, 30), made="2026-11-02 10:00:00")
    table.add(30)
    first = table.prepare("one", watermark="made")
    assert (first["watermark"]["value"], first["watermark"]["rows_without_it"]) == ("2026-11-02 10:00:00", 1)
    table.add(31, 32, made="2026-11-02 10:00:00")
    table.add(33)
    second = table.prepare("two", "one", watermark="made")
    assert second["records"] == 31 + 12 + 2, "of the earlier run, at the border, and without a value"
    assert second["watermark"]["rows_without_it"] == 2
    assert sum(map(len, table.data("two").values())) == 34


@pytest.mark.parametrize(
    "change", [{"query": QUERY.replace("--", "WHERE id > 3 --")}, {"prompt": "Ticket: {question}", "completion": "{answer}"}, {"watermark": "made"}]
)
def test_with_another_query_all_rows_are_read(table: Table, change: dict[str, str]) -> None:
    table.add(*range(1, 31), made="2026-11-01")
    table.prepare("one", watermark="id")
    counts = table.collect("two", "one", **({"watermark": "id"} | change))
    assert counts["earlier_records"] == 0
    assert counts["records"] >= 27


def test_a_column_with_any_name_is_a_name_and_nothing_else(table: Table) -> None:
    name = 'no" OR 1; -- %(x)s :y'
    query = f"SELECT id AS \"{name.replace(chr(34), chr(34) * 2)}\", asked AS question, answered AS answer FROM tickets WHERE asked <> ' :id';"
    table.add(*range(1, 31))
    table.prepare("one", query=query, watermark=name)
    table.add(31)
    assert table.collect("two", "one", query=query, watermark=name)["records"] == 30 + 2


def test_a_value_goes_beside_the_query(table: Table) -> None:
    table.add(*range(1, 31))
    table.add("zz' OR '1'='1")
    query = "SELECT CAST(id AS TEXT) AS id, asked AS question, answered AS answer FROM tickets"
    assert table.prepare("one", query=query, watermark="id")["watermark"]["value"] == "zz' OR '1'='1"
    assert table.collect("two", "one", query=query, watermark="id")["records"] == 31 + 1


def test_new_rows_that_are_bad_are_not_lost_among_the_earlier_ones(table: Table, refused: Callable[..., str]) -> None:
    table.add(*range(1, 91))
    table.prepare("one", watermark="id")
    table.database.execute("INSERT INTO tickets SELECT 100 + id, NULL, answered, made FROM tickets WHERE id < 4")
    table.database.commit()
    assert "3 of 4 records" in refused(65, "two", "one", watermark="id")


@pytest.mark.parametrize(
    ("values", "words"),
    [((1, "two"), "holds two beside 1, which cannot be compared"), ((1.5,), "holds a float (1.5)"), ((b"\x00",), "holds a bytes")],
)
def test_values_without_an_exact_order(table: Table, refused: Callable[..., str], values: tuple[Any, ...], words: str) -> None:
    table.add(*values)
    assert words in refused(65, "one", watermark="id")


def test_a_column_that_is_not_there(table: Table, refused: Callable[..., str]) -> None:
    table.add(1)
    assert "no column changed, which watermark names. Found: id, question, answer, made" in refused(64, "one", watermark="changed")


def test_what_cannot_be_part_of_a_query_is_refused_in_the_first_run(table: Table, refused: Callable[..., str]) -> None:
    table.add(1)
    assert "refuses" in refused(64, "one", watermark="id", query="SELECT id, asked AS text FROM tickets; -- all")
    assert "refuses" in refused(64, "two", watermark="id", query="SELECT 1 AS id) AS a; DROP TABLE tickets; --")
    assert table.collect("three", watermark="id")["records"] == 1


@pytest.mark.parametrize(
    ("columns", "row", "words"),
    [
        ("path", "faq.csv", "watermark is for databases"),
        ("path,query,conversation", "a.sqlite,SELECT 1,thread", "not what was read: leave one of them out"),
        ("path,query,generate", "a.sqlite,SELECT 1,3", "not what was read: leave one of them out"),
        ("path,query,weight", "a.sqlite,SELECT 1,0.5", "not what was read: leave one of them out"),
    ],
)
def test_sources_that_are_refused(tmp_path: Path, columns: str, row: str, words: str) -> None:
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"id,watermark,{columns}\ntickets,id,{row}\n")
    with pytest.raises(UsageError, match=words):
        read_samplesheet(sheet)


@pytest.mark.parametrize("said", ["{", json.dumps({"watermarks": {"tickets": {"asked": "ASKED", "type": "list", "value": "x"}}})])
def test_a_data_set_that_is_damaged(table: Table, refused: Callable[..., str], said: str) -> None:
    table.add(*range(1, 31))
    asked = table.prepare("one", watermark="id")["watermark"]["asked"]
    (table.directory / "one/dataset/dataset.json").write_text(said.replace("ASKED", asked))
    assert "--previous_dataset: dataset.json" in refused(65, "two", "one", watermark="id")


@pytest.mark.slow
def test_types_of_a_server(tmp_path: Path, run_step: Any) -> None:
    """Whole numbers beyond 32 bits, decimals, dates, timestamps with and without zone, and text."""
    columns = {"big": "bigint", "price": "numeric", "day": "date", "made": "timestamp", "zoned": "timestamptz", "word": "text"}
    with postgresql(tmp_path / "postgresql") as server:
        server.psql(
            f"CREATE TABLE tickets (asked text, {', '.join(f'{name} {kind}' for name, kind in columns.items())});"
            "INSERT INTO tickets SELECT 'Question ' || n, 5000000000 + n, n + 0.5, date '2026-11-01' + n, timestamp '2026-11-01 10:00:00.000001' + n * interval '1 day',"
            " timestamptz '2026-11-01 10:00:00+02' + n * interval '1 day', (array['B', 'a', 'b'])[1 + n % 3] FROM generate_series(1, 9) n;"
        )
        for name in columns:
            source = {"id": "tickets", "path": server.get_uri(), "query": "SELECT *, asked AS text FROM tickets ORDER BY asked LIMIT 100", "watermark": name}
            first = _collected(run_step, tmp_path / f"{name} 1", source, None)
            again = _collected(run_step, tmp_path / f"{name} 2", source, _dataset(tmp_path / f"{name} data", first))
            assert again["watermark"] == first["watermark"]
            border = 3 if name == "word" else 1
            assert again["records"] == border, name
        twice = Source(id="tickets", path=server.get_uri(), query="SELECT 1 AS id, 2 AS id, 'x' AS text", watermark="id")
        with pytest.raises(UsageError, match=r"two columns id, which watermark names\. Found: id, id, text"):
            list(rows_of_query(twice.path, twice.query or "", None, Watermark(twice, None)))


def _collected(run_step: Any, outdir: Path, source: dict[str, Any], previous: Path | None) -> Any:
    outdir.mkdir()
    run_step("collect_source", ["--outdir", outdir, *(["--previous", previous] if previous else [])], {"source": source})
    return receipt(outdir / "collect_source.json")["counts"]


def _dataset(directory: Path, counts: Any) -> Path:
    """The data set of an earlier run in which nothing of the source was kept."""
    directory.mkdir()
    for split in SPLITS:
        write_records(directory / f"{split}.parquet", [{"type": "text", "text": f"Of another source, {split}."}])
    (directory / "dataset.json").write_text(json.dumps({"watermarks": {"tickets": counts["watermark"]}}))
    return directory
