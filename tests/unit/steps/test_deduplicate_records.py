"""deduplicate_records: of equal records one is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_files import chat, receipt, rows, write_records

Deduplicate = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def deduplicate(run_step: Any, tmp_path: Path) -> Deduplicate:
    def run(*files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        paths = []
        for number, records in enumerate(files):
            (tmp_path / str(number)).mkdir(exist_ok=True)
            paths.append(write_records(tmp_path / str(number) / "cleaned.parquet", records))
        run_step("deduplicate_records", ["--records", *paths, "--outdir", tmp_path], {})
        return rows(tmp_path / "deduplicated.parquet")

    return run


def text(words: str, split: str | None = None, source: str = "faq") -> dict[str, Any]:
    return {"type": "text", "text": words, "split": split, "source": source}


def test_first_is_kept_across_sources(deduplicate: Deduplicate, tmp_path: Path) -> None:
    left = deduplicate([text("One"), text("two"), text("one ")], [text("TWO", source="b"), text("three", source="b"), chat("two", "x", source="b")])
    assert [(record["source"], record["text"]) for record in left] == [("faq", "One"), ("faq", "two"), ("b", "three"), ("b", None)]
    dropped = rows(tmp_path / "deduplicate_records.dropped.parquet")
    assert [(row["source"], row["location"], row["reason"]) for row in dropped] == [
        ("faq", "faq.csv:3", "exact duplicate"),
        ("b", "faq.csv:1", "exact duplicate"),
    ]
    made = receipt(tmp_path / "deduplicate_records.json")
    assert made["counts"] == {
        "records": 4,
        "dropped": {"exact duplicate": 2},
        "sources": {"b": {"kept": 2, "dropped": {"exact duplicate": 1}}, "faq": {"kept": 2, "dropped": {"exact duplicate": 1}}},
    }
    assert list(made["inputs"]) == ["1/cleaned.parquet", "2/cleaned.parquet"]
    assert not list(tmp_path.glob(".ids*"))


@pytest.mark.parametrize(
    ("splits", "kept"),
    [
        ([None, "test"], 1),
        (["train", "validation", "test", "test"], 2),
        (["train", "validation"], 1),
        (["validation", "train"], 0),
        ([None, "train"], 0),
        (["test", "validation", None], 0),
    ],
)
def test_given_test_records_never_lose(deduplicate: Deduplicate, splits: list[str | None], kept: int) -> None:
    (left,) = deduplicate(*[[text("same", split, source=str(number))] for number, split in enumerate(splits)])
    assert left["source"] == str(kept)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, "train", "validation", "test"])), max_size=8), min_size=1, max_size=3))
def test_one_of_each_is_left(deduplicate: Deduplicate, files: list[list[tuple[int, str | None]]]) -> None:
    left = deduplicate(*[[text(f"text {number}", split) for number, split in file] for file in files])
    given_records = [record for file in files for record in file]
    assert sorted(record["text"] for record in left) == sorted({f"text {number}" for number, _ in given_records})
    in_test = {f"text {number}" for number, split in given_records if split == "test"}
    assert {record["text"] for record in left if record["split"] == "test"} == in_test
