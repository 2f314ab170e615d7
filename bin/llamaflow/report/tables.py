"""The tables: the leaderboard, failed trials, and what each trial cost."""

from __future__ import annotations

from typing import Any

from llamaflow.report import DASH, Results, meaning_of, safe, section, setting, span, title_of
from llamaflow.report.intervals import enclosed
from llamaflow.stats import higher_is_better

ROLE_COLOURS = [{"winner": "#0f9d8a"}, {"trial": "#4c6ef5"}, {"base": "#868e96"}, {"failed": "#d6336c"}, {"partial": "#e8890c"}]


def leaderboard(results: Results) -> dict[str, Any]:
    """All models, best first, with their measures as heat."""
    metrics, varied = results.metrics, results.varied()
    headers: dict[str, Any] = {
        "rank": {"title": "Rank", "description": f"By {title_of(results.metric)}", "format": "{:,.0f}", "scale": False},
        "role": {"title": "Role", "description": "winner, trial, base model, failed, or partial (stopped before its end)", "scale": False}
        | {"cond_formatting_colours": ROLE_COLOURS, "cond_formatting_rules": {role: [{"s_eq": role}] for entry in ROLE_COLOURS for role in entry}},
        "gain": _gain_header(results),
        "interval": {"title": "95 % interval", "description": "Where the true gain lies in 95 of 100 cases", "scale": False},
        "luck": {"title": "p", "description": "How easily luck alone would give such a gain, paid for all trials (Holm); below 0.05 is convincing"}
        | {"format": "{:,.3f}", "scale": False},
    }
    headers |= {f"metric_{name}": _metric_header(results, name) for name in metrics}
    headers |= {f"setting_{name}": {"title": safe(name), "description": f"Hyperparameter {safe(name)}", "scale": False} for name in varied}
    headers["technique"] = {"title": "technique", "description": "How the model was fine-tuned", "scale": False}
    headers["id"] = {"title": "id", "description": "The name of its folder, and in all other files", "scale": False}
    data = {results.labels[row["id"]]: _leaderboard_row(results, row, varied) for row in results.rows}
    text = (
        "All trials and base models, the best first. Gain is the difference to the trial's own base model on the same test records; "
        "if its interval does not touch 0, the trial differs from its base by more than luck."
    )
    return section("leaderboard", "Leaderboard", text, "table", data, headers=headers, pconfig=table_config("Model"))


def _gain_header(results: Results) -> dict[str, Any]:
    largest = max((abs(row["gain"]["gain"]) for row in results.rows if row["gain"]), default=1.0) or 1.0
    header = {"title": "Gain", "description": f"Better than its base in {title_of(results.metric)} by so much; negative is worse", "format": "{:+,.3f}"}
    return header | {"scale": "RdYlGn", "min": -largest, "max": largest, "bars_zero_centrepoint": True}


def _metric_header(results: Results, name: str) -> dict[str, Any]:
    values = [row["metrics"][name]["value"] for row in results.rows if name in row["metrics"]]
    low, high = enclosed(values)
    form = "{:,.3f}" if high <= 10 else "{:,.2f}"
    return {"title": title_of(name), "description": meaning_of(name), "scale": "GnBu" if higher_is_better(name) else "GnBu-rev", "format": form} | {
        "min": max(0.0, low - (high - low) / 3) if low >= 0 else low,
        "max": high,
    }


def _leaderboard_row(results: Results, row: dict[str, Any], varied: list[str]) -> dict[str, Any]:
    gain = row["gain"]
    cells = {
        "rank": row["rank"],
        "role": _role(results, row),
        "gain": gain and gain["gain"],
        "interval": gain and span(gain["ci_low"], gain["ci_high"], sign=True),
        "luck": gain and gain["p_holm"],
        "technique": row["technique"] and safe(row["technique"]),
        "id": safe(row["id"]),
    }
    cells |= {f"metric_{name}": row["metrics"][name]["value"] if name in row["metrics"] else DASH for name in results.metrics if row["metrics"]}
    cells |= {f"setting_{name}": safe(setting(row["hyperparameters"][name])) for name in varied if name in row["hyperparameters"]}
    return {name: cell for name, cell in cells.items() if cell is not None}


def _role(results: Results, row: dict[str, Any]) -> str:
    if row["id"] == results.winner["trial_id"]:
        return "winner"
    if row["kind"] == "base" or row["status"] == "failed":
        return "base" if row["kind"] == "base" else "failed"
    return "trial" if row["status"] in ("finished", "early_stopped") and row["metrics"] else "partial"


def failures(results: Results) -> dict[str, Any] | None:
    """Why trials failed or were stopped, in their own words."""
    failed = [row for row in results.rows if row["status"] in ("failed", "stopped")]
    if not failed:
        return None
    data = {results.labels[row["id"]]: {"reason": safe(row["reason"] or "no reason was given")} for row in failed}
    headers = {"reason": {"title": "Reason", "description": "What ended the training", "scale": False}}
    return section(
        "failures",
        "Trials that gave no model",
        "They failed, or were stopped for the sake of better ones; the others are not affected.",
        "table",
        data,
        headers=headers,
        pconfig=table_config("Trial"),
    )


def trial_resources(results: Results) -> dict[str, Any]:
    """What each trial cost."""
    headers = {
        "minutes": {"title": "Time", "description": "Wall time of the training", "suffix": " min", "format": "{:,.1f}", "scale": "Purples", "min": 0},
        "memory": {"title": "Peak memory", "description": "Largest memory of the task", "suffix": " GB", "format": "{:,.2f}", "scale": "Oranges", "min": 0},
        "speed": {"title": "Tokens a second", "description": "Training tokens a second", "format": "{:,.0f}", "scale": "Greens", "min": 0},
        "steps": {"title": "Steps", "description": "Optimiser steps", "format": "{:,.0f}", "scale": False},
        "trained": {
            "title": "Trained weights",
            "description": "Weights that were trained, in millions",
            "suffix": " M",
            "format": "{:,.2f}",
            "scale": "Blues",
            "min": 0,
        },
        "loss": {"title": "Validation loss", "description": "The lowest that was measured", "format": "{:,.3f}", "scale": "GnBu-rev"},
    }
    data = {}
    for trial in results.ranked_trials():
        outcome = trial.outcome
        cells = {
            "minutes": trial.seconds / 60,
            "memory": trial.peak_memory_bytes / 2**30,
            "speed": outcome.get("tokens_per_second"),
            "steps": outcome.get("steps"),
        }
        cells |= {"trained": (outcome.get("trainable_parameters") or 0) / 1e6, "loss": outcome.get("validation_loss")}
        data[results.labels[trial.id]] = {name: cell for name, cell in cells.items() if cell is not None}
    return section(
        "trial_resources", "What each trial cost", "Time, memory and speed of every training.", "table", data, headers=headers, pconfig=table_config("Trial")
    )


def table_config(first_column: str) -> dict[str, Any]:
    return {"col1_header": first_column, "sort_rows": False, "no_violin": True, "rows_are_samples": True}
