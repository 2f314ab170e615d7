"""Which runs had the data of people who ask to be forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from record_files import chat, write_records

from find_subjects import run
from llamaflow.errors import UsageError
from llamaflow.records import SPLITS, DroppedWriter


def a_run(directory: Path, release: str | None, people: dict[str, list[str]]) -> None:
    """Results with a record a person in the splits, and those of `dropped` as duplicates."""
    (directory / "data").mkdir(parents=True)
    (directory / "index.json").write_text(json.dumps({"release": release}))
    for split in SPLITS:
        records = [chat(f"I am {name}", "Hello") | {"meta": {"location": "a:1", "subject_id": name}} for name in people.get(split, [])]
        write_records(directory / "data" / f"{split}.parquet", records)
    with DroppedWriter(directory / "data" / "dropped.parquet", "deduplicate_records") as dropped:
        for name in people.get("dropped", []):
            dropped.drop("a", "a:1", "near-duplicate", {"subject_id": name})


def test_runs_that_had_their_data_are_told(tmp_path: Path) -> None:
    forget = tmp_path / "forget.txt"
    forget.write_text("ana\nbob\neve\n")
    a_run(tmp_path / "results/may", "release/faq/1", {"train": ["ana", "ana", "zoe"], "test": ["bob"]})
    a_run(tmp_path / "results/june", None, {"train": ["zoe"], "dropped": ["eve", "zoe"]})
    a_run(tmp_path / "results/july", "release/faq/2", {"train": ["zoe"]})
    june, may, last = run(forget, [tmp_path / "results"])
    assert may.endswith("results/may: released release/faq/1; 2 of 3 people, records: 2 train, 1 test")
    assert june.endswith("results/june: nothing released, but its trials were trained; 1 of 3 people, records: 1 that a kept record equals or nearly equals")
    assert last.startswith("3 runs looked through. To forget: train anew with --erase_subjects")
    assert run(forget, [tmp_path / "results/july"]) == ["None of them is in the data of any run (1 run looked through)."]


@pytest.mark.parametrize(("subjects", "results"), [("nothing.txt", "."), ("forget.txt", "empty")])
def test_what_is_not_there_is_said(tmp_path: Path, subjects: str, results: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "forget.txt").write_text("ana\n")
    with pytest.raises(UsageError, match=r"nothing\.txt|no results of a run"):
        run(tmp_path / subjects, [tmp_path / results])


def test_conversations_of_several_people(tmp_path: Path) -> None:
    (tmp_path / "forget.txt").write_text("bob\neve\n")
    a_run(tmp_path / "results", None, {"train": ["ana\nbob", "ana"], "dropped": ["zoe\neve"]})
    found, _ = run(tmp_path / "forget.txt", [tmp_path / "results"])
    assert found.endswith("2 of 2 people, records: 1 train, 1 that a kept record equals or nearly equals")
