#!/usr/bin/env python3
"""Compare all trials with their bases on the same test records, choose the winner, and decide whether it is good enough.

rank_trials.py --evaluations base/ trial-a/ ... --trials trial-a/ ...
    < {"gate": {"gate_metric": "rouge_l", "gate_min_gain": 0.0}, "evaluation": {"bootstrap_resamples": 2000}}
    ->  leaderboard.json, leaderboard.csv, winner.json

The gate opens if the winner's gain over its base is above gate_min_gain at the lower end of an interval that is wide enough
for all trials at once (Bonferroni: 1 - 0.05 / trials), since the best of many is partly the luckiest, and Holm's p is below 0.05.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaflow.errors import DataError, UsageError, exits_cleanly
from llamaflow.files import sha256, write_json, write_text
from llamaflow.params import Evaluation as EvaluationSettings
from llamaflow.params import Gate
from llamaflow.results import Evaluation, TrainedTrial, read_evaluations, read_trials
from llamaflow.stats import higher_is_better, holm, paired_gain
from llamaflow.steps import read_settings, receipt
from llamaflow.validation import nearest

SEED = 20_041_125
SIGNIFICANT = 0.05
RESAMPLES_A_TRIAL = 400  # at a level of 0.05 / trials, ten of them lie beyond each end of the interval
RUNNERS_UP = 3
FEW_RECORDS = 10
OUTCOME = ("validation_loss", "seconds", "peak_memory_bytes", "steps", "tokens", "tokens_per_second", "trainable_parameters")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=Path, nargs="*", default=[], help="directories of evaluate_model, bases and trials")
    parser.add_argument("--trials", type=Path, nargs="+", required=True, help="directories of train_trials, failed trials too")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Comparison:
    """Everything that the ranking compares, and by which rule."""

    trials: dict[str, TrainedTrial]
    evaluated: dict[str, Evaluation]  # trials that were evaluated, by trial_id
    bases: dict[str, Evaluation]  # by model
    metric: str
    min_gain: float
    resamples: int

    def best_first(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        """By the gate's measure; of equals, the one with the lower validation loss."""
        sign = -1 if higher_is_better(self.metric) else 1

        def place(evaluation: Evaluation) -> tuple[float, float, str]:
            trial = self.trials.get(evaluation.id)
            loss = trial.outcome.get("validation_loss") if trial else None
            return sign * evaluation.metrics[self.metric]["value"], float("inf") if loss is None else loss, evaluation.id

        return sorted(evaluations, key=place)

    def gain(self, better: Evaluation, worse: Evaluation, confidence: float = 0.95) -> dict[str, Any]:
        return paired_gain(better.predictions(), worse.predictions(), self.metric, self.resamples, SEED, confidence)


def run(evaluations: list[Evaluation], trials: list[TrainedTrial], gate: Gate, settings: EvaluationSettings, outdir: Path) -> dict[str, Any]:
    """Write leaderboard.json, leaderboard.csv and winner.json; return the winner."""
    if gate.gate_metric == "auto":
        gate = gate.model_copy(update={"gate_metric": natural_metric(evaluations)})
    comparison = compared(evaluations, trials, gate, settings)
    gains = {name: comparison.gain(found, comparison.bases[found.model]) for name, found in comparison.evaluated.items()}
    for gain, p_holm in zip(gains.values(), holm([gain["p_value"] for gain in gains.values()]), strict=True):
        gain["p_holm"] = p_holm
    rows = leaderboard(comparison, gains)
    winner = decide(comparison, gains)
    metrics = list(dict.fromkeys(name for found in evaluations for name in found.metrics))
    suite = evaluations[0].suite if evaluations else None
    write_json(outdir / "leaderboard.json", {"gate_metric": gate.gate_metric, "metrics": metrics, "suite": suite, "trials_compared": len(gains), "rows": rows})
    write_text(outdir / "leaderboard.csv", as_csv(rows))
    write_json(outdir / "winner.json", winner)
    return winner


