"""The two sides: our steps as the pipeline calls them, and TRL's SFTTrainer in processes of its own, in its fastest layout."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import CORES, HERE, Job, Usage, run, step

from llamaflow.files import read_json, write_json

Trial = dict[str, Any]  # as plan_trials writes it
Layout = dict[str, Any]  # how SFTTrainer is told to go about it, see START
Tried = dict[str, Any]  # a layout with its speed

BATCH = 8
MAX_LENGTH = 512
ONLY_AT_THE_END = 1_000_000  # eval_steps: one validation, where TRL is asked for none
WARM_UP = 2  # steps left out when layouts are compared
PADDED = ("padded", "multiple of 16")
# glibc gives large blocks back to the system at once, and a training step faults them in again
KEPT = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456"
MALLOC = {"kept": KEPT, "kept, huge pages": f"{KEPT}:glibc.malloc.hugetlb=1"}
START: Layout = {
    "rows": "padded",
    "attention": "sdpa",
    "malloc": "default",
    "dtype": "bfloat16",
    "autocast": True,
    "float32_adapters": True,
    "checkpointing": False,
    "order": "random",
    "workers": 0,
}
DEFAULTS: Layout = START | {"dtype": "float32", "checkpointing": True}  # what SFTTrainer does unasked
# What changes TRL's speed and hardly what it learns: the fastest of each round goes into the next
ROUNDS: list[list[Layout]] = [
    [{"rows": rows, "attention": attention} for rows in (*PADDED, "padding-free", "packed") for attention in ("sdpa", "eager")],
    [{"malloc": malloc} for malloc in MALLOC],
    [{"dtype": "float32"}],
    [{"autocast": False}, {"float32_adapters": False}, {"autocast": False, "float32_adapters": False}],
    [{"checkpointing": True}],
    [{"order": "group_by_length"}],
    [{"workers": 1}],
]


@dataclass(frozen=True)
class Done:
    """What a side did: wall seconds and largest resident set of its processes, its trials' directories, its tokens, and its speed while training."""

    seconds: float
    peak_bytes: int
    trials: list[Path]
    tokens: int
    tokens_per_second: float

    def after(self, seconds: float) -> Done:
        """The same with the seconds of steps before it."""
        return replace(self, seconds=seconds + self.seconds)

    def figures(self) -> dict[str, Any]:
        return {name: round(value, 1) for name, value in vars(self).items() if name != "trials"}


