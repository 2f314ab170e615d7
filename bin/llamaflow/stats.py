"""Estimates with intervals, and fair comparisons, from per-row results.

Everything is a bootstrap over test rows (Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13 and 16): percentile
intervals, and for two models the paired form on the same rows (Koehn 2004, Statistical Significance Tests for Machine Translation
Evaluation). Many comparisons are paid for with Holm's step-down procedure (Holm 1979). The same seed gives the same numbers.

A table of predictions has one row a test record: record_id, source, prompt, reference, prediction, label (or null), nll (nats over
the completion), tokens (of the completion), and score_<metric> for each measure (null where nothing was generated).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from llamaflow.errors import DataError
from llamaflow.metrics import fold_answer

Array = NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.8
LOWER_IS_BETTER = frozenset({"perplexity", "wer", "cer", "ter", "mer"})
CHUNK = 1_000_000  # resampled rows in memory at a time
MOST_CLASSES = 500  # more different labels are not a classification, and their table would fill the memory
DECIMALS = 10  # gains are rounded to so many, or two equal models would differ by the rounding errors of a matrix product
LARGEST_EXPONENT = 700.0  # exp(700) is still a float


@dataclass(frozen=True)
class Measure:
    """A measure as a function of sums over rows, so that a resample is one matrix product.

    columns: [rows, k], NaN in the rows that the measure does not cover; statistic: [..., k] sums -> [...] values.
    """

    columns: Array
    statistic: Callable[[Array], Array]

    @property
    def covered(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.columns).all(axis=1))


def higher_is_better(metric: str) -> bool:
    return metric not in LOWER_IS_BETTER


def estimates(predictions: pa.Table, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Each measure that the table has: value, 95 % percentile interval (ci_low, ci_high) and n, the rows behind it."""
    found: dict[str, dict[str, Any]] = {}
    for name, measure in measures(predictions).items():
        columns = measure.columns[measure.covered]
        drawn = measure.statistic(_resampled_sums(columns, resamples, seed))
        low, high = _interval(drawn, CONFIDENCE)
        found[name] = {"value": float(measure.statistic(columns.sum(axis=0))), "ci_low": low, "ci_high": high, "n": len(columns)}
    return found


def measures(predictions: pa.Table) -> dict[str, Measure]:
    """Perplexity, every score_<metric>, and for labelled records accuracy and macro_f1; those without a single row are left out."""
    nll, tokens = _numbers(predictions, "nll"), _numbers(predictions, "tokens")
    tokens[~(tokens > 0)] = np.nan
    found = {"perplexity": Measure(np.stack([nll, tokens], axis=1), _perplexity)}
    for name in predictions.column_names:
        if name.startswith("score_"):
            found[name.removeprefix("score_")] = _mean_of(_numbers(predictions, name))
    found |= _classification(predictions)
    return {name: measure for name, measure in found.items() if measure.covered.any()}