def compared(evaluations: list[Evaluation], trials: list[TrainedTrial], gate: Gate, settings: EvaluationSettings) -> Comparison:
    """Match evaluations, trials and bases. Raises UsageError or DataError where they do not belong together."""
    by_id = {trial.id: trial for trial in trials}
    evaluated = {found.id: found for found in evaluations if found.kind == "trial"}
    bases = {found.model: found for found in evaluations if found.kind == "base"}
    if unknown := sorted(set(evaluated) - set(by_id)):
        raise UsageError(f"there are evaluations of trials that --trials does not hold: {', '.join(unknown)}")
    if missing := sorted({found.model for found in evaluated.values()} - set(bases)):
        raise UsageError(f"no evaluation of the base model {', '.join(missing)}: without it nobody knows what its trials gained")
    if len(suites := {f"{found.suite.get('name')} {found.suite.get('version')}" for found in evaluations}) > 1:
        raise DataError(f"the evaluations are of different suites ({', '.join(sorted(suites))}) and cannot be compared; evaluate all with one")
    if evaluated and gate.gate_metric not in (known := measured(evaluations)):
        raise UsageError(
            f"--gate_metric: there is no measure {gate.gate_metric!r} in these evaluations{nearest(gate.gate_metric, known)}; "
            f"there are {', '.join(known)}. accuracy and macro_f1 need records with a label, preference_accuracy those with a preference, measures of answers those with an answer."
        )
    resamples = max(settings.bootstrap_resamples, RESAMPLES_A_TRIAL * len(evaluated))
    return Comparison(by_id, evaluated, bases, gate.gate_metric, gate.gate_min_gain, resamples)


def natural_metric(evaluations: list[Evaluation]) -> str:
    """accuracy where records have labels, preference_accuracy where they have preferences, rouge_l where they have answers, else perplexity."""
    known = measured(evaluations) if evaluations else []
    return next((metric for metric in ("accuracy", "preference_accuracy", "rouge_l") if metric in known), "perplexity")


def measured(evaluations: list[Evaluation]) -> list[str]:
    """The measures that all evaluations have, in the order of the first."""
    return [name for name in evaluations[0].metrics if all(name in found.metrics for found in evaluations)]


