#!/usr/bin/env python3
"""Turn a dataset into tokens, once for each tokenizer and length: chat template, labels on the assistant's turns.

tokenize_dataset.py --dataset dataset/ --model model/ < {"max_length": 1024}  ->  tokens/  tokenize_dataset.json
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llamaflow.chat import examples_of
from llamaflow.errors import DataError, exits_cleanly
from llamaflow.files import read_json, write_json
from llamaflow.models import load_tokenizer, trusted
from llamaflow.records import read_rows
from llamaflow.steps import read_settings, receipt
from llamaflow.tokens import TokensWriter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED_ON = ("train", "validation")
BATCH = 256


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(dataset: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, outdir: Path) -> dict[str, dict[str, int]]:
    """Write outdir/tokens and return its counts by split."""
    part = outdir / "tokens.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    counts = {split: write_split(part, split, dataset / f"{split}.parquet", tokenizer, max_length) for split in TRAINED_ON}
    write_json(part / "tokens.json", {"data": read_json(dataset / "dataset.json")["sha256"], "max_length": max_length, "splits": counts})
    shutil.rmtree(outdir / "tokens", ignore_errors=True)
    part.rename(outdir / "tokens")
    return counts


def write_split(directory: Path, split: str, records: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, int]:
    counts = dict.fromkeys(("examples", "tokens", "labelled_tokens", "truncated_examples", "truncated_tokens", "without_labels"), 0)
    rows_left = read_rows(records)
    with TokensWriter(directory, split) as writer:
        while rows := list(islice(rows_left, BATCH)):
            for ids, labelled in examples_of(tokenizer, rows, max_length):
                counts["truncated_examples"] += len(ids) > max_length
                counts["truncated_tokens"] += max(0, len(ids) - max_length)
                kept = labelled[:max_length]
                if not any(kept[1:]):
                    counts["without_labels"] += 1
                    continue
                writer.add(ids[:max_length], kept)
                counts["examples"] += 1
                counts["tokens"] += len(kept)
                counts["labelled_tokens"] += sum(kept)
    if not counts["examples"]:
        raise DataError(f"none of the {counts['without_labels']} {split} examples has anything to learn from: {why_nothing(counts, max_length)}")
    return counts


def why_nothing(counts: dict[str, int], max_length: int) -> str:
    if counts["truncated_examples"]:
        return f"their answers begin beyond max_length = {max_length} tokens. Raise --max_length, or shorten the prompts."
    return "they have no answers, or the model's chat template changes its text in a way that hides where answers begin. Give another with --chat_template."


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    with receipt("tokenize_dataset", given, args.outdir) as written:
        tokenizer = load_tokenizer(args.model, trust_remote_code=trusted(given))
        written.counts = run(args.dataset, tokenizer, given["max_length"], args.outdir)
        written.add_output(args.outdir / "tokens")


if __name__ == "__main__":
    main()
