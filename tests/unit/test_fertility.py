"""How well a tokenizer fits the languages of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from record_files import chat
from transformers import AutoTokenizer

from llamaflow.fertility import Fertility, warning
from llamaflow.records import content_id

ENGLISH = "Employees may take leave after a year, and their manager approves the request within ten working days. " * 30


def record(language: str | None, text: str) -> dict[str, Any]:
    made = {"type": "text", "text": text, "messages": None, "prompt": None, "meta": {"language": language}}
    return made | {"id": content_id(made)}


@pytest.fixture
def fertility(tiny_model: Path) -> Fertility:
    return Fertility(AutoTokenizer.from_pretrained(tiny_model))


def test_tokens_a_word_count_the_content_alone(fertility: Fertility, tiny_model: Path) -> None:
    talk = chat("Who approves leave?", ENGLISH[:1000], meta={"language": "en-GB"}, prompt=None)
    fertility.add([talk | {"id": content_id(talk)}], 1)
    fit = fertility.by_language()["en"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = sum(len(tokenizer(turn["content"])["input_ids"]) for turn in talk["messages"])
    assert fit["tokens_per_word"] * fit["words"] == pytest.approx(tokens, rel=1e-3)
    assert fit["characters_per_token"] == pytest.approx(sum(len(turn["content"]) for turn in talk["messages"]) / tokens, abs=1e-3)
    assert fit["unknown"] == 0


def test_a_language_that_the_tokenizer_never_saw_is_warned_of(fertility: Fertility) -> None:
    russian = (
        "\u0421\u043e\u0442\u0440\u0443\u0434\u043d\u0438\u043a\u0438 \u043c\u043e\u0433\u0443\u0442 \u0432\u0437\u044f\u0442\u044c \u043e\u0442\u043f\u0443\u0441\u043a. "
        * 80
    )
    chinese = "\u5458\u5de5\u53ef\u4ee5\u8bf7\u5047\uff0c\u7ecf\u7406\u6279\u51c6\u3002" * 60
    for language, text in (("en", ENGLISH), ("ru", russian), ("zh", chinese), (None, russian)):
        fertility.add([record(language, f"{number} {text}") for number in range(4)], 1)
    fertility.add([record("pt", "Poucas palavras.")], 1)
    fits = fertility.by_language()
    assert {language for language, fit in fits.items() if fit["warning"]} == {"ru", "zh"}
    assert {language: fit["fits"] for language, fit in fits.items()} == {"en": True, "ru": False, "zh": False, "unknown": None, "pt": None}
    assert "tokens a word" in fits["ru"]["warning"]
    assert "tokens a character" in fits["zh"]["warning"]


def test_warnings_compare_with_english() -> None:
    english = {"words": 1000, "tokens_per_word": 1.1, "unknown": 0.0}
    assert warning("pt", english | {"tokens_per_word": 2.0}, english) is None
    assert warning("pt", english | {"tokens_per_word": 2.3}, english) == "2.1 times the tokens a word of English"
    assert warning("pt", english | {"tokens_per_word": 2.3}, english | {"words": 10}) is None
    assert "unknown to the tokenizer" in str(warning("pt", english | {"unknown": 0.02}, None))


def test_a_share_of_the_records_is_measured_by_their_ids(fertility: Fertility) -> None:
    given = [record("en", f"word {number}") for number in range(400)]
    fertility.add(given, 0.25)
    assert 60 < fertility.by_language()["en"]["words"] / 2 < 140
