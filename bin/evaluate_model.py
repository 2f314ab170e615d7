#!/usr/bin/env python3
"""Measure a base model, or what a trial made of it, on the test split.

evaluate_model.py --model model/ [--trial <trial_id>/] --dataset dataset/
    < {"id": "...", "code": "...", "evaluation": {...}, "answers": {...}, "compute": {...}, "models": {...}}
    ->  <id>/ with metrics.json, predictions.parquet and evaluate_model.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.chat import Example, Message, chat_examples, conversation_of, examples_of, render, stop_tokens
from llamaflow.errors import exits_cleanly
from llamaflow.files import read_json, short_hash, write_json
from llamaflow.heads import head_tokenizer, outputs, texts_for, trial_in, whole
from llamaflow.metrics import column_of, row_scores
from llamaflow.models import device, load_tokenizer, trusted, use_task_threads
from llamaflow.params import Answers, Compute, Evaluation
from llamaflow.records import read_rows
from llamaflow.stats import estimates
from llamaflow.steps import read_settings, receipt
from llamaflow.store import Store
from llamaflow.trials import REWARD

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llamaflow.batches import Batch

SUITE = {"name": "test split", "version": 1}
SEED = 42
Row = dict[str, Any]
Answered = tuple[list[Message], list[Message]]  # a prompt, and one of the answers to it


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--trial", type=Path)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(base: Path, trial: Path | None, dataset: Path, given: dict[str, Any], target: Path) -> None:
    """Write target/ with metrics.json and predictions.parquet."""
    from llamaflow.techniques import load_trained

    settings, compute = Evaluation.model_validate(given["evaluation"]), Compute.model_validate(given["compute"])
    use_task_threads()
    records = test_records(dataset, settings.max_eval_rows)
    rows = [described(record) for record in records]
    plan = trial_in(trial) if trial else None
    model = load_trained(base, trial, compute.dtype, head=plan.head if plan else None, trust_remote_code=trusted(given))
    if plan and plan.head:
        read_head(rows, records, model, head_tokenizer(base, plan, trust_remote_code=trusted(given)), plan.head, settings.eval_batch_size)
    else:
        read_language_model(rows, records, model, load_tokenizer(base, trust_remote_code=trusted(given)), settings)
    add_scores(rows, settings.metrics, Answers.model_validate(given.get("answers", {})))
    write_results(rows, base, trial, settings, target)


def read_language_model(rows: list[Row], records: list[Row], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Evaluation) -> None:
    def likelihoods(answered: list[Answered]) -> list[float]:
        """Mean log likelihood of an answer's tokens, so that its length does not decide; NaN if the answer lies beyond the context."""
        examples = [next(chat_examples(tokenizer, [[*prompt, *answer]], first=len(prompt))) for prompt, answer in answered]
        return [-float(losses.mean()) for losses in token_losses(examples, model, settings.eval_batch_size)]

    add_losses(rows, records, model, tokenizer, settings.eval_batch_size)
    add_preferences(rows, records, likelihoods)
    add_answers(rows, records, model, tokenizer, settings)


def read_head(rows: list[Row], records: list[Row], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, head: tuple[str, ...], size: int) -> None:
    """What a head says: for labels, that of the largest output is the answer; a reward only tells a better answer from a worse one."""
    if head == REWARD:
        add_preferences(rows, records, lambda answered: outputs(model, tokenizer, [whole(tokenizer, *pair) for pair in answered], size)[:, 0].tolist())
        return
    texts = [(row, text) for row, record in zip(rows, records, strict=True) for text in texts_for(head, tokenizer, record)]
    for (row, _), place in zip(texts, outputs(model, tokenizer, [text for _, text in texts], size).argmax(1).tolist(), strict=True):
        row["prediction"] = head[place]


def test_records(dataset: Path, limit: int | None) -> list[Row]:
    """The test split in an order that does not depend on the file; with a limit, the same sample for every model. An answer that was not liked is no reference."""
    records = (record for record in read_rows(dataset / "test.parquet") if record["liked"] is not False)
    ordered = sorted(records, key=lambda record: hashlib.sha256(record["id"].encode()).digest())
    return ordered[:limit]


def described(record: Row) -> Row:
    conversation = conversation_of(record)
    reference = conversation[-1]["content"] if conversation else None
    prompt = json.dumps(conversation[:-1], ensure_ascii=False) if conversation else None
    known = {"record_id": record["id"], "source": record["source"], "prompt": prompt, "reference": reference, "label": record["label"]}
    return known | {"prediction": None, "nll": None, "tokens": None}


