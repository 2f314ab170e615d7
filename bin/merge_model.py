#!/usr/bin/env python3
"""Merge the winning adapter into its base, and prove that the merged model answers as the adapter did.

merge_model.py --model model/ --trial <trial_id>/ --dataset dataset/ < {"export": {...}}
    ->  merged/  parity.json  merge_model.json

Virtual tokens (prompt and prefix tuning) are no weights and cannot be merged: then merged/ holds the base model as merged/base/,
to be loaded with the adapter beside it.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.chat import conversation_of, render, stop_tokens
from llamaflow.errors import exits_cleanly
from llamaflow.files import write_json
from llamaflow.heads import head_tokenizer, outputs, texts_for, trial_in
from llamaflow.models import load_model, load_tokenizer, saved_dtype, trusted, use_task_threads
from llamaflow.params import Export
from llamaflow.records import read_rows
from llamaflow.steps import read_settings, receipt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

PROMPTS = 8  # each read by both models in float32, which on CPU is most of this step's time
LONGEST = 256  # tokens of a prompt that are read
COMPARED = 32  # last tokens whose logits are compared: those of all would take gigabytes with a vocabulary of 128,000


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--trial", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(base: Path, trial: Path, dataset: Path, settings: Export, outdir: Path, *, trust: bool = False) -> dict[str, Any]:
    """Write outdir/merged and return what the comparison of both models gave."""
    import torch

    from llamaflow.loss import virtual_tokens
    from llamaflow.techniques import load_trained

    use_task_threads()
    part, merged = outdir / "merged.part", outdir / "merged"
    shutil.rmtree(part, ignore_errors=True)
    plan = trial_in(trial)
    tuned: Any = load_trained(base, trial, "float32", head=plan.head, trust_remote_code=trust)
    tokenizer = head_tokenizer(base, plan, trust_remote_code=trust) if plan.head else load_tokenizer(base, trust_remote_code=trust)
    texts = texts_of(dataset, tokenizer, plan.head)
    before = logits_of(tuned, tokenizer, texts, plan.head)
    apart = virtual_tokens(tuned) > 0
    if apart:
        print(f"{trial.name}: virtual tokens cannot be merged; the release has the base model and the adapter")
        tuned = tuned.get_base_model()
    elif hasattr(tuned, "merge_and_unload"):
        tuned = tuned.merge_and_unload()
    if tuned.can_generate():
        tuned.generation_config.eos_token_id = stop_tokens(tokenizer, tuned.generation_config.eos_token_id)
    place = part / "base" if apart else part
    tuned.to(saved_dtype(base, trust_remote_code=trust)).save_pretrained(place)
    tokenizer.save_pretrained(place)
    del tuned  # the model that is loaded next takes its memory
    shutil.rmtree(merged, ignore_errors=True)
    part.rename(merged)
    if apart:
        reloaded = load_trained(merged / "base", trial, "float32", trust_remote_code=trust)
    else:
        reloaded = load_model(merged, torch.float32, head=plan.head, trust_remote_code=trust)
    return compare(before, logits_of(reloaded, tokenizer, texts, plan.head), settings.parity_max_difference) | {"prompts": len(texts)}


def texts_of(dataset: Path, tokenizer: PreTrainedTokenizerBase, head: tuple[str, ...] | None) -> list[str]:
    """Prompts of test records, or their texts; for a model with a head, what that reads."""
    records = read_rows(dataset / "test.parquet")
    if head:
        return list(islice((text for record in records for text in texts_for(head, tokenizer, record)), PROMPTS))
    conversations = [(conversation_of(record), record["text"]) for record in islice(records, PROMPTS)]
    return [render(tokenizer, conversation[:-1], answer_next=True) if conversation else text for conversation, text in conversations]


def logits_of(model: Any, tokenizer: PreTrainedTokenizerBase, texts: list[str], head: tuple[str, ...] | None) -> list[torch.Tensor]:
    """Logits on the CPU: of each text's last tokens, [at most COMPARED, vocabulary]; or a head's outputs, [texts, outputs] all together."""
    import torch

    if head:
        return [outputs(model, tokenizer, texts, size=1)]
    prompts = [tokenizer(text, return_tensors="pt", add_special_tokens=False, truncation=True, max_length=LONGEST)["input_ids"] for text in texts]
    with torch.inference_mode():
        return [model(prompt.to(model.device)).logits[0, -COMPARED:].float().cpu() for prompt in prompts]


def compare(before: list[torch.Tensor], after: list[torch.Tensor], allowed: float) -> dict[str, Any]:
    """Largest logit difference, relative to the spread (standard deviation) of the logits, and how often the next token is the same."""
    spread = sum(float(logits.std(correction=0)) for logits in before) / len(before)
    largest = max(float((one - other).abs().max()) for one, other in zip(before, after, strict=True))
    same = [bool(one[-1].argmax() == other[-1].argmax()) for one, other in zip(before, after, strict=True)]
    tokens = sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in zip(before, after, strict=True))
    relative = largest / spread if spread else largest  # a single reward has no spread
    return {
        "passed": relative <= allowed,
        "largest_logit_difference": round(largest, 6),
        "logit_spread": round(spread, 6),
        "relative_difference": round(relative, 6),
        "allowed_relative_difference": allowed,
        "first_token_agreement": sum(same) / len(same),
        "greedy_agreement": tokens / sum(len(logits) for logits in before),
    }


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    with receipt("merge_model", given, args.outdir) as written:
        settings = Export.model_validate(given.get("export", {}))
        parity = run(args.model, args.trial, args.dataset, settings, args.outdir, trust=trusted(given))
        write_json(args.outdir / "parity.json", parity)
        written.add_output(args.outdir / "merged")
        written.counts = parity


if __name__ == "__main__":
    main()
