"""Tokens of records, as the tokenizer alone would make them: whatever was saved with it, and however many records come at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT
from tokenizers import Tokenizer, processors

from llamaflow import tokencount
from llamaflow.errors import UsageError
from llamaflow.tokencount import TokenCounter

RECORDS = [["The committee meets on Thursday.", "Em quinta-feira?"], [], [""], ["数字 0123456789"], ["a " * 300, "b", ""]]


@pytest.fixture
def expected(token_model: Path) -> list[int]:
    tokenizer = Tokenizer.from_file(str(token_model / "tokenizer.json"))
    return [sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts) for texts in RECORDS]


def test_a_records_tokens_are_those_of_its_texts(token_model: Path, expected: list[int]) -> None:
    assert list(TokenCounter(token_model)(RECORDS)) == expected
    assert expected[1:3] == [0, 0]
    assert len(set(expected)) == 4


def test_the_counts_do_not_depend_on_how_many_come_at_once(token_model: Path, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for characters in (1, 40, 700):
        monkeypatch.setattr(tokencount, "CHARACTERS_AT_ONCE", characters)
        assert list(TokenCounter(token_model)(iter(RECORDS))) == expected


def test_what_was_saved_for_a_training_changes_no_count(token_model: Path, expected: list[int], tmp_path: Path) -> None:
    """A length at which texts are cut, one to which they are filled up, tokens at both ends."""
    tokenizer = Tokenizer.from_file(str(token_model / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    first, last = "<|im_start|>", "<|im_end|>"
    ids = [(name, tokenizer.token_to_id(name)) for name in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ids)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("a " * 300).ids) == 64
    assert list(TokenCounter(tmp_path)(RECORDS)) == expected


def test_a_damaged_file(token_model: Path, tmp_path: Path) -> None:
    whole = (token_model / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"tokenizer\.json cannot be read"):
        TokenCounter(tmp_path)


def test_counting_needs_no_torch() -> None:
    script = "import sys, clean_records, generate_records, split_dataset; print({'torch', 'transformers'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "bin", capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
