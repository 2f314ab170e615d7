"""The bars: where the run spent its time."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from llamaflow.report import Results, safe, section


def step_resources(results: Results) -> dict[str, Any] | None:
    """Time and memory of the whole run by step."""
    seconds: dict[str, float] = defaultdict(float)
    peaks: dict[str, float] = defaultdict(float)
    receipts = [(made["step"], made["seconds"], made["peak_memory_bytes"]) for made in results.receipts]
    if not any(step == "train_trials" for step, *_ in receipts):
        receipts += [("train_trials", trial.seconds, trial.peak_memory_bytes) for trial in results.trials]
    for step, took, peak in receipts:
        seconds[safe(step)] += took
        peaks[safe(step)] = max(peaks[safe(step)], peak)
    if not seconds:
        return None
    order = sorted(seconds, key=seconds.__getitem__, reverse=True)
    data = [{step: {"minutes": seconds[step] / 60} for step in order}, {step: {"memory": peaks[step] / 2**30} for step in order}]
    categories = [{"minutes": {"name": "Minutes", "color": "#845ef7"}}, {"memory": {"name": "GB", "color": "#f08c00"}}]
    labels = [{"name": "Time", "ylab": "Minutes, all tasks together"}, {"name": "Peak memory", "ylab": "GB, the largest task"}]
    pconfig = {"ylab": labels[0]["ylab"], "title": "Time and memory", "data_labels": labels, "cpswitch": False, "sort_samples": False, "tt_decimals": 2}
    return section(
        "step_resources",
        "Time and memory by step",
        "Where the run spent its time, and how much memory each step needed.",
        "bargraph",
        data,
        categories=categories,
        pconfig=pconfig,
    )
