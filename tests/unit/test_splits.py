"""Splits with an earlier run: no record moves, whatever is added, and the shares hold."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_files import chat, rows, write_records

from llamaflow.data_params import Splitting
from llamaflow.errors import DataError
from llamaflow.previous import read_previous
from llamaflow.records import SPLITS
from llamaflow.splits import Index, draw, quotas_of, read_index, stability

Records = list[dict[str, Any]]


def drawn(records: Records, directory: Path, previous: Path | None = None, **splitting: Any) -> tuple[dict[str, Records], Index]:
    """Split records, and write the splits into a directory as split_dataset does."""
    rules = Splitting(**splitting)
    index = read_index(write_records(directory / "all.parquet", records), rules, read_previous(previous, rules.split_seed) if previous else None)
    written, assigned = rows(directory / "all.parquet"), draw(index)
    result = {split: [record for record, found in zip(written, assigned, strict=True) if found == place] for place, split in enumerate(SPLITS)}
    for split, found in result.items():
        write_records(directory / f"{split}.parquet", found)
    return result, index


def place_of(splits: dict[str, Records]) -> dict[str, str]:
    return {record["id"]: split for split, records in splits.items() for record in records}


def question(number: int, answer: int, person: int | None, document: int | None, source: str) -> dict[str, Any]:
    meta = {"location": "x", "subject_id": person and f"p{person}", "document_id": document and f"d{document}"}
    return chat(f"question {number}?", f"answer {answer}", source=source, meta=meta)


QUESTIONS = st.lists(
    st.builds(
        question, st.integers(0, 400), st.integers(0, 3), st.none() | st.none() | st.integers(1, 200), st.none() | st.integers(1, 9), st.sampled_from("ab")
    ),
    unique_by=lambda record: str(record["messages"]),
)


@settings(max_examples=15)
@given(QUESTIONS.filter(lambda records: len(records) > 10), QUESTIONS, st.randoms(use_true_random=False), st.integers(0, 9), st.floats(0, 0.5))
def test_no_record_moves(first: Records, more: Records, random_: random.Random, seed: int, gone: float) -> None:
    asked = {str(record["messages"]) for record in first}
    grown = [record for record in first if random_.random() >= gone] + [record for record in more if str(record["messages"]) not in asked]
    random_.shuffle(grown)
    with TemporaryDirectory() as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        old.mkdir(), new.mkdir()
        before, _ = drawn(first, old)
        after, index = drawn(grown, new, old, split_seed=seed)
        again, _ = drawn(sorted(grown, key=str), new, old, split_seed=seed)
    places, was = place_of(after), place_of(before)
    assert len(places) == len(grown)
    assert {name: places[name] for name in places.keys() & was.keys()} == {name: was[name] for name in places.keys() & was.keys()}
    assert place_of(again) == places, "the order of the records does not matter"
    assert sum(map(sum, (counts.values() for name, counts in counted(after, index).items() if name != "moved"))) == len(grown)
    assert_whole({record["messages"][0]["content"]: None for record in first}, before, after)


def counted(splits: dict[str, Records], index: Index) -> dict[str, dict[str, int]]:
    counts = stability(index, draw(index))
    assert counts.pop("test_not_as_given") == sum(counts["moved"].values()) == 0
    assert {split: sum(count[split] for count in counts.values()) for split in SPLITS} == {split: len(records) for split, records in splits.items()}
    return counts


def assert_whole(known: dict[str, None], before: dict[str, Records], after: dict[str, Records]) -> None:
    """Questions and people are in one split, unless a new record tied together what the earlier run had in two."""
    where: dict[str, set[str]] = {}
    for splits in (before, after):
        for split, records in splits.items():
            for record in records:
                for name in (record["messages"][0]["content"], record["meta"]["subject_id"]):
                    where.setdefault(name or "", set()).add(split)
    ties = {
        name
        for records in after.values()
        for record in records
        for name in (record["messages"][0]["content"], record["meta"]["subject_id"])
        if record["meta"]["subject_id"] and len(where[record["messages"][0]["content"]] | where[record["meta"]["subject_id"]]) > 1
    }
    assert {name for name, places in where.items() if name and len(places) > 1} <= ties


@settings(max_examples=15)
@given(st.integers(30, 300), st.integers(1, 400), st.integers(0, 99))
def test_shares_hold_over_all_records(first: int, more: int, seed: int) -> None:
    records = [chat(f"{number}?", "yes", source="ab"[number % 2]) for number in range(first + more)]
    with TemporaryDirectory() as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        old.mkdir(), new.mkdir()
        drawn(records[:first], old)
        after, _ = drawn(records, new, old, split_seed=seed)
    assert abs(len(after["test"]) - 0.1 * (first + more)) <= 2
    assert abs(len(after["validation"]) - 0.1 * (first + more)) <= 2


def grown(tmp_path: Path, first: Records, then: Records, **splitting: Any) -> tuple[dict[str, Records], Index]:
    (tmp_path / "old").mkdir()
    drawn(first, tmp_path / "old")
    return drawn(then, tmp_path, tmp_path / "old", **splitting)


def test_many_small_strata_keep_their_shares(tmp_path: Path) -> None:
    def labelled(each: int) -> Records:
        return [{"type": "text", "text": f"{label} {number}", "label": f"l{label}"} for label in range(100) for number in range(each)]

    after, _ = grown(tmp_path, labelled(4), labelled(6), stratify_by="label")
    assert all(60 <= len(after[split]) <= 64 for split in ("validation", "test"))


def test_a_source_with_too_many_test_records_leaves_others_theirs(tmp_path: Path) -> None:
    first = [chat(f"{number}?", "yes", source="a", split=None if number else "test") for number in range(200)]
    then = first + [chat(f"b {number}?", "yes", source="b") for number in range(100)]
    after, _ = grown(tmp_path, first, then, test_fraction=0.02)
    assert Counter(record["source"] for record in after["test"])["b"] in (1, 2)


def test_new_records_follow_their_question_and_their_person(tmp_path: Path) -> None:
    first = [chat(f"{number}?", "yes", split=SPLITS[number % 3], meta={"location": "x", "subject_id": f"p{number}"}) for number in range(30)]
    more = [chat(f"{number}?", "no") for number in range(30)] + [
        chat(f"new {number}?", "no", meta={"location": "x", "subject_id": f"p{number}"}) for number in range(30)
    ]
    after, index = grown(tmp_path, first, [{**record, "split": None} for record in first] + more)
    assert {split: len(found) for split, found in after.items()} == {"train": 30, "validation": 30, "test": 30}
    assert counted(after, index)["related"] == {"train": 20, "validation": 20, "test": 20}


def test_given_splits_win_but_what_was_test_stays_test(tmp_path: Path) -> None:
    first = [chat(f"{number}?", "yes", split=SPLITS[number // 10]) for number in range(30)]
    then = [{**record, "split": ("test", "train", "train")[number // 10]} for number, record in enumerate(first)]
    after, index = grown(tmp_path, first, [*then, chat("20?", "no", split="train"), chat("new?", "yes", split="validation")])
    was = {
        split: Counter(int(record["messages"][0]["content"].rstrip("?")) // 10 for record in found if "new" not in str(record))
        for split, found in after.items()
    }
    assert was == {"train": {1: 10, 2: 1}, "validation": {}, "test": {0: 10, 2: 10}}
    counts = stability(index, draw(index))
    assert counts["test_not_as_given"] == 10
    assert counts["moved"] == {"train": 10, "validation": 0, "test": 10}


def test_validation_is_not_drawn_from_what_was_train(tmp_path: Path) -> None:
    first = [chat(f"{number}?", "yes", split="train" if number < 50 else "test") for number in range(60)]
    after, _ = grown(tmp_path, first, first + [chat(f"new {number}?", "yes", split="train") for number in range(50)])
    was, places = place_of({split: rows(tmp_path / "old" / f"{split}.parquet") for split in SPLITS}), place_of(after)
    assert {name: places[name] for name in was} == was
    assert {split: len(found) for split, found in after.items()} == {"train": 90, "validation": 10, "test": 10}


def test_quotas_without_an_earlier_run() -> None:
    assert quotas_of(104, (0.1, 0.1), (0.0, 0.0))[0] == (10, 10)
    quotas, carried = quotas_of(10, (0.1, 0.1), (0.0, 0.0), (30, 0, 60))
    assert quotas == (0, 10)
    assert carried == (-1, 0)


def dated(number: int, day: int | None, **more: Any) -> dict[str, Any]:
    return chat(f"question {number}?", "yes", meta={"location": "x", "created_at": None if day is None else f"2026-01-{day:02}"}, **more)


def days(records: Records) -> list[int]:
    return sorted(int(record["meta"]["created_at"][-2:]) for record in records)


def test_by_time_the_newest_of_each_source_are_tested_and_those_before_them_validated(tmp_path: Path) -> None:
    records = [dated(number, number % 20 + 1, source="ab"[number >= 20]) for number in range(40)]
    found, _ = drawn(records, tmp_path, split_by="time")
    assert days(found["test"]) == [19, 19, 20, 20]
    assert days(found["validation"]) == [17, 17, 18, 18]
    again, _ = drawn(records[::-1], tmp_path, split_by="time")
    assert place_of(again) == place_of(found)


def test_by_time_what_has_no_date_is_the_oldest_and_the_same_prompt_stays_together(tmp_path: Path) -> None:
    records = [dated(number, number + 1) for number in range(20)] + [dated(number, None) for number in range(20, 28)] + [{**dated(0, 28), "source": "b"}]
    records[-1]["messages"][-1]["content"] = "no"
    found, _ = drawn(records, tmp_path, split_by="time", stratify_by="label")
    assert {record["messages"][0]["content"] for record in found["test"]} == {"question 0?", "question 19?"}
    assert sum(record["meta"]["created_at"] is None for record in found["train"]) == 8


def test_by_time_records_of_earlier_runs_stay_and_the_newest_of_the_others_are_drawn(tmp_path: Path) -> None:
    after, _ = grown(tmp_path, [dated(number, number + 1) for number in range(10)], [dated(number, number + 1) for number in range(20)], split_by="time")
    assert len(after["test"]) == 2
    assert days(after["test"])[-1] == 20


def test_by_time_needs_dates(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="created_at"):
        drawn([dated(number, None) for number in range(20)], tmp_path, split_by="time")