def add_losses(rows: list[Row], records: list[Row], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Add nll (nats, summed over the completion's tokens) and tokens (their number) to every row; of a text, as far as the context reaches."""
    examples = [next(iter(examples_of(tokenizer, [record], context_of(model)))) for record in records]
    for row, losses in zip(rows, token_losses(examples, model, size), strict=True):
        row["nll"], row["tokens"] = float(losses.sum()), len(losses)


def context_of(model: PreTrainedModel) -> int:
    from llamaflow.loss import virtual_tokens

    return (getattr(model.config, "max_position_embeddings", None) or 4096) - virtual_tokens(model)


def token_losses(examples: list[Example], model: PreTrainedModel, size: int) -> Iterator[torch.Tensor]:
    """Negative log likelihoods in nats of each example's labelled tokens, as far as the context reaches."""
    import torch

    from llamaflow.batches import IGNORED
    from llamaflow.loss import CompletionLoss

    loss, context = CompletionLoss(model), context_of(model)
    for start in range(0, len(examples), size):
        batch = _one_row_each(examples[start : start + size], context)
        with torch.inference_mode():
            losses = loss.per_token(batch.to(device())).cpu()
        yield from losses.split((batch.labels != IGNORED).sum(1).tolist())


def _one_row_each(examples: list[Example], context: int) -> Batch:
    import numpy as np

    from llamaflow.batches import make_batch

    return make_batch([(np.array(ids[:context]), np.array(labelled[:context])) for ids, labelled in examples], packing=False)


def add_preferences(rows: list[Row], records: list[Row], liking: Callable[[list[Answered]], list[float]]) -> None:
    """Add to every row with a preference whether the chosen answer is liked better than the rejected one."""
    pairs = [(row, record) for row, record in zip(rows, records, strict=True) if record["type"] == "preference"]
    if not pairs:
        return
    for row in rows:
        row["score_preference_accuracy"] = None
    liked = liking([(record["prompt"] or [], record[answer]) for _, record in pairs for answer in ("chosen", "rejected")])
    for (row, _), chosen, rejected in zip(pairs, liked[::2], liked[1::2], strict=True):
        row["score_preference_accuracy"] = None if math.isnan(chosen) or math.isnan(rejected) else float(chosen > rejected)


def add_answers(rows: list[Row], records: list[Row], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Evaluation) -> None:
    """Add the model's greedy answer to every row that has a conversation; similar lengths go together to save padding."""
    prompts = [
        (index, render(tokenizer, conversation[:-1], answer_next=True)) for index, record in enumerate(records) if (conversation := conversation_of(record))
    ]
    prompts.sort(key=lambda item: len(item[1]))
    for start in range(0, len(prompts), settings.eval_batch_size):
        part = prompts[start : start + settings.eval_batch_size]
        for (index, _), answer in zip(part, generate([text for _, text in part], model, tokenizer, settings.max_new_tokens), strict=True):
            rows[index]["prediction"] = answer
        print(f"answered {min(start + settings.eval_batch_size, len(prompts))} of {len(prompts)}", flush=True)


def generate(texts: list[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> Iterator[str]:
    """Greedy answers, so that a comparison does not depend on luck."""
    import torch

    from llamaflow.adapters import behind_tuned_prompt, has_tuned_prompt

    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(device())
    inputs, read = {name: encoded[name] for name in ("input_ids", "attention_mask")}, encoded["input_ids"].shape[1]
    if has_tuned_prompt(model):
        model, inputs, read = model.get_base_model(), behind_tuned_prompt(model, **inputs), 0  # from embeddings, the output is the answer alone
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            use_cache=True,
            eos_token_id=stop_tokens(tokenizer, model.generation_config.eos_token_id),
            pad_token_id=tokenizer.pad_token_id,
        )
    for answer in output[:, read:]:
        yield tokenizer.decode(answer, skip_special_tokens=True).strip()


def add_scores(rows: list[Row], metrics: Sequence[str], settings: Answers) -> None:
    answered = [row for row in rows if row["prediction"] is not None]
    for metric in metrics if answered else ():
        name = f"score_{column_of(metric)}"
        for row in rows:
            row[name] = None
        scores = row_scores(metric, [row["prediction"] for row in answered], [row["reference"] for row in answered], settings)
        for row, score in zip(answered, scores, strict=True):
            row[name] = score


def write_results(rows: list[Row], base: Path, trial: Path | None, settings: Evaluation, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    model = read_json(base / "model.json")
    predictions = pa.Table.from_pylist(rows)
    pq.write_table(predictions, target / "predictions.parquet", compression="zstd")
    write_json(
        target / "metrics.json",
        {
            "id": target.name.removesuffix(".part"),
            "kind": "base" if trial is None else "trial",
            "model": model["id"],
            "suite": SUITE,
            "metrics": estimates(predictions, settings.bootstrap_resamples, SEED),
        },
    )


def key_of(given: dict[str, Any], dataset: Path, trial: Path | None) -> str:
    """Everything that decides the result: the same trial may have been trained again, by other code."""
    trained = read_json(trial / "train_trials.json")["outputs"] if trial else None
    return short_hash([given, read_json(dataset / "dataset.json")["sha256"], trained], 32)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    name, target = given["id"], args.outdir / given["id"]
    store = Store(given["compute"].get("checkpoint_dir") if args.trial else None)
    key = key_of(given, args.dataset, args.trial)
    shutil.rmtree(target, ignore_errors=True)
    if store.restore(name, "evaluation", key, target):
        print(f"{name} was evaluated before: taken from the store")
        return
    part = args.outdir / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with receipt("evaluate_model", given, part) as written:
        run(args.model, args.trial, args.dataset, given, part)
        written.add_output(part / "predictions.parquet")
        written.add_output(part / "metrics.json")
    part.rename(target)
    store.keep(name, "evaluation", key, target)


if __name__ == "__main__":
    main()
