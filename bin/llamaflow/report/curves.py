"""The plots: learning curves, and the measure over the hyperparameters."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from llamaflow.report import WINNER, Results, meaning_of, safe, section, setting, title_of
from llamaflow.stats import higher_is_better

CURVE_POINTS = 120
LEGEND_ENTRIES = 16
CURVE_COLOURS = ("#4c6ef5", "#f08c00", "#d6336c", "#7048e8", "#74b816", "#495057", "#e8590c", "#a9674b", "#868e96", "#fab005", "#c2255c", "#364fc7")
LIGHT_TO_DARK = ("#f1f3f5", "#74c0b8", "#0b7285")


def loss_curves(results: Results) -> dict[str, Any] | None:
    """Training and validation loss over the epochs, a curve a trial."""
    training: dict[str, list[tuple[float, float]]] = {}
    validation: dict[str, list[tuple[float, float]]] = {}
    for trial in results.ranked_trials():
        rows = trial.history()
        training[results.labels[trial.id]] = list(_averaged([(row["epoch"], row["loss"]) for row in rows]))
        validation[results.labels[trial.id]] = [(row["epoch"], row["validation_loss"]) for row in rows if "validation_loss" in row]
    curves = {"Validation loss": _not_empty(validation), "Training loss": _not_empty(training)}
    shown = {name: series for name, series in curves.items() if series}
    if not shown:
        return None
    colours = {
        results.labels[trial.id]: WINNER if trial.id == results.winner["trial_id"] else CURVE_COLOURS[place % len(CURVE_COLOURS)]
        for place, trial in enumerate(results.ranked_trials())
    }
    labels = [{"name": name, "ylab": name} for name in shown]
    text = (
        "How wrong the model still is while it learns; lower is better. Validation records are not trained on: where that curve turns up again while the "
        "training loss keeps falling, the model has begun to learn by heart."
    )
    pconfig = {
        "title": "Loss over the training",
        "xlab": "Passes over the training data (epochs)",
        "ylab": labels[0]["name"],
        "data_labels": labels,
        "height": 480,
        "tt_label": "epoch %{x:.2f}: %{y:.3f}",
        "colors": colours,
        "showlegend": len(training) <= LEGEND_ENTRIES,
    }
    return section("loss_curves", "Learning curves", text, "linegraph", list(shown.values()), pconfig=pconfig)


def _not_empty(series: dict[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    return {name: points for name, points in series.items() if points}


def _averaged(points: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Means of neighbouring points, so that a curve has CURVE_POINTS at most and shows its course rather than its noise."""
    width = -(-len(points) // CURVE_POINTS)
    for start in range(0, len(points), width or 1):
        window = points[start : start + width]
        yield window[-1][0], fmean(value for _, value in window)


def heatmap(results: Results) -> dict[str, Any] | None:
    """The gate's measure over the hyperparameters that were varied; trials that differ in their seed only are averaged."""
    rows = [row for row in results.rows if row["kind"] == "trial" and results.metric in row["metrics"]]
    settings = [_settings(row, results.varied()) for row in rows]
    names = dict.fromkeys(name for found in settings for name in found)
    varied = [name for name in names if len({found.get(name) for found in settings}) > 1]
    if not varied:
        return None
    across = max(varied, key=lambda name: (len({found.get(name) for found in settings}), name not in ("technique", "model")))
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row, found in zip(rows, settings, strict=True):
        down = ", ".join(f"{name} {found[name]}" for name in varied if name != across and name in found)
        cells[safe(down or "all trials"), safe(f"{across} {found.get(across)}")].append(row["metrics"][results.metric]["value"])
    ycats, xcats = sorted({y for y, _ in cells}, key=_natural), sorted({x for _, x in cells}, key=_natural)
    data = [[fmean(cells[y, x]) if (y, x) in cells else None for x in xcats] for y in ycats]
    text = (
        f"{meaning_of(results.metric)} for every combination that was tried; darker is better. "
        "Neighbouring cells that are much alike mean that the choice between them matters little."
    )
    return section(
        "settings", "Which settings work", text, "heatmap", data, xcats=xcats, ycats=ycats, pconfig=_heatmap_look(results.metric, len(ycats), len(cells))
    )


def _heatmap_look(metric: str, rows: int, cells: int) -> dict[str, Any]:
    colours = LIGHT_TO_DARK if higher_is_better(metric) else LIGHT_TO_DARK[::-1]
    plain = dict.fromkeys(("xcats_samples", "ycats_samples", "square", "cluster_rows", "cluster_cols", "angled_xticks"), False)
    return plain | {
        "title": f"{title_of(metric)} by setting",
        "zlab": title_of(metric),
        "colstops": [[place / 2, colour] for place, colour in enumerate(colours)],
        "display_values": cells <= 80,
        "tt_decimals": 3,
        "height": 190 + 46 * rows,
    }


def _settings(row: dict[str, Any], varied: list[str]) -> dict[str, str]:
    """What was chosen for a trial, but for its seed."""
    chosen = {"model": row["model"], "technique": row["technique"]}
    return chosen | {name: setting(row["hyperparameters"][name]) for name in varied if name != "seed" and name in row["hyperparameters"]}


def _natural(label: str) -> list[tuple[bool, float, str]]:
    """Sort key: numbers by value, so that 8 comes before 16 and 5e-05 before 0.001."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", label)
    return [(place % 2 == 0, float(part) if place % 2 else 0.0, part) for place, part in enumerate(parts)]
