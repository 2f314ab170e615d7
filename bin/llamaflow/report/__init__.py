"""The report's sections, as MultiQC custom content.

A section is one <id>_mqc.json. Whatever comes from users (names, texts, reasons) goes through `safe` before it meets MultiQC,
which puts names, cells and HTML into the page as they are.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamaflow.results import Evaluation, TrainedTrial
from llamaflow.stats import higher_is_better
from llamaflow.trials import short_setting

WINNER, TRIAL, BASE = "#0f9d8a", "#4c6ef5", "#868e96"

ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"&#{ord(mark)};" for mark in "\"'`/\\"})
DASH = "\u2013"  # where there is nothing to show

MEASURES = {
    "rouge_l": ("ROUGE-L", "words in common with the reference answer, in the same order; 0 to 1"),
    "chrf": ("chrF", "pieces of words in common with the reference answer; 0 to 1"),
    "bleu": ("BLEU", "runs of words in common with the reference answer; 0 to 1"),
    "exact_match": ("Exact match", "share of answers that are the reference answer"),
    "pattern": ("Pattern", "share of answers that match answer_pattern"),
    "json_schema": ("JSON Schema", "share of answers that are JSON as answer_schema asks for"),
    "preference_accuracy": ("Preference accuracy", "share of records whose chosen answer the model prefers to the rejected one"),
    "accuracy": ("Accuracy", "share of records with the right label"),
    "macro_f1": ("Macro F1", "right labels, with every label counting alike; 0 to 1"),
    "perplexity": ("Perplexity", "how much the reference answers surprise the model; 1 is not at all, lower is better"),
}


@dataclass(frozen=True)
class Results:
    """Everything that the report tells about."""

    dataset: Mapping[str, Any]
    evaluations: Sequence[Evaluation]
    trials: Sequence[TrainedTrial]
    leaderboard: Mapping[str, Any]
    winner: Mapping[str, Any]
    receipts: Sequence[Mapping[str, Any]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.leaderboard["rows"])

    @property
    def metric(self) -> str:
        return str(self.leaderboard["gate_metric"])

    @property
    def metrics(self) -> list[str]:
        """All measures: the one that decides first, perplexity last."""
        return sorted(self.leaderboard["metrics"], key=lambda name: (name != self.metric, name == "perplexity"))

    def base_row(self, model: str) -> dict[str, Any] | None:
        return next((row for row in self.rows if row["kind"] == "base" and row["model"] == model), None)

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.rows if row["id"] == name)

    def evaluation(self, name: str) -> Evaluation:
        return next(found for found in self.evaluations if found.id == name)

    def ranked_trials(self) -> list[TrainedTrial]:
        """In the order of the leaderboard."""
        place = {row["id"]: number for number, row in enumerate(self.rows)}
        return sorted(self.trials, key=lambda trial: place.get(trial.id, len(place)))

    def varied(self) -> list[str]:
        """Hyperparameters that differ between the trials, of those that both have."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.hyperparameters)
        return [name for name in names if len({str(trial.hyperparameters[name]) for trial in self.trials if name in trial.hyperparameters}) > 1]

    @functools.cached_property
    def labels(self) -> dict[str, str]:
        """Safe names for the models by their ids, of what sets them apart in this run: ids, which are for all runs, are too long for a table."""
        varied, several = self.varied(), len({row["model"] for row in self.rows}) > 1
        labels = {row["id"]: _label(row, varied, several) for row in self.rows}
        times = Counter(labels.values())
        return {name: safe(label if times[label] == 1 else f"{label} {name.rpartition('-')[2]}") for name, label in labels.items()}


def _label(row: Mapping[str, Any], varied: Sequence[str], several: bool) -> str:
    model = [row["model"]] if several else []
    if row["kind"] == "base":
        return " ".join(["base", *(model or ["model"])])
    values = row["hyperparameters"]
    return " ".join([*model, row["technique"], *(short_setting(name, values[name]) for name in varied if name in values)])


def section(name: str, title: str, description: str, plot_type: str, data: Any, **more: Any) -> dict[str, Any]:
    """One MultiQC section; `description` is one or more sentences of safe text, shown above the plot."""
    pconfig = {"id": f"{name}_plot", "title": title, "series_label": False} | more.pop("pconfig", {})
    return {
        "id": name,
        "section_name": title,
        "description": f"<p>{description}",  # not closed: MultiQC ends every description with a full stop of its own
        "plot_type": plot_type,
        **({} if plot_type == "html" else {"pconfig": pconfig}),
        **more,
        "data": data,
    }


def safe(value: Any) -> str:
    """Text that HTML shows as it is, even inside quotes and inside a quoted string of a script. None is a dash.

    Numbered entities, since plots know no others; and a slash would make MultiQC take what is before it for a directory.
    """
    return DASH if value is None else " ".join(str(value).split()).translate(ENTITIES)


def title_of(metric: str) -> str:
    return MEASURES[metric][0] if metric in MEASURES else safe(metric)


def meaning_of(metric: str) -> str:
    """What a measure says, with its direction, for somebody who does not know it."""
    known = MEASURES.get(metric)
    return f"{known[0]} ({known[1]})" if known else f"{safe(metric)} ({'higher' if higher_is_better(metric) else 'lower'} is better)"


def number(value: float | None, sign: bool = False) -> str:
    """As many digits as matter: 0.456, 12.3, 1,234, +0.0046."""
    if value is None or value == 0:
        return DASH if value is None else "0"
    size = abs(value)
    form = ".2g" if size < 0.01 else ".3f" if size < 10 else ".1f" if size < 100 else ",.0f" if size < 1e9 else ".2g"
    return f"{value:{'+' if sign else ''}{form}}".replace("-", "\u2212")  # a minus as long as its plus


def span(low: float, high: float, sign: bool = False) -> str:
    return f"{number(low, sign)} to {number(high, sign)}"


def setting(value: Any) -> str:
    """A hyperparameter's value as people write it: 0.0002, 16, cosine."""
    return f"{value:g}" if isinstance(value, float) else str(value)
