"""Questions in texts: planted ones are all found, in whatever surrounds them, and unrelated texts have none."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from record_files import chat, encoded, write_records

from llamaflow import overlap
from llamaflow.benchmarks import questions_of
from llamaflow.errors import DataError, UsageError
from llamaflow.overlap import NONE, Questions, leakage, question_of
from llamaflow.words import TURN

WORDS = [f"w{number}" for number in range(3000)]


def drawn(random_: random.Random, low: int, high: int) -> str:
    return " ".join(random_.choices(WORDS, k=random_.randint(low, high)))


def test_planted_questions_are_all_found_and_nothing_else() -> None:
    random_ = random.Random(1)
    questions = [drawn(random_, 8, 60) for _ in range(500)]
    around = [f"{drawn(random_, 0, 200)} {question.upper()}! {drawn(random_, 0, 200)}".casefold() for question in questions]
    unrelated = [drawn(random_, 1, 300) for _ in range(2000)]
    found = Questions(questions).find([*around, *unrelated])
    assert found[:500].tolist() == list(range(500))
    assert set(found[500:].tolist()) == {NONE}


@pytest.mark.parametrize(
    ("question", "text", "is_found"),
    [
        ("What is the capital of France?", f"what is the capital of france{TURN}paris", True),
        ("What is the capital of France?", f"a\nwhat is the capital of france?\nb{TURN}paris", True),
        ("Who?\nWhy?", f"who? why?{TURN}x", True),
        ("Who?\nWhy?", f"who?\nwhy?{TURN}x", True),
        ("What is the capital of France?", "somebody asked what is the capital of france and left", False),
        ("Yes", "yes sir", False),
        ("one two three four five six seven eight nine ten", "zero one two three four five six seven eight and no more", True),  # 8 of 10 words
        ("one two three four five six seven eight " * 2 + "a", "one two three four five six seven eight", True),  # both times: 16 of 17
        (" ".join(WORDS[:20]), " ".join(WORDS[:10]), False),  # half is not more than half
        (" ".join(WORDS[:20]), " ".join(WORDS[:11]), True),
        (" ".join(WORDS[:20]), " ".join([*WORDS[:6], "x", *WORDS[7:13], "x", *WORDS[14:20]]), False),  # no run of eight
        (" ".join(WORDS[:500]), " ".join(WORDS[:200]), True),
        ("每年有三十天的假期吗", "请问每年有三十天的假期吗谢谢", True),
        ("", "", False),
    ],
)
def test_what_is_found(question: str, text: str, is_found: bool) -> None:
    assert (Questions([question]).find([text])[0] != NONE) == is_found


def test_a_template_is_no_sign_of_a_question() -> None:
    template = "You are given a ticket of a customer. Say in one word which of our departments should answer it:"
    questions = [f"{template} {' '.join(WORDS[9 * number : 9 * number + 9])}" for number in range(50)]
    known = Questions(questions)
    assert known.find([f"{template} {' '.join(WORDS[1000:1009])}".casefold()])[0] == NONE
    assert known.find([question.casefold() for question in questions]).tolist() == list(range(50))


def test_questions_whose_every_run_is_shared_are_found_as_a_whole() -> None:
    gap = "and after a very long while in the middle of it all"
    questions = [f"{one} {gap} {two}" for one in WORDS[:20] for two in WORDS[20:40]]
    assert Questions(questions).find([questions[123], f"{gap} only"]).tolist() == [123, NONE]


def test_equal_questions_count_once() -> None:
    known = Questions(["", *[" ".join(WORDS[:20])] * 30, "else"])
    assert known.find([" ".join(WORDS[:25])]).tolist() == [1]
    assert Questions([]).find(["a text"]).tolist() == [NONE]
    assert Questions(["a"]).find([]).tolist() == []


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"question": "Why?", "answer": "So."}, "Why?"),
        ({"instruction": "Translate", "input": "yes", "output": "sim"}, "Translate\nyes"),
        ({"question": None, "ctx": "It rains", "endings": ["a"]}, "It rains"),
        ({"messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}, "Why?"),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, "Why?"),
        ({"prompt": [{"role": "user", "content": "Why?"}], "chosen": "a"}, "Why?"),
        ({"answer": "So."}, ""),
    ],
)
def test_the_question_of_a_row(row: dict[str, Any], question: str) -> None:
    assert question_of(row) == question


@pytest.mark.parametrize("file_format", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_questions_of_every_format(tmp_path: Path, file_format: str) -> None:
    file = tmp_path / f"exam.{file_format}"
    file.write_bytes(encoded([{"Question": "Why?", "answer": "So."}, {"Question": "", "answer": "x"}, {"Question": "Who?", "answer": "I."}], file_format))
    assert list(questions_of(file)) == ["Why?", "Who?"]


def test_lines_of_plain_text_are_questions(tmp_path: Path) -> None:
    (tmp_path / "exam.txt").write_text("Why?\n\nWho?\n")
    assert list(questions_of(tmp_path / "exam.txt")) == ["Why?", "Who?"]


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("exam.xyz", "a", UsageError, "cannot be told from its ending"),
        ("exam.jsonl", '{"q": "Why?"}\n', DataError, "Found columns: q. Expected one of: question"),
        ("exam.jsonl", '{"question": "Why?"}\n{"question\n', DataError, "exam.jsonl:2: not valid JSON"),
        ("exam.csv", "", DataError, "Found columns: none"),
    ],
)
def test_files_without_questions_are_refused(tmp_path: Path, name: str, content: str, error: type[Exception], words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match="decontaminate_against") as refused:
        list(questions_of(tmp_path / name))
    assert words in str(refused.value)


def test_leakage_by_pairs_of_splits(tmp_path: Path) -> None:
    asked = [" ".join(WORDS[20 * number : 20 * number + 12]) for number in range(10)]
    write_records(tmp_path / "test.parquet", [chat(question, "so") for question in asked[:5]])
    write_records(tmp_path / "validation.parquet", [chat(question, "so") for question in [asked[0], *asked[5:8]]])
    write_records(tmp_path / "train.parquet", [chat("Who?", f"{asked[1]} and more"), chat("Why?", "x"), {"type": "text", "text": f"{asked[6]} {asked[2]}"}])
    assert leakage(tmp_path) == {"train": {"validation": 1, "test": 2}, "validation": {"test": 1}}


def test_of_many_questions_some_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as were allowed, give or take: they are drawn by their ids."""
    monkeypatch.setattr(overlap, "LOOKED_FOR", 100)
    asked = [chat(f"Which of the many forms do people need for the purpose number {number} today?", "None.") for number in range(1000)]
    write_records(tmp_path / "train.parquet", asked)
    write_records(tmp_path / "validation.parquet", [])
    write_records(tmp_path / "test.parquet", [record | {"messages": [*record["messages"][:1], {"role": "assistant", "content": "All."}]} for record in asked])
    assert 60 < leakage(tmp_path)["train"]["test"] < 140
