"""What the trainings were expected to take, and what they took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamaflow.report import Results, safe, section
from llamaflow.report.tables import table_config
from llamaflow.results import TrainedTrial
from llamaflow.units import amount, duration, money

NUMBERS = {  # by key: title, suffix, format, colours
    "tokens": ("Tokens", " k", "{:,.1f}", "Greens"),
    "minutes": ("Time", " min", "{:,.1f}", "Purples"),
    "memory": ("Memory", " GB", "{:,.2f}", "Oranges"),
    "cost": ("Cost", "", "{:,.2f}", "Blues"),
}
ENERGY = {
    "title": "Energy",
    "description": "Used by the processors of the machine meanwhile",
    "suffix": " Wh",
    "format": "{:,.1f}",
    "scale": "YlOrBr",
    "min": 0,
}


def plan_and_fact(results: Results) -> dict[str, Any] | None:
    """Each trial as it was estimated before the run, beside what it took; None if there was no estimate."""
    plan = next((made["counts"]["plan"] for made in results.receipts if made["step"] == "plan_trials" and "plan" in made["counts"]), None)
    if plan is None:
        return None
    trials = [trial for trial in results.ranked_trials() if trial.id in plan["trials"]]
    data = {results.labels[trial.id]: _row(plan["trials"][trial.id], trial, plan["price_per_hour"]) for trial in trials}
    shown = {name for row in data.values() for name in row}
    headers = {name: header for name, header in _headers().items() if name in shown}
    return section("plan_and_fact", "Plan and fact", _summary(plan, trials), "table", data, headers=headers, pconfig=table_config("Trial"))


def _headers() -> dict[str, Any]:
    headers = {}
    for key, (title, suffix, form, scale) in NUMBERS.items():
        common = {"suffix": suffix, "format": form, "scale": scale, "min": 0}
        headers[f"planned_{key}"] = {"title": f"{title}, planned", "description": "Estimated before the run: at most so much", **common}
        headers[key] = {"title": title, "description": "What was used", **common}
    return headers | {"energy": ENERGY}


def _row(planned: Mapping[str, Any], trial: TrainedTrial, price: float | None) -> dict[str, float]:
    cells = {f"planned_{key}": value for key, value in _numbers(planned["tokens"], planned["seconds"], planned["peak_memory_bytes"], price).items()}
    cells |= _numbers(trial.outcome.get("tokens"), trial.seconds, trial.peak_memory_bytes, price)
    cells["energy"] = trial.energy_joules and trial.energy_joules / 3600
    return {name: cell for name, cell in cells.items() if cell is not None}


def _numbers(tokens: int | None, seconds: float, peak_memory_bytes: int, price: float | None) -> dict[str, float | None]:
    """In the units of NUMBERS."""
    thousands = None if tokens is None else tokens / 1000
    return {"tokens": thousands, "minutes": seconds / 60, "memory": peak_memory_bytes / 2**30, "cost": money(seconds, price)}


def _summary(plan: Mapping[str, Any], trials: list[TrainedTrial]) -> str:
    total, price = plan["total"], plan["price_per_hour"]
    # Nextflow's cache gives a trial of an earlier run back as if it had been trained now; the plan found it in the store
    trained = [trial for trial in trials if not (trial.reused or plan["trials"][trial.id]["finished"])]
    seconds, tokens = sum(trial.seconds for trial in trained), sum(trial.outcome.get("tokens") or 0 for trial in trained)
    expected, used = (
        f"{amount(count)} tokens in {duration(took)}{_priced(took, price)}" for count, took in ((total["tokens"], total["seconds"]), (tokens, seconds))
    )
    text = f"Training was estimated at {expected} in all, at {safe(' and '.join(plan['speeds']))}; it took {used}. "
    if len(trained) < len(trials):
        text += f"Not in these sums: what was taken from an earlier run ({len(trials) - len(trained)} of {len(trials)} trials). "
    return text + "A trial that failed or stopped early uses less than was planned for it. Evaluation and the other steps are not counted."


def _priced(seconds: float, price: float | None) -> str:
    return "" if price is None else f" for {money(seconds, price):,.2f}"
