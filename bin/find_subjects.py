#!/usr/bin/env python3
"""Which models had seen the data of people who ask to be forgotten.

find_subjects.py forget.txt results/ [more results/ ...]

Looks through the results of runs, which may lie anywhere below the directories that are given. Nothing is changed; no subject_id is printed.
Not a step of the pipeline: people call it as `llamaflow find-subjects`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.files import read_json
from llamaflow.records import SPLITS, read_rows
from llamaflow.subjects import people_of, read_subjects

COPIES = ("exact duplicate", "near-duplicate")  # dropped, since a record that says the same was kept


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llamaflow find-subjects", description="Say which models had seen the data of people who ask to be forgotten.")
    parser.add_argument("subjects", type=Path, help="a text file with one subject_id a line, as for --erase_subjects")
    parser.add_argument("results", type=Path, nargs="+", help="output directories of runs, or directories above them")
    return parser.parse_args(argv)


def run(subjects: Path, results: Sequence[Path]) -> list[str]:
    """A line a run that had their data, and a last one with what to do. Raises UsageError if a file or the results are not there."""
    if not subjects.is_file():
        raise UsageError(f"there is no file {subjects}. It holds one subject_id a line.")
    asked = read_subjects(subjects)
    runs = [directory for root in results for directory in runs_in(root)]
    found = [(directory, *seen_in(directory / "data", asked)) for directory in runs]
    lines = [line for directory, counts, people in found if counts for line in told(directory, counts, people, len(asked))]
    listed = f"{len(runs)} run{'s' * (len(runs) != 1)} looked through"
    if not lines:
        return [f"None of them is in the data of any run ({listed})."]
    return [
        *lines,
        f"{listed}. To forget: train anew with --erase_subjects {subjects}, then delete these results, their releases wherever they were copied to, and work directories.",
    ]


def runs_in(root: Path) -> Iterator[Path]:
    """Output directories of runs. Raises UsageError if there is none."""
    found = sorted(index.parent for index in root.rglob("index.json") if (index.parent / "data" / "train.parquet").exists())
    if not found:
        raise UsageError(f"there are no results of a run in {root}: no index.json with data/train.parquet beside it. Give the --outdir of a run.")
    yield from found


def seen_in(data: Path, asked: frozenset[str]) -> tuple[Counter[str], int]:
    """How many of their records each split has, and how many were dropped as copies of others; and whose, as a number of people."""
    counts, people = Counter[str](), set[str]()
    for place, subject in _subjects_in(data):
        if found := asked.intersection(people_of(subject)):
            counts[place] += 1
            people |= found
    return counts, len(people)


def _subjects_in(data: Path) -> Iterator[tuple[str, str | None]]:
    """Whom each record is about, with its split, or copies for what was dropped as a copy of another."""
    for split in SPLITS:
        yield from ((split, row["meta"]["subject_id"]) for row in read_rows(data / f"{split}.parquet", ("meta",)))
    yield from (("copies", row["subject_id"]) for row in read_rows(data / "dropped.parquet", ("subject_id", "reason")) if row["reason"] in COPIES)


def told(directory: Path, counts: Counter[str], people: int, asked: int) -> list[str]:
    index = read_json(directory / "index.json")
    model = f"released {index['release']}" if index["release"] else "nothing released, but its trials were trained"
    records = ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
    copies = f"{counts['copies']} that a kept record equals or nearly equals" if counts["copies"] else ""
    return [f"{directory}: {model}; {people} of {asked} people, records: {', '.join(filter(None, (records, copies)))}"]


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    print("\n".join(run(args.subjects, args.results)))


if __name__ == "__main__":
    exits_cleanly(main)()