def paired_gain(trial: pa.Table, base: pa.Table, metric: str, resamples: int, seed: int, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """How much better a trial is than its base on the same records; a positive gain is always the better one.

    gain; ci_low and ci_high at `confidence`; p_value, two-sided, from the resamples beyond zero with one added to each count, and never
    below 2^(1-n), the least that n rows can show (all of them improve, Fisher's sign flips); n; min_detectable, the gain that a test of
    this many rows finds 4 times in 5 (None for a single row). Raises DataError if the records differ.
    """
    ours, theirs = _joined(trial, base)
    first, second = measures(ours).get(metric), measures(theirs).get(metric)
    if first is None or second is None:
        raise DataError(f"the predictions have no {metric}: it needs {'labels' if metric in ('accuracy', 'macro_f1') else f'values in score_{metric}'}")
    rows = first.covered & second.covered
    if not rows.any():
        raise DataError(f"no record has {metric} for both models")
    split, both = first.columns.shape[1], np.concatenate([first.columns, second.columns], axis=1)[rows]
    sign = 1.0 if higher_is_better(metric) else -1.0

    def gain_of(sums: Array) -> Array:
        difference = first.statistic(sums[..., :split]) - second.statistic(sums[..., split:])
        return np.round(sign * difference, DECIMALS) + 0.0  # + 0.0: no negative zero

    drawn = gain_of(_resampled_sums(both, resamples, seed))
    low, high = _interval(drawn, confidence)
    return {
        "gain": float(gain_of(both.sum(axis=0))),
        "ci_low": low,
        "ci_high": high,
        "p_value": _p_value(drawn, len(both)),
        "n": len(both),
        "min_detectable": _min_detectable(drawn, len(both), confidence),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given: below 0.05 after adjustment means that the whole family errs in 5 % of cases at most."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _resampled_sums(columns: Array, resamples: int, seed: int) -> Array:
    """Sums of the columns over `resamples` samples of rows with replacement: [rows, k] -> [resamples, k]."""
    generator, rows = np.random.default_rng(seed), len(columns)
    # sums around the mean lose no digits, so that constant columns stay exactly constant
    centre = columns.mean(axis=0)
    centred = columns - centre
    sums: list[Array] = []
    for start in range(0, resamples, step := max(1, CHUNK // rows)):
        count = min(step, resamples - start)
        drawn = generator.integers(0, rows, size=(count, rows), dtype=np.int32)
        cells = (drawn + np.arange(count, dtype=np.int64)[:, None] * rows).ravel()
        weights = np.bincount(cells, minlength=count * rows).astype(np.float64).reshape(count, rows)
        sums.append(weights @ centred)
    total: Array = np.concatenate(sums) + centre * rows
    return total


def _interval(drawn: Array, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _p_value(drawn: Array, rows: int) -> float:
    beyond = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return float(min(1.0, max(2 * (beyond + 1) / (len(drawn) + 1), 2.0 ** (1 - rows))))


def _min_detectable(drawn: Array, rows: int, confidence: float) -> float | None:
    """(z of the test + z of the power) standard errors; the paired differences' standard error is the spread of the resampled gains."""
    z = NormalDist().inv_cdf((1 + confidence) / 2) + NormalDist().inv_cdf(POWER)
    return float(z * drawn.std()) if rows > 1 else None


def _joined(trial: pa.Table, base: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Both tables in the order of record_id."""
    ours, theirs = trial.sort_by("record_id"), base.sort_by("record_id")
    ids, others = (list(map(str, table["record_id"].to_pylist())) for table in (ours, theirs))
    if ids != others:
        differing = ", ".join(sorted(set(ids) ^ set(others))[:3]) or "a record that one has twice"
        raise DataError(
            f"two evaluations cannot be compared: they cover different test records ({len(ids)} and {len(others)} rows; in one only: {differing}). "
            "Evaluate both on the same dataset with the same max_eval_rows."
        )
    return ours, theirs


def _numbers(table: pa.Table, name: str) -> Array:
    return np.array([np.nan if value is None else value for value in table[name].to_pylist()], dtype=np.float64)


def _mean_of(values: Array) -> Measure:
    return Measure(np.stack([values, np.where(np.isfinite(values), 1.0, np.nan)], axis=1), lambda sums: sums[..., 0] / sums[..., 1])


def _perplexity(sums: Array) -> Array:
    return np.exp(np.minimum(sums[..., 0] / sums[..., 1], LARGEST_EXPONENT))


def _classification(predictions: pa.Table) -> dict[str, Measure]:
    """Accuracy, and F1 averaged over the labels that the (resampled) references hold; an answer that is no label is just wrong."""
    labels = [None if label is None else fold_answer(label) for label in predictions["label"].to_pylist()]
    answers = [fold_answer(answer or "") for answer in predictions["prediction"].to_pylist()]
    classes = {label: number for number, label in enumerate(sorted({label for label in labels if label is not None}))}
    if not classes or len(classes) > MOST_CLASSES:
        return {}
    blank = np.array([label is None for label in labels])
    reference, answered = _one_hot(labels, classes), _one_hot(answers, classes)
    correct = reference * answered
    counts = np.concatenate([correct, answered, reference], axis=1)
    counts[blank] = np.nan
    hits = np.where(blank, np.nan, correct.sum(axis=1))
    return {"accuracy": _mean_of(hits), "macro_f1": Measure(counts, _macro_f1)}


def _one_hot(values: Sequence[str | None], classes: dict[str, int]) -> Array:
    table = np.zeros((len(values), len(classes)))
    for row, value in enumerate(values):
        if value in classes:
            table[row, classes[value]] = 1.0
    return table


def _macro_f1(sums: Array) -> Array:
    correct, answered, reference = np.split(np.rint(sums), 3, axis=-1)
    f1 = 2 * correct / np.maximum(answered + reference, 1)
    present = reference > 0
    return np.asarray((f1 * present).sum(axis=-1) / present.sum(axis=-1))
