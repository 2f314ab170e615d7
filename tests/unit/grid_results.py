"""Results of a small grid, as evaluate_model and train_trials would leave them, with gains that the test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llamaflow.stats import estimates

SUITE = {"name": "answers", "version": "1"}
GIGABYTE = 2**30


def write_evaluation(
    folder: Path,
    name: str,
    scores: Mapping[str, Sequence[float | None]],
    *,
    kind: str = "trial",
    model: str = "tiny",
    suite: Mapping[str, str] = SUITE,
    texts: Mapping[str, Sequence[str]] | None = None,
    nll: Sequence[float] | None = None,
    head: bool = False,
) -> Path:
    """An evaluation directory; `scores` are the rows of each measure. A model with a head has no likelihoods."""
    rows = len(next(iter(scores.values())))
    texts = texts or {}
    table = {
        "record_id": [f"r{row:04}" for row in range(rows)],
        "source": ["handbook"] * rows,
        "prompt": texts.get("prompt", [f"Question {row}?" for row in range(rows)]),
        "reference": texts.get("reference", [f"Reference {row}." for row in range(rows)]),
        "prediction": texts.get("prediction", [f"Answer {row} of {name}." for row in range(rows)]),
        "label": texts.get("label", pa.nulls(rows, pa.string())),
        "nll": pa.nulls(rows) if head else nll or [20.0] * rows,
        "tokens": pa.nulls(rows) if head else [10] * rows,
        **{f"score_{metric}": pa.array(list(values), pa.float64()) for metric, values in scores.items()},
    }
    directory = folder / name
    directory.mkdir(parents=True)
    predictions = pa.table(table)
    pq.write_table(predictions, directory / "predictions.parquet")
    metrics = estimates(predictions, 200, seed=0)
    (directory / "metrics.json").write_text(json.dumps({"id": name, "kind": kind, "model": model, "suite": dict(suite), "metrics": metrics}))
    return directory


def write_trial(
    folder: Path,
    name: str,
    *,
    model: str = "tiny",
    technique: str = "lora",
    status: str = "finished",
    reason: str | None = None,
    loss: float | None = 1.5,
    seconds: float = 60.0,
    steps: int = 40,
    **hyperparameters: Any,
) -> Path:
    """A trained trial's directory."""
    directory = folder / name
    directory.mkdir(parents=True)
    values = {"learning_rate": 2e-4, "lora_r": 8, "seed": 42} | hyperparameters
    trial = {"trial_id": name, "model": {"id": model, "source": "pkg://x/y", "revision": None, "sha256": "0" * 64}, "data": {"sha256": "1" * 64}}
    (directory / "trial.json").write_text(json.dumps(trial | {"technique": technique, "hyperparameters": values}))
    counts = {"status": status, "reason": reason, "steps": steps, "tokens": steps * 1024, "validation_loss": loss}
    counts |= {"tokens_per_second": round(steps * 1024 / seconds, 1), "trainable_parameters": 4_900_000}
    receipt = {"step": "train_trials", "counts": counts, "seconds": seconds, "peak_memory_bytes": int(1.4 * GIGABYTE)}
    (directory / "train_trials.json").write_text(json.dumps(receipt))
    (directory / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _history(name, steps, loss)))
    return directory


def _history(name: str, steps: int, loss: float | None) -> list[dict[str, float]]:
    noise = np.random.default_rng(sum(name.encode())).normal(0, 0.12, steps)
    end = loss or 2.0
    rows: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        smooth = end - 0.25 + (3.4 - end) * float(np.exp(-3.5 * step / steps))
        rows.append({"step": step, "epoch": step / steps, "tokens": step * 1024, "loss": max(0.05, smooth + float(noise[step - 1])), "learning_rate": 1e-4})
        if loss is not None and (step % 10 == 0 or step == steps):
            rows[-1]["validation_loss"] = loss + (3.3 - loss) * float(np.exp(-4 * step / steps)) + 0.08 * (step / steps) ** 4
    return rows


def scores_around(mean: float, rows: int = 120, seed: int = 1, spread: float = 0.02) -> list[float]:
    """Row scores on a common ground (the rows' difficulty) plus a model's own level and noise."""
    difficulty = np.random.default_rng(99).normal(0, 0.1, rows)
    return list(np.clip(mean + difficulty + np.random.default_rng(seed).normal(0, spread, rows), 0, 1))
