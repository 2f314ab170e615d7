"""Near-duplicates: the planted ones are found, exact similarity decides, and questions about the same passage stay apart."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from llamaflow.similar import Similarities, are_alike, jaccard, rows_of_band
from llamaflow.words import TURN, compared

WORDS = [f"w{number}" for number in range(2000)]


def text(drawn: random.Random, words: int) -> list[str]:
    return drawn.choices(WORDS, k=words)


def test_planted_pairs_are_found_and_nothing_else(tmp_path: Path) -> None:
    drawn = random.Random(1)
    originals = [text(drawn, drawn.randint(60, 300)) for _ in range(1500)]
    copies = [[word if drawn.random() > 0.015 else "changed" for word in words] for words in originals[:500]]
    texts = [" ".join(words) for words in originals + copies]
    found = Similarities(texts, tmp_path).clusters(0.8)
    alike = {place for place in range(500) if jaccard(texts[place], texts[1500 + place]) >= 0.8}
    assert len(alike) > 300
    joined = {place for place in range(500) if found[1500 + place] == found[place]}
    assert joined <= alike, "precision"
    assert len(joined) >= 0.99 * len(alike), "recall"
    assert (found[:1500] == np.arange(1500)).all()


def test_a_chain_is_one_cluster(tmp_path: Path) -> None:
    words = text(random.Random(2), 100)
    steps = [" ".join(["x"] * (8 * count) + words[8 * count :]) for count in range(4)]
    assert jaccard(steps[0], steps[3]) < 0.8 <= min(jaccard(*pair) for pair in itertools.pairwise(steps))
    found = Similarities(["something else", *steps], tmp_path).clusters(0.8)
    assert found.tolist() == [0, 1, 1, 1, 1]


def test_many_equal_texts_and_none(tmp_path: Path) -> None:
    assert Similarities(["the very same"] * 5000, tmp_path).clusters(0.8).tolist() == [0] * 5000
    assert Similarities([], tmp_path).clusters(0.8).tolist() == []


PASSAGE = " ".join(text(random.Random(3), 300))


def talk(question: str, answer: str) -> str:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return compared({"type": "chat", "messages": turns})


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (talk(f"{PASSAGE}\nWho signs?", "Ana."), talk(f"{PASSAGE}\nWho pays for it all?", "Bob."), False),
        (talk(f"{PASSAGE}\nWho signs?", "Ana."), talk(f"{PASSAGE} indeed\nWho signs ?", "ana"), True),
        (
            talk("How many days of leave does an employee have in a year?", "Thirty."),
            talk("How many days of leave does an employee have in a year", "thirty"),
            True,
        ),
        (talk("Hi", "Hello"), talk("Hi", "Bye"), False),
        (talk("Hi", "Hello\nBob"), talk("Hi", "Hello"), False),
        ("Thirty days, says the law!", "thirty days says the law", True),
        ("", "", True),
        ("休暇由部门负责人批准每年三十天", "休暇由部门负责人批准每年二十天", False),
    ],
)
def test_alike(one: str, other: str, alike: bool) -> None:
    assert (
        are_alike(
            compared({"type": "text", "text": one}) if TURN not in one else one, compared({"type": "text", "text": other}) if TURN not in other else other, 0.8
        )
        is alike
    )


def test_system_messages_are_not_compared() -> None:
    assert "kind" not in talk("a", "b")


@pytest.mark.parametrize(("threshold", "rows"), [(0.5, 2), (0.8, 5), (0.95, 12), (0.1, 1)])
def test_bands_find_what_is_as_similar_as_asked(threshold: float, rows: int) -> None:
    assert rows_of_band(threshold) == rows
