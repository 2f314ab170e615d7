"""deduplicate_records: of equal and of nearly equal records one is kept, and none of somebody to be erased."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_files import chat, receipt, rows, write_records

Deduplicate = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def deduplicate(run_step: Any, tmp_path: Path) -> Deduplicate:
    def run(
        *files: list[dict[str, Any]], erase: str | None = None, more: Sequence[str | Path] = (), of: dict[str, int] | None = None, **deduplication: Any
    ) -> list[dict[str, Any]]:
        paths = []
        for number, records in enumerate(files):
            (tmp_path / str(number)).mkdir(exist_ok=True)
            paths.append(write_records(tmp_path / str(number) / "cleaned.parquet", records))
        if erase is not None:
            (tmp_path / "erase.txt").write_text(erase, encoding="utf-8")
            more = [*more, "--erase", tmp_path / "erase.txt"]
        run_step("deduplicate_records", ["--records", *paths, *more, "--outdir", tmp_path], {"deduplication": deduplication, "max_records_of": of or {}})
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
        "clusters": {"2": 2},
    }
    assert list(made["inputs"]) == ["1/cleaned.parquet", "2/cleaned.parquet"]
    assert not list(tmp_path.glob(".texts*"))


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


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, "train", "validation", "test"])), max_size=8), min_size=1, max_size=3))
def test_one_of_each_is_left(deduplicate: Deduplicate, files: list[list[tuple[int, str | None]]]) -> None:
    left = deduplicate(*[[text(f"text {number}", split) for number, split in file] for file in files])
    given_records = [record for file in files for record in file]
    assert sorted(record["text"] for record in left) == sorted({f"text {number}" for number, _ in given_records})
    in_test = {f"text {number}" for number, split in given_records if split == "test"}
    assert {record["text"] for record in left if record["split"] == "test"} == in_test


LONG = "The leave of every employee is granted by the head of the unit, who hears the employee first and answers in writing within ten days."
LONGER = LONG + " That is the rule."


def test_near_duplicates(deduplicate: Deduplicate, tmp_path: Path) -> None:
    other = text(LONG.replace("employee", "guest").replace("unit", "house").replace("ten", "two"))
    assert [record["text"] for record in deduplicate([text(LONG), other, text(LONGER)], near_duplicate_threshold=0.8)] == [LONG, other["text"]]
    assert [row["reason"] for row in rows(tmp_path / "deduplicate_records.dropped.parquet")] == ["near-duplicate"]
    assert len(deduplicate([text(LONG), text(LONGER)], near_duplicate_threshold=1)) == 2


@pytest.mark.parametrize(("rule", "kept"), [("first", 0), ("longest", 1), ("newest", 2)])
def test_which_one_is_kept(deduplicate: Deduplicate, rule: str, kept: int) -> None:
    dates = ["2026-01-01", None, "2026-03-01T10:00:00Z"]
    records = [text(words) | {"meta": {"created_at": date, "location": "x"}} for words, date in zip([LONG, LONGER, LONG + " Yes."], dates, strict=True)]
    (left,) = deduplicate(records, keep_duplicate=rule)
    assert left["text"] == records[kept]["text"]


def test_a_given_test_record_is_kept_before_its_near_duplicates(deduplicate: Deduplicate) -> None:
    (left,) = deduplicate([text(LONGER), text(LONG, "test")], keep_duplicate="longest")
    assert left["text"] == LONG


def test_people_are_erased_with_what_nearly_equals_theirs(deduplicate: Deduplicate, tmp_path: Path) -> None:
    def of(subject: str | None, words: str) -> dict[str, Any]:
        return text(words) | {"meta": {"subject_id": subject, "location": "x"}}

    left = deduplicate([of("7", "mine"), of(None, LONG), of("7", LONGER), of("8", "theirs"), of(None, "nobody's")], erase="\ufeff7\n\n99 \n")
    assert [record["text"] for record in left] == ["theirs", "nobody's"]
    assert {(row["reason"], row["record"]) for row in rows(tmp_path / "deduplicate_records.dropped.parquet")} == {("erased on request", "")}
    assert receipt(tmp_path / "deduplicate_records.json")["counts"]["subjects"] == {"asked": 2, "found": 1}


@pytest.mark.parametrize(("erase", "code", "words"), [("\n", 64, "erase.txt is empty"), ("7", 65, "no record is left")])
def test_erasing_that_cannot_be_meant(deduplicate: Deduplicate, capsys: pytest.CaptureFixture[str], erase: str, code: int, words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        deduplicate([text("mine") | {"meta": {"subject_id": "7", "location": "x"}}], erase=erase)
    assert stopped.value.code == code
    assert words in capsys.readouterr().err


@pytest.fixture
def previous(tmp_path: Path) -> Callable[..., list[str | Path]]:
    def write(**splits: list[dict[str, Any]]) -> list[str | Path]:
        (tmp_path / "data").mkdir()
        for split in ("train", "validation", "test"):
            write_records(tmp_path / "data" / f"{split}.parquet", splits.get(split, []))
        return ["--previous", tmp_path / "data"]

    return write


def reasons(tmp_path: Path) -> list[str]:
    return [row["reason"] for row in rows(tmp_path / "deduplicate_records.dropped.parquet")]


EARLIER = "near-duplicate of an earlier test record"


@pytest.mark.parametrize("threshold", [0.8, 1])
def test_what_was_test_stays_and_what_nearly_equals_it_goes(deduplicate: Deduplicate, previous: Any, tmp_path: Path, threshold: float) -> None:
    more = previous(test=[text(LONG), text("gone"), text("short")], train=[text("learnt")])
    records = [text(LONGER), text(LONG), text("Short"), text("learnt"), text("new")]
    left = [record["text"] for record in deduplicate(records, more=more, keep_duplicate="longest", near_duplicate_threshold=threshold)]
    assert left == ([LONGER] if threshold == 1 else []) + [LONG, "Short", "learnt", "new"]
    assert reasons(tmp_path) == ([] if threshold == 1 else ["near-duplicate"])


def test_an_earlier_test_record_that_no_longer_comes_is_still_not_learnt(deduplicate: Deduplicate, previous: Any, tmp_path: Path) -> None:
    more = previous(test=[text(LONG)])
    given = [text(LONGER, split) for split in (None, "train", "validation")]
    assert [record["text"] for record in deduplicate([*given, text("new")], more=more)] == ["new"]
    assert sorted(reasons(tmp_path)) == ["exact duplicate", "exact duplicate", EARLIER]
    assert [record["split"] for record in deduplicate([text(LONGER, "test")], more=more)] == ["test"]


def test_a_mended_answer_to_an_earlier_test_question_stays(deduplicate: Deduplicate, previous: Any, tmp_path: Path) -> None:
    more = previous(test=[chat(LONG, "Yes, within ten days")])
    (left,) = deduplicate([chat(LONGER, "yes, within ten days"), chat(LONG, "Yes - within ten days!")], more=more)
    assert left["messages"][0]["content"] == LONG
    assert reasons(tmp_path) == ["near-duplicate"]


def test_a_new_record_between_two_earlier_test_records_costs_neither(deduplicate: Deduplicate, previous: Any) -> None:
    words = [f"w{number}" for number in range(100)]
    one, two = (" ".join(changed) for changed in (["x"] * 8 + words[8:], words[:-8] + ["x"] * 8))
    left = deduplicate([text(" ".join(words)), text(one), text(two)], more=previous(test=[text(one), text(two)]))
    assert [record["text"] for record in left] == [one, two]


def test_erasing_wins_over_earlier_test_records(deduplicate: Deduplicate, previous: Any, tmp_path: Path) -> None:
    mine = text(LONG) | {"meta": {"subject_id": "7", "location": "x"}}
    left = deduplicate([mine, text(LONGER), text("new")], more=previous(test=[mine]), erase="7")
    assert [record["text"] for record in left] == ["new"]
    assert set(reasons(tmp_path)) == {"erased on request"}


def test_questions_of_benchmarks_are_not_learnt(deduplicate: Deduplicate, tmp_path: Path, previous: Any) -> None:
    (tmp_path / "gsm.jsonl").write_text(json.dumps({"question": f"Suppose that {LONG}", "answer": "x"}) + "\n")
    (tmp_path / "short.txt").write_text("Who signs?\n")
    more = ["--benchmarks", tmp_path / "gsm.jsonl", tmp_path / "short.txt", *previous(test=[chat("who signs?", "She.")])]
    records = [
        chat("What is the rule?", f"This: {LONG}"),
        chat("Who signs?", "I."),
        chat("Who signs it?", "I."),
        text(f"And {LONG}", "test"),
        chat("who signs?", "She."),
    ]
    left = deduplicate(records, more=more)
    assert [record["meta"]["location"] for record in left] == ["faq.csv:2", "faq.csv:3", "faq.csv:4", "faq.csv:5"]
    assert reasons(tmp_path) == ["question of gsm.jsonl"]
    made = receipt(tmp_path / "deduplicate_records.json")
    assert made["counts"]["benchmarks"] == {
        "gsm.jsonl": {"questions": 1, "dropped": 1, "test": 1},
        "short.txt": {"questions": 1, "dropped": 0, "test": 2},
    }
    assert made["counts"]["dropped"] == {"question of gsm.jsonl": 1}


def test_a_sample_is_drawn_of_what_no_benchmark_asks(deduplicate: Deduplicate, tmp_path: Path) -> None:
    (tmp_path / "exam.txt").write_text("".join(f"Who signs form {number}?\n" for number in range(0, 40, 2)))
    records = [chat(f"Who signs form {number}?", f"Answer {number}.") for number in range(40)]
    left = deduplicate(records, more=["--benchmarks", tmp_path / "exam.txt"], near_duplicate_threshold=1, max_records=15)
    assert len(left) == 15
    assert all(int(record["meta"]["location"].partition(":")[2]) % 2 == 0 for record in left), "questions with odd numbers stand in even rows"
    assert receipt(tmp_path / "deduplicate_records.json")["counts"]["dropped"] == {"question of exam.txt": 20, "beyond max_records": 5}


def test_nothing_but_questions_of_benchmarks(deduplicate: Deduplicate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "exam.txt").write_text("Who signs?\n")
    with pytest.raises(SystemExit) as stopped:
        deduplicate([chat("Who signs?", "I.")], more=["--benchmarks", tmp_path / "exam.txt"])
    assert stopped.value.code == 65
    assert "contain questions of --decontaminate_against" in capsys.readouterr().err


def test_a_sample_is_the_same_whatever_else_there_is(deduplicate: Deduplicate, tmp_path: Path) -> None:
    faq, manual = ([text(f"{source} {number}", source=source) for number in range(20)] for source in ("faq", "manual"))
    few = deduplicate(faq, manual, of={"faq": 5})
    assert [record["source"] for record in few] == ["faq"] * 5 + ["manual"] * 20
    assert {row["reason"] for row in rows(tmp_path / "deduplicate_records.dropped.parquet")} == {"beyond max_records"}
    again = deduplicate(faq[::-1], of={"faq": 5})
    assert {record["text"] for record in again} == {record["text"] for record in few[:5]}
    assert len(deduplicate(faq, manual, max_records=7)) == 7


@pytest.mark.parametrize(("rule", "instead"), [("longest", True), ("first", False)])
def test_what_nearly_equals_an_earlier_train_record_says_so(deduplicate: Deduplicate, previous: Any, tmp_path: Path, rule: str, instead: bool) -> None:
    """So that it is trained on, as the other was (llamaflow.splits)."""
    learnt, mended, other = text(LONG) | {"id": "ab" * 16}, text(LONGER), text("new")
    left = deduplicate([learnt, mended, other], more=previous(train=[learnt], test=[text("asked")]), keep_duplicate=rule)
    assert [(record["text"], record["meta"]["replaces"]) for record in left] == [(LONGER, "ab" * 16) if instead else (LONG, None), ("new", None)]
    assert [record["meta"]["location"] for record in left] == ["faq.csv:2" if instead else "faq.csv:1", "faq.csv:3"]
    assert [record["meta"]["replaces"] for record in deduplicate([mended, other], more=["--previous", tmp_path / "data"])] == ["ab" * 16, None], (
        "the other is gone"
    )


def test_a_conversation_is_left_out_for_anybody_who_speaks_in_it(deduplicate: Deduplicate, tmp_path: Path) -> None:
    both, ana = ({"meta": {"subject_id": people, "location": "x"}} for people in ("ana\nbob", "ana"))
    assert [record["text"] for record in deduplicate([text("theirs") | both, text("hers") | ana], erase="bob\n")] == ["hers"]
    assert receipt(tmp_path / "deduplicate_records.json")["counts"]["subjects"] == {"asked": 1, "found": 1}
