"""tokenize_dataset: what the model learns from, counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_files import chat, write_records
from tiny import CHATML, json_of, write_tokenizer
from transformers import AutoTokenizer

from llamaflow.tokens import Tokens

Tokenize = Callable[..., dict[str, Any]]


@pytest.fixture
def tokenize(run_step: Any, tiny_model: Path, tmp_path: Path) -> Tokenize:
    def run(train: Sequence[dict[str, Any]], max_length: int = 64, model: Path = tiny_model) -> dict[str, Any]:
        dataset = tmp_path / "dataset"
        dataset.mkdir(exist_ok=True)
        (dataset / "dataset.json").write_text(json.dumps({"sha256": "d" * 64}))
        write_records(dataset / "train.parquet", train)
        write_records(dataset / "validation.parquet", [chat("Valid?", "Yes.")])
        run_step("tokenize_dataset", ["--dataset", dataset, "--model", model, "--outdir", tmp_path], {"max_length": max_length})
        found: dict[str, Any] = json_of(tmp_path / "tokens/tokens.json")
        return found

    return run


def decoded(tmp_path: Path, model: Path, split: str = "train") -> list[tuple[str, str]]:
    """Every example as text, and the part of it that is learnt."""
    tokenizer, tokens = AutoTokenizer.from_pretrained(model), Tokens(tmp_path / "tokens", split)
    return [(tokenizer.decode(ids), tokenizer.decode(ids[labelled])) for ids, labelled in (tokens[index] for index in range(len(tokens)))]


def test_conversations(tokenize: Tokenize, tmp_path: Path, tiny_model: Path) -> None:
    found = tokenize([chat("One?", "Um."), chat("Two?", "Dois, é.")])
    assert decoded(tmp_path, tiny_model) == [
        ("<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nUm.<|im_end|>\n", "Um.<|im_end|>"),
        ("<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\nDois, é.<|im_end|>\n", "Dois, é.<|im_end|>"),
    ]
    assert [learnt for _, learnt in decoded(tmp_path, tiny_model, "validation")] == ["Yes.<|im_end|>"]
    assert found["data"] == "d" * 64
    assert found["max_length"] == 64
    tokens = Tokens(tmp_path / "tokens", "train")
    lengths, learnt = [len(tokens[index][0]) for index in range(2)], [int(tokens[index][1].sum()) for index in range(2)]
    none = dict.fromkeys(("truncated_examples", "truncated_tokens", "without_labels"), 0)
    assert found["splits"]["train"] == {"examples": 2, "tokens": sum(lengths), "labelled_tokens": sum(learnt), **none}
    counts = json_of(tmp_path / "tokenize_dataset.json")["counts"]
    assert {split: counts[split] for split in ("train", "validation")} == found["splits"]
    assert counts["lengths"]["train"]["all"]["max"] == max(lengths)


def test_what_is_too_long_is_cut_and_counted(tokenize: Tokenize, tmp_path: Path, tiny_model: Path) -> None:
    whole = tokenize([chat("Q?", "word " * 40)], 512)["splits"]["train"]["tokens"]
    found = tokenize([chat("Q?", "word " * 40), chat("Q " * 40, "A."), chat("Q?", "A.")], 40)["splits"]["train"]
    assert found["examples"] == 2
    assert found["truncated_examples"] == 2
    assert found["without_labels"] == 1, "the answer of the second lies beyond the cut"
    assert found["truncated_tokens"] > whole - 40
    tokens = Tokens(tmp_path / "tokens", "train")
    assert len(tokens[0][0]) == 40
    assert len(tokens[1][0]) < 40


def test_texts_are_cut_into_pieces(tokenize: Tokenize, tmp_path: Path, tiny_model: Path) -> None:
    text = "Employees may take leave. " * 30
    found = tokenize([{"type": "text", "text": text}], 32)["splits"]["train"]
    assert found["truncated_examples"] == found["without_labels"] == 0
    tokens = Tokens(tmp_path / "tokens", "train")
    pieces = [tokens[index] for index in range(len(tokens))]
    assert len(pieces) == found["examples"] > 5
    assert all(labelled.all() for _, labelled in pieces)
    joined = np.concatenate([pieces[0][0], *(ids[1:] for ids, _ in pieces[1:])])
    assert AutoTokenizer.from_pretrained(tiny_model).decode(joined) == text + "<|im_end|>"


def test_lengths_are_told_by_split_and_language(tokenize: Tokenize, tmp_path: Path, tiny_model: Path) -> None:
    talks = [chat("Q?", "word " * 40, meta={"language": "pt-BR"}), chat("Q?", "A.", meta={"language": "pt"}), chat("Q?", "A.")]
    tokenize([*talks, {"type": "text", "text": "Employees may take leave. " * 30}], 32)
    lengths = json_of(tmp_path / "tokenize_dataset.json")["counts"]["lengths"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    whole = len(tokenizer("Employees may take leave. " * 30)["input_ids"]) + 1
    assert {language: found["records"] for language, found in lengths["train"].items()} == {"all": 4, "pt": 2, "unknown": 2}
    assert {language: found["longer"] for language, found in lengths["train"].items()} == {"all": 0.5, "pt": 0.5, "unknown": 0.5}
    assert lengths["train"]["unknown"]["max"] == whole, "in how many pieces it is learnt does not matter"
    assert sum(count for _, _, count in lengths["train"]["all"]["histogram"]) == 4
    assert lengths["validation"]["all"]["records"] == 1


def test_more_records_than_a_batch(tokenize: Tokenize, tmp_path: Path) -> None:
    assert tokenize([chat(f"{number}?", f"{number}.") for number in range(300)])["splits"]["train"]["examples"] == 300


def test_all_rows_too_long(tokenize: Tokenize, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tokenize([chat("Q " * 40, "A."), chat("R " * 40, "A.")], 16)
    assert ended.value.code == 65
    error = capsys.readouterr().err
    assert "none of the 2 train examples" in error
    assert "max_length = 16" in error
    assert not (tmp_path / "tokens").exists()


def test_a_template_that_hides_the_answers(tokenize: Tokenize, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tokenizer(tmp_path / "odd", "{{ messages | length }}" + CHATML)
    with pytest.raises(SystemExit) as ended:
        tokenize([chat("Q?", "A.")], 64, tmp_path / "odd")
    assert ended.value.code == 65
    error = capsys.readouterr().err
    assert "chat template" in error
    assert "max_length" not in error


def test_the_same_input_gives_the_same_files(tokenize: Tokenize, tmp_path: Path) -> None:
    def digest() -> Any:
        return json_of(tmp_path / "tokenize_dataset.json")["outputs"]

    tokenize([chat("Q?", "A.")])
    first = digest()
    tokenize([chat("Q?", "A.")])
    assert digest() == first
    tokenize([chat("Q?", "B.")])
    assert digest() != first
