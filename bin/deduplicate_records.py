#!/usr/bin/env python3
"""Drop records that say the same as another one, within and across sources.

    deduplicate_records.py --records faq.parquet manual.parquet

Writes deduplicated.parquet, deduplicate_records.dropped.parquet and the receipt deduplicate_records.json.
Of equal records (equal ids, see records.content_id) the first one is kept, unless a later one belongs to the test or the validation
split that the user gave: a test record must not stand in the training data too. Ids are kept on disk, so memory does not grow with the data.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llamaflow.errors import exits_cleanly
from llamaflow.files import sha256
from llamaflow.records import DroppedWriter, ParquetWriter, count_rows, read_batches, values
from llamaflow.steps import read_settings, receipt

STEP = "deduplicate_records"
REASON = "exact duplicate"
RANKS = {"test": 0, "validation": 1}  # the lowest rank is kept; all other records have 2


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="records of clean_records, one file a source")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(records: Sequence[Path], outdir: Path, settings: Mapping[str, Any]) -> None:
    deduplicated, rejected = outdir / "deduplicated.parquet", outdir / f"{STEP}.dropped.parquet"
    counts: Counter[str] = Counter()
    with receipt(STEP, settings, outdir) as written:
        written.inputs = {f"{number}/{path.name}": sha256(path) for number, path in enumerate(records, 1)}  # the names may all be the same
        is_kept = kept_positions(records, outdir)
        with ParquetWriter(deduplicated) as kept, DroppedWriter(rejected, STEP) as dropped:
            for position, batch in _batches(records):
                mask = is_kept[position : position + batch.num_rows]
                chosen = batch.filter(pa.array(mask))
                kept.write_batch(chosen)
                counts.update(values(chosen, "source"))
                for record in batch.filter(pa.array(~mask)).to_pylist():
                    dropped.drop(record["source"], record["meta"]["location"], REASON, record)
        written.add_output(deduplicated)
        written.add_output(rejected)
        by_source = {source: {"kept": counts[source], "dropped": dropped.by_source.get(source, {})} for source in sorted({*counts, *dropped.by_source})}
        written.counts = {"records": kept.count, "dropped": dropped.reasons, "sources": by_source}


def kept_positions(records: Sequence[Path], directory: Path) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of all rows, counted through all files in order, are kept."""
    is_kept = np.zeros(sum(map(count_rows, records)), dtype=bool)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".ids-") as scratch, closing(sqlite3.connect(f"{scratch}/ids.sqlite", isolation_level=None)) as ids:
        ids.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;"
            "CREATE TABLE kept (id BLOB PRIMARY KEY, rank INTEGER, position INTEGER) WITHOUT ROWID"
        )
        ids.execute("BEGIN")
        for start, batch in _batches(records, ("id", "split")):
            rows = zip(values(batch, "id"), values(batch, "split"), strict=True)
            ids.executemany(
                "INSERT INTO kept VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET rank = excluded.rank, position = excluded.position WHERE excluded.rank < rank",
                [(bytes.fromhex(identity), RANKS.get(split, 2), start + row) for row, (identity, split) in enumerate(rows)],
            )
        for (position,) in ids.execute("SELECT position FROM kept"):
            is_kept[position] = True
    return is_kept


def _batches(records: Sequence[Path], columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
    """All batches of all files, each with the position of its first row."""
    position = 0
    for path in records:
        for batch in read_batches(path, columns):
            yield position, batch
            position += batch.num_rows


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    run(args.records, args.outdir, read_settings())


if __name__ == "__main__":
    main()
