#!/usr/bin/env python3
"""Find the names of people in records with a model; what becomes of them, clean_records decides.

    find_names.py --records collected.parquet/00001.parquet --model model < settings.json

Texts are looked at as clean_records will have repaired them. Writes names.parquet, a row a record in their order with the names in it (as the record
itself, it never leaves the work directory), and the receipt find_names.json, which counts them.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from llamaflow.errors import exits_cleanly
from llamaflow.files import read_json
from llamaflow.models import use_task_threads
from llamaflow.names import NameFinder
from llamaflow.portions import portions
from llamaflow.records import ParquetWriter, Record, read_rows, texts_of
from llamaflow.steps import read_settings, receipt
from llamaflow.textrepair import repair

STEP = "find_names"
SCHEMA = pa.schema([("names", pa.list_(pa.string()))])
CHARACTERS_AT_ONCE = 1_000_000


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of collect_source")
    parser.add_argument("--model", type=Path, required=True, help="a model for token classification, of fetch_model")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(records: Path, model: Path, outdir: Path, settings: Mapping[str, Any]) -> None:
    found, counts = outdir / "names.parquet", Counter(records=0, with_names=0, names=0)
    with receipt(STEP, settings, outdir) as written:
        written.add_input(records)
        written.inputs["model"] = read_json(model / "model.json")["sha256"]
        finder = NameFinder(model)
        with ParquetWriter(found, SCHEMA) as writer:
            for texts in portions(map(texts_to_read, read_rows(records)), CHARACTERS_AT_ONCE):
                for names in names_of_each(texts, finder):
                    writer.write({"names": names})
                    counts.update(records=1, with_names=bool(names), names=len(names))
        written.add_output(found)
        written.counts = dict(counts)


def texts_to_read(record: Record) -> list[str]:
    return list(filter(None, map(repair, texts_of(record))))


def names_of_each(records: Sequence[list[str]], finder: NameFinder) -> Iterator[list[str]]:
    """The names of each record, each once; a text that several have, such as a system message, is read once."""
    texts = list(dict.fromkeys(text for record in records for text in record))
    found = dict(zip(texts, finder(texts), strict=True))
    yield from (list(dict.fromkeys(name for text in record for name in found[text])) for record in records)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    use_task_threads()
    run(args.records, args.model, args.outdir, settings)


if __name__ == "__main__":
    main()
