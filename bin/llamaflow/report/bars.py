"""The bars: what became of the data, and where the run spent its time."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from llamaflow.report import Results, safe, section

SPLIT_COLOURS = {"train": "#4c6ef5", "validation": "#91a7ff", "test": "#0f9d8a"}
DROP_COLOURS = ("#e8590c", "#f08c00", "#fab005", "#d6336c", "#ae3ec9", "#845ef7", "#a9674b", "#868e96")


def data_funnel(results: Results) -> dict[str, Any] | None:
    """What became of the records of each source."""
    dropped: dict[str, Counter[str]] = {source: Counter() for source in results.dataset["sources"]}
    for entry in results.dataset["funnel"]:
        dropped.setdefault(entry["source"], Counter()).update(entry["dropped"])
    reasons = [reason for reason, _ in sum(dropped.values(), Counter[str]()).most_common()]
    data = {
        safe(source): {"kept": _kept(results, source)} | {f"dropped_{reasons.index(reason)}": count for reason, count in counts.items()}
        for source, counts in dropped.items()
    }
    categories = {"kept": {"name": "Kept", "color": "#0f9d8a"}}
    categories |= {
        f"dropped_{place}": {"name": f"Dropped: {safe(reason)}", "color": DROP_COLOURS[place % len(DROP_COLOURS)]} for place, reason in enumerate(reasons)
    }
    text = "Records of each source that were kept, and why the others were dropped. The dropped ones are listed, with the place they come from, in data/dropped.parquet."
    pconfig = _records_by_source("Records kept and dropped, by source")
    return section("data_funnel", "What became of the data", text, "bargraph", data, categories=categories, pconfig=pconfig)


def _kept(results: Results, source: str) -> int:
    counts = results.dataset["sources"].get(source, {})
    return sum(counts.get(split, 0) for split in SPLIT_COLOURS)


def splits(results: Results) -> dict[str, Any]:
    """Where the kept records went."""
    data = {safe(source): {split: counts[split] for split in SPLIT_COLOURS} for source, counts in results.dataset["sources"].items()}
    categories = {split: {"name": split.capitalize(), "color": colour} for split, colour in SPLIT_COLOURS.items()}
    sizes = results.dataset["splits"]
    text = f"{sizes['train']:,} records train the models, {sizes['validation']:,} watch over the training, {sizes['test']:,} are held out for the comparison with the base."
    if straddling := results.dataset.get("prompts_in_several_splits"):
        text += f" Mind that {straddling:,} questions were given in several of these parts: the test is easier for it."
    pconfig = _records_by_source("Records of each split, by source")
    return section("splits", "Training, validation and test data", text, "bargraph", data, categories=categories, pconfig=pconfig)


def _records_by_source(title: str) -> dict[str, Any]:
    labels = {"ylab": "Records", "cpswitch_counts_label": "Records", "cpswitch_percent_label": "Share"}
    return {"title": title, "sort_samples": False, "tt_decimals": 0} | labels


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
