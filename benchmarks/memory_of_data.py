#!/usr/bin/env python3
"""Memory of each step that prepares data, with so many documents and with ten times as many. See README.md.

memory_of_data.py --cache DIRECTORY [--counts 2000,20000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common
from data_against_datatrove import ours, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--counts", default="2000,20000")
    parser.add_argument("--results", type=Path, default=common.RESULTS / "memory_of_data.json")
    args = parser.parse_args()
    peaks = {count: measure(args.cache, int(count)) for count in args.counts.split(",")}
    for step in next(iter(peaks.values())):
        print(f"{step:20}", *(f"{count} documents {used[step] / 2**20:.0f} MiB  " for count, used in peaks.items()))
    common.keep(args.results, common.begin(args) | {"peak_bytes": peaks})


def measure(cache: Path, count: int) -> dict[str, float]:
    """Largest resident set by step, in bytes."""
    folder, output = cache / f"documents{count}", cache / "prepared"
    write(folder, count, common.sentences(cache))
    peaks = {name: step["peak_bytes"] for name, step in ours(folder, output)["steps"].items()}
    splitting = common.step("split_dataset", "--records", output / "deduplicated.parquet", "--outdir", output, settings={"splitting": {}}, log=output)
    return peaks | {"split_dataset": common.run([splitting])[1][0].peak_bytes}


if __name__ == "__main__":
    main()