def prepare(model: Path, dataset: Path, cells: Sequence[dict[str, Any]], folder: Path, *, packs: int = 1, steps: int | None = None, **training: Any) -> float:
    """Tokenise, and plan one trial a cell, in `packs` packs: folder/tokens and folder/packs.jsonl; returns the wall seconds.

    One epoch, or `steps` optimiser steps.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)
    (folder / "dataset").symlink_to(dataset.resolve())
    epochs = steps * BATCH / read_json(dataset / "dataset.json")["splits"]["train"] if steps else 1
    settings = {
        "grid": {"num_train_epochs": epochs, "per_device_train_batch_size": BATCH, "max_length": MAX_LENGTH},
        "planning": {"trials_per_task": math.ceil(len(cells) / packs)},
        "training": {"eval_steps": ONLY_AT_THE_END, **training},
    }
    tokenising = ["--dataset", dataset, "--model", model, "--outdir", folder]
    planning = ["--dataset", dataset / "dataset.json", "--models", model / "model.json", "--trials", folder / "trials.csv", "--outdir", folder]
    jobs = [
        step("tokenize_dataset", *tokenising, settings={"max_length": MAX_LENGTH}, log=folder),
        step("plan_trials", *planning, settings=settings, log=folder),
    ]
    return run(jobs)[0]


def planned(folder: Path) -> list[dict[str, Any]]:
    """The packs, each with its `trials`."""
    return [json.loads(line) for line in (folder / "packs.jsonl").read_text().splitlines()]


def train_ours(model: Path, folder: Path, **training: Any) -> Done:
    """Train every planned pack in a process of its own, all side by side, with the cores shared out."""
    packs = planned(folder)
    jobs = []
    for number, pack in enumerate(packs):
        outdir = folder / f"pack{number}"
        outdir.mkdir(exist_ok=True)
        settings = {
            "code": "benchmark",
            "training": {"eval_steps": ONLY_AT_THE_END, **training},
            "compute": {"checkpoint_dir": str(folder / "checkpoints")},  # where packs see how far each other's trials have come
            "grid": pack["grid"],
            "trials": pack["trials"],
        }
        arguments = ["--model", model, "--tokens", folder / "tokens", "--dataset", folder / "dataset", "--outdir", outdir]
        jobs.append(step("train_trials", *arguments, settings=settings, log=outdir))
    seconds, used = run(jobs, at_once=len(packs), threads=max(1, CORES // len(packs)))
    directories = [[folder / f"pack{number}" / "trials" / trial["trial_id"] for trial in pack["trials"]] for number, pack in enumerate(packs)]
    speeds = [_speed_of_pack([read_json(trial / "train_trials.json")["counts"] for trial in pack]) for pack in directories]
    tokens, speed = map(sum, zip(*speeds, strict=True))
    trials = list(itertools.chain(*directories))
    # helpers of a process, which share its memory, are only counted there
    peak = max(_peak(used), *(read_json(trial / "train_trials.json")["peak_memory_bytes"] for trial in trials))
    return Done(seconds, peak, trials, tokens, speed)


def _speed_of_pack(counts: Sequence[dict[str, Any]]) -> tuple[int, float]:
    """Tokens of a pack's trials, and tokens a second: the seconds of a trial are its share of the pack's."""
    tokens = sum(count["tokens"] for count in counts)
    return tokens, tokens / sum(count["tokens"] / count["tokens_per_second"] for count in counts if count["tokens"])


def train_trl(model: Path, tokens: Path, trials: Sequence[Trial], layout: Layout, folder: Path, *, at_once: int = 1) -> Done:
    """Train every trial in a process of its own, `at_once` side by side, with the cores shared out."""
    threads = max(1, CORES // at_once)
    directories = [folder / f"{number}-{trial['trial_id']}" for number, trial in enumerate(trials)]
    jobs = []
    for trial, directory in zip(trials, directories, strict=True):
        shutil.rmtree(directory, ignore_errors=True)
        settings = {"hyperparameters": trial["hyperparameters"], "layout": layout, "threads": threads}
        command = [HERE / "trl_sft.py", "--model", model, "--tokens", tokens, "--outdir", directory]
        jobs.append(Job(command, settings, directory / "log", {"GLIBC_TUNABLES": MALLOC.get(layout["malloc"], "")}))
    seconds, used = run(jobs, at_once=at_once, threads=threads)
    clocks = [read_json(directory / "trl.json") for directory in directories]
    seen = sum(clock["tokens"][-1] for clock in clocks)
    return Done(seconds, _peak(used), directories, seen, seen * at_once / sum(clock["seconds"][-1] for clock in clocks))


def _peak(used: Sequence[Usage]) -> int:
    return max(process.peak_bytes for process in used)


def tuned(model: Path, folder: Path, kept: Path, steps: int, *, anew: bool = False, own_settings: bool = False) -> list[Tried]:
    """Every layout that was tried on the planned tokens of folder: now, or when `kept` was written; own_settings: only rows and attention, in bfloat16."""
    if anew or not kept.exists():
        print("layouts of TRL:")
        tuning = Tuning(model, folder, steps)
        tuning.run(ROUNDS[:1] if own_settings else ROUNDS, at_once=1 if own_settings else min(2, CORES))
        write_json(kept, tuning.tried)
    tried: list[Tried] = read_json(kept)
    return tried


def fastest(tried: Sequence[Tried]) -> Tried:
    """The one with the most tokens a second in one process that has all cores."""
    return max((one for one in tried if one["at_once"] == 1), key=lambda one: float(one["tokens_per_second"]))


def fastest_for_grid(tried: Sequence[Tried], trials: int, tokens: int) -> Tried:
    """That one, or two processes side by side, whichever would first finish so many trials of so many tokens, start-up included."""

    def seconds(one: Tried) -> float:
        each: float = one["start_up_seconds"] + tokens * one["at_once"] / one["tokens_per_second"]
        rounds: int = math.ceil(trials / one["at_once"])
        return rounds * each

    return min([fastest(tried), *(one for one in tried if one["at_once"] > 1)], key=seconds)


class Tuning:
    """The search for the layout in which TRL is fastest on this machine and these tokens."""

    def __init__(self, model: Path, folder: Path, steps: int) -> None:
        self.model, self.tokens, self.folder = model, folder / "tokens", folder / "tuning"
        trial = planned(folder)[0]["trials"][0]
        epochs = steps * BATCH / read_json(self.tokens / "tokens.json")["splits"]["train"]["examples"]
        self.trial = trial | {"hyperparameters": trial["hyperparameters"] | {"num_train_epochs": epochs}}
        self.tried: list[Tried] = []

    def run(self, rounds: Sequence[Sequence[Layout]], at_once: int) -> None:
        """Rounds in one process that has all cores, then the best of them in as many as share the cores."""
        self.measure(DEFAULTS)
        best = START
        for alternatives in rounds:
            for layout in (best | change for change in alternatives):
                if layout["rows"] in PADDED or layout["order"] == "random":  # where nothing is padded, sorting by length saves nothing
                    self.measure(layout)
            best = fastest(self.tried)["layout"]
        if at_once > 1:
            self.measure(best, at_once)

    def measure(self, layout: Layout, at_once: int = 1) -> None:
        """tokens_per_second: of all processes together, once warm; start_up_seconds: of a process, all but its training loop."""
        done = train_trl(self.model, self.tokens, [self.trial] * at_once, layout, self.folder, at_once=at_once)
        clocks = [read_json(directory / "trl.json") for directory in done.trials]
        warm = sum((c["tokens"][-1] - c["tokens"][WARM_UP]) / (c["seconds"][-1] - c["seconds"][WARM_UP]) for c in clocks)
        start_up = done.seconds - max(clock["seconds"][-1] for clock in clocks)
        self.tried.append({"layout": layout, "at_once": at_once, "tokens_per_second": round(warm, 1), "start_up_seconds": round(start_up, 1)})
        changed = {name: value for name, value in layout.items() if value != START[name]}
        print(f"  {warm:7.1f} tokens/s, {start_up:4.1f} s to start, {at_once} at once, {changed or START}", flush=True)