def leaderboard(comparison: Comparison, gains: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a base and a trial, best first; trials without an evaluation come last and have no rank."""
    ranked = comparison.best_first([*comparison.bases.values(), *comparison.evaluated.values()]) if comparison.evaluated else list(comparison.bases.values())
    rows = [_row(found.id, found, comparison.trials.get(found.id)) | {"gain": gains.get(found.id)} for found in ranked]
    for rank, row in enumerate(rows, start=1):
        row["rank"] = rank if comparison.evaluated else None
    return rows + [_row(trial.id, None, trial) for trial in comparison.trials.values() if trial.id not in comparison.evaluated]


def _row(name: str, evaluation: Evaluation | None, trial: TrainedTrial | None) -> dict[str, Any]:
    outcome = {**trial.outcome, "seconds": trial.seconds, "peak_memory_bytes": trial.peak_memory_bytes} if trial else {}
    return {
        "rank": None,
        "id": name,
        "kind": "trial" if trial else "base",
        "model": trial.model if trial else evaluation.model if evaluation else None,
        "technique": trial.technique if trial else None,
        "hyperparameters": trial.hyperparameters if trial else {},
        "status": outcome.get("status", "not trained"),
        "reason": outcome.get("reason"),
        "metrics": evaluation.metrics if evaluation else {},
        "gain": None,
        **{key: outcome.get(key) for key in OUTCOME},
    }


def decide(comparison: Comparison, gains: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The winner, and whether it passes the gate, with the reason in a sentence."""
    if not comparison.evaluated:
        return {"trial_id": None, "model": None, "passed": False, "reason": _nothing_to_choose(comparison), "gate": None, "runner_up": None, "tied_with": []}
    best, *others = comparison.best_first(list(comparison.evaluated.values()))
    confidence = 1 - SIGNIFICANT / len(gains)
    gain = comparison.gain(best, comparison.bases[best.model], confidence) | {"p_holm": gains[best.id]["p_holm"]}
    gate = {"metric": comparison.metric, "min_gain": comparison.min_gain, "confidence": confidence, "trials_compared": len(gains), **gain}
    passed = gain["ci_low"] > comparison.min_gain and gain["p_holm"] < SIGNIFICANT
    next_best = _compare_next(comparison, best, others[:RUNNERS_UP])
    return {
        "trial_id": best.id,
        "model": best.model,
        "passed": passed,
        "reason": _reason(best, gate, passed),
        "gate": gate,
        "runner_up": next_best[0] if next_best else None,
        "tied_with": [other["trial_id"] for other in next_best if other["p_holm"] >= SIGNIFICANT],
    }


def _compare_next(comparison: Comparison, best: Evaluation, others: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """The winner's gain over each of the next trials, Holm-adjusted over these comparisons."""
    found = [comparison.gain(best, other) for other in others]
    p_values = holm([gain["p_value"] for gain in found])
    return [
        {"trial_id": other.id, "gain": gain["gain"], "ci_low": gain["ci_low"], "ci_high": gain["ci_high"], "p_holm": p_holm}
        for other, gain, p_holm in zip(others, found, p_values, strict=True)
    ]


def _reason(best: Evaluation, gate: Mapping[str, Any], passed: bool) -> str:
    metric, gain, low, high, records = gate["metric"], gate["gain"], gate["ci_low"], gate["ci_high"], gate["n"]
    among = f"the best of {gate['trials_compared']} trials" if gate["trials_compared"] > 1 else "the only trial"
    span = f"between {low:.3g} and {high:.3g} on these {records} test records"
    if passed:
        return f"{best.id}, {among}, is better than its base by {gain:.3g} in {metric} ({span}), which is above the gain of {gate['min_gain']:g} asked for."
    if gain <= 0:
        return f"No trial is better than its base in {metric}: {best.id}, {among}, differs from it by {gain:.3g} ({span})."
    if low > 0 and gate["p_holm"] < SIGNIFICANT:
        return f"{best.id}, {among}, is better than its base by {gain:.3g} in {metric}, but not surely by more than the {gate['min_gain']:g} asked for: its gain lies {span}."
    advice = f"; only a gain of about {gate['min_detectable']:.2g} would show reliably" if records >= FEW_RECORDS else "; so few cannot show more"
    return f"{best.id}, {among}, is better than its base by {gain:.3g} in {metric}, but that may be luck: its gain lies {span}{advice}."


def _nothing_to_choose(comparison: Comparison) -> str:
    endings = [f"{trial.id}: {trial.outcome.get('reason') or trial.outcome.get('status')}" for trial in comparison.trials.values()]
    return f"None of the {len(endings)} trials has a result to compare. " + "; ".join(endings)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The leaderboard as a flat table; hyperparameters and measures get a column each."""
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for part in _PARTS for row in flat for name in row[part]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: value for part in _PARTS for name, value in row[part].items()} for row in flat)
    return text.getvalue()


_PARTS = ("identity", "hyperparameters", "metrics", "gain", "outcome")


def _flat(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A row in parts, so that columns of one kind stand together whichever row has them first."""
    metrics: dict[str, Any] = {}
    for name, estimate in row["metrics"].items():
        metrics |= {name: estimate["value"], f"{name}_ci_low": estimate["ci_low"], f"{name}_ci_high": estimate["ci_high"]}
    gain = row["gain"] or {}
    return {
        "identity": {key: row[key] for key in ("rank", "id", "kind", "model", "technique", "status", "reason")},
        "hyperparameters": row["hyperparameters"],
        "metrics": metrics,
        "gain": {key if key.startswith(("gain", "min")) else f"gain_{key}": value for key, value in gain.items()},
        "outcome": {key: row[key] for key in OUTCOME},
    }


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    with receipt("rank_trials", settings, args.outdir) as written:
        evaluations, trials = read_evaluations(args.evaluations), read_trials(args.trials)
        gate = Gate.model_validate(settings.get("gate", {}))
        winner = run(evaluations, trials, gate, EvaluationSettings.model_validate(settings.get("evaluation", {})), args.outdir)
        written.inputs = {f"{found.id}/{name}": sha256(found.directory / name) for found in evaluations for name in ("metrics.json", "predictions.parquet")}
        written.counts = {"trials": len(trials), "evaluated": sum(found.kind == "trial" for found in evaluations), "passed": winner["passed"]}
        for name in ("leaderboard.json", "leaderboard.csv", "winner.json"):
            written.add_output(args.outdir / name)
    print(winner["reason"])


if __name__ == "__main__":
    main()
