#!/usr/bin/env python3
"""Turn a dataset into tokens, once for each tokenizer and length: chat template, labels on the assistant's turns.

tokenize_dataset.py --dataset dataset/ --model model/ < {"max_length": 1024}  ->  tokens/  tokenize_dataset.json
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.chat import encoded, pieces_of
from llamaflow.errors import DataError, exits_cleanly
from llamaflow.fertility import RECORDS, Fertility, language_of
from llamaflow.files import read_json, write_json
from llamaflow.histograms import binned, summary
from llamaflow.models import load_tokenizer, trusted
from llamaflow.records import count_rows, read_rows
from llamaflow.steps import read_settings, receipt
from llamaflow.tokens import TokensWriter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED_ON = ("train", "validation")
BATCH = 256
Lengths = dict[str, Counter[int]]  # {language: {tokens: records}}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(dataset: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, outdir: Path) -> dict[str, Any]:
    """Write outdir/tokens; return its counts by split, and what the report tells of the tokenizer."""
    part = outdir / "tokens.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    lengths: dict[str, Lengths] = {split: {} for split in TRAINED_ON}
    fertility = Fertility(tokenizer)
    counts = {split: write_split(part, split, dataset / f"{split}.parquet", tokenizer, max_length, lengths[split], fertility) for split in TRAINED_ON}
    write_json(part / "tokens.json", {"data": read_json(dataset / "dataset.json")["sha256"], "max_length": max_length, "splits": counts})
    shutil.rmtree(outdir / "tokens", ignore_errors=True)
    part.rename(outdir / "tokens")
    return {**counts, "lengths": {split: described(lengths[split], max_length) for split in TRAINED_ON}, "languages": fertility.by_language()}


def write_split(
    directory: Path, split: str, records: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, lengths: Lengths, fertility: Fertility
) -> dict[str, int]:
    """Write the tokens of a split and return its counts; add to `lengths` and `fertility`."""
    counts = dict.fromkeys(("examples", "tokens", "labelled_tokens", "truncated_examples", "truncated_tokens", "without_labels"), 0)
    rows_left, share = read_rows(records), RECORDS / max(1, count_rows(records))
    with TokensWriter(directory, split) as writer:
        while rows := list(islice(rows_left, BATCH)):
            fertility.add(rows, share)
            for record, example in encoded(tokenizer, rows):
                lengths.setdefault(language_of(record), Counter())[len(example[0])] += 1
                for ids, labelled in pieces_of(record, example, max_length):
                    add(writer, ids, labelled, max_length, counts)
    if not counts["examples"]:
        raise DataError(f"none of the {counts['without_labels']} {split} examples has anything to learn from: {why_nothing(counts, max_length)}")
    return counts


def add(writer: TokensWriter, ids: list[int], labelled: list[bool], max_length: int, counts: dict[str, int]) -> None:
    """Write an example as far as max_length, and count it."""
    counts["truncated_examples"] += len(ids) > max_length
    counts["truncated_tokens"] += max(0, len(ids) - max_length)
    kept = labelled[:max_length]
    if not any(kept[1:]):
        counts["without_labels"] += 1
        return
    writer.add(ids[:max_length], kept)
    counts["examples"] += 1
    counts["tokens"] += len(kept)
    counts["labelled_tokens"] += sum(kept)


def described(lengths: Mapping[str, Counter[int]], max_length: int) -> dict[str, Any]:
    """Of all records and of each language: records, percentiles of their tokens, a histogram, and the share that is longer than max_length."""
    of_all = sum(lengths.values(), Counter[int]())
    return {language: _described(counts, max_length) for language, counts in (("all", of_all), *sorted(lengths.items()))}


def _described(counts: Counter[int], max_length: int) -> dict[str, Any]:
    longer = sum(count for length, count in counts.items() if length > max_length)
    return {"records": counts.total(), **summary(counts), "longer": round(longer / max(1, counts.total()), 6), "histogram": binned(counts)}


def why_nothing(counts: dict[str, int], max_length: int) -> str:
    if counts["truncated_examples"]:
        return f"their answers begin beyond max_length = {max_length} tokens. Raise --max_length, or shorten the prompts."
    return "they have no answers, or the model's chat template changes its text in a way that hides where answers begin. Give another with --chat_template."


def model_of(directory: Path) -> str:
    """Whose tokenizer it is, for the report."""
    file = directory / "model.json"
    return str(read_json(file)["id"]) if file.exists() else directory.name


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    with receipt("tokenize_dataset", given, args.outdir) as written:
        tokenizer = load_tokenizer(args.model, trust_remote_code=trusted(given))
        written.counts = {"model": model_of(args.model), **run(args.dataset, tokenizer, given["max_length"], args.outdir)}
        written.add_output(args.outdir / "tokens")


if __name__ == "__main__":
    main()
