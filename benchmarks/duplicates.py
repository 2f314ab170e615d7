#!/usr/bin/env python3
"""Near-duplicates that were planted in texts of drawn words: recall, precision, seconds and memory, with the texts and with ten times as many. See README.md.

duplicates.py [--count 20000]

Of ten texts one is a copy of an earlier one and one an earlier one with a word in sixty changed. What is as similar as the threshold
says, by exact Jaccard similarity, is to be dropped, and nothing else.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import common

from llamaflow.files import read_json
from llamaflow.records import ParquetWriter, content_id, read_rows
from llamaflow.similar import jaccard

THRESHOLD = 0.8
VOCABULARY = [f"word{number}" for number in range(30_000)]
WEIGHTS = list(accumulate(1 / (rank + 10) for rank in range(len(VOCABULARY))))  # as in language: Zipf's law


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--results", type=Path, default=common.RESULTS / "duplicates.json")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    figures = common.begin(args) | {"counts": {str(count): measure(count) for count in (args.count, 10 * args.count)}}
    small, large = figures["counts"].values()
    figures["ten_times_as_many"] = {name: round(large[name] / small[name], 2) for name in ("seconds", "peak_bytes")}
    print(figures["ten_times_as_many"])
    common.keep(args.results, figures)


def measure(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        planted = write(folder / "cleaned.parquet", count)
        common.run([common.step("deduplicate_records", "--records", folder / "cleaned.parquet", "--outdir", folder, settings={}, log=folder)])
        dropped = {int(row["location"]) for row in read_rows(folder / "deduplicate_records.dropped.parquet")}
        made = read_json(folder / "deduplicate_records.json")
    found = {
        "planted": len(planted),
        "recall": len(dropped & planted) / len(planted),
        "precision": len(dropped & planted) / len(dropped),
        "seconds": made["seconds"],
        "peak_bytes": made["peak_memory_bytes"],
    }
    print(count, found)
    return found


def write(path: Path, count: int) -> set[int]:
    """The places of the texts that are to be dropped."""
    planted = set()
    with ParquetWriter(path) as writer:
        for place, (text, original) in enumerate(texts(count)):
            if original is not None and jaccard(text, original) >= THRESHOLD:
                planted.add(place)
            record = {"source": "drawn", "type": "text", "text": text, "meta": {"location": str(place)}}
            writer.write({"id": content_id(record), **record})
    return planted


def texts(count: int) -> Iterator[tuple[str, str | None]]:
    """Texts, and what each was copied from: one of the last thousand that are no copies."""
    drawn, recent = random.Random(count), list[list[str]]()
    for place in range(count):
        if place % 10 > 7:
            words = drawn.choice(recent)
            changed = [word if place % 10 == 8 or drawn.random() > 1 / 60 else drawn.choice(VOCABULARY) for word in words]
            yield " ".join(changed), " ".join(words)
        else:
            words = drawn.choices(VOCABULARY, cum_weights=WEIGHTS, k=drawn.randint(50, 400))
            recent = [*recent[-999:], words]
            yield " ".join(words), None


if __name__ == "__main__":
    main()
