#!/usr/bin/env python3
"""What a run costs beside its trials: a finished grid run again, and with one trial more. See README.md.

overhead.py --cache DIR
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import time
from pathlib import Path

import common

RATES = ("1e-3", "2e-3", "4e-3")  # the last one is added to a grid of the others
OWN = ("TRAIN_TRIALS", "EVALUATE_MODEL")  # the tasks that a trial is for
UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where the runs take place; made anew in it")
    parser.add_argument("--results", type=Path, default=common.RESULTS / "overhead.json")
    args = parser.parse_args()
    folder, figures = args.cache / "overhead", common.begin(args)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    figures["first"] = run(folder, RATES[:-1])
    figures["again"] = run(folder, RATES[:-1])
    figures["one_more"] = run(folder, RATES)
    own, added = figures["one_more"]["own_seconds"], figures["one_more"]["seconds"]
    figures |= {"one_more_to_its_own_time": round(added / own, 3), "again_to_first": round(figures["again"]["seconds"] / figures["first"]["seconds"], 3)}
    print(f"again: {figures['again']['seconds']:.0f} s of {figures['first']['seconds']:.0f} s; one trial more: {added:.0f} s, its own tasks {own:.0f} s")
    print(f"ratio: {figures['one_more_to_its_own_time']}")
    common.keep(args.results, figures)


def run(folder: Path, rates: tuple[str, ...]) -> dict[str, float]:
    """A run of the demo's grid with one rank and these learning rates, one trial a task; wall seconds, and those of its trials' own tasks."""
    command = ["nextflow", "-q", "run", str(common.HERE.parent), "-profile", "demo", "-resume", "--outdir", "results", "-ansi-log", "false"]
    command += ["--learning_rate", ",".join(rates), "--lora_r", "8", "--trials_per_task", "1"]
    start = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"NXF_OFFLINE": "true", "HF_HUB_OFFLINE": "1"})
    seconds = time.monotonic() - start
    return {"seconds": round(seconds, 1), "own_seconds": round(sum(own_seconds(folder / "results")), 1)}


def own_seconds(results: Path) -> list[float]:
    """Of the tasks of the last run that were not cached."""
    trace = max((results / "pipeline_info").glob("execution_trace*.txt"), key=lambda file: file.stat().st_mtime)
    with trace.open(newline="") as file:
        tasks = [task for task in csv.DictReader(file, delimiter="\t") if task["status"] == "COMPLETED" and task["process"].split(":")[-1] in OWN]
    return [sum(float(part.rstrip("mshd")) * UNITS[part.lstrip("0123456789.")] for part in task["realtime"].split()) for task in tasks]


if __name__ == "__main__":
    main()
