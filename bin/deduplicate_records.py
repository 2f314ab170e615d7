#!/usr/bin/env python3
"""Drop records that say the same as another one, or nearly the same, within and across sources.

    deduplicate_records.py --records faq.parquet manual.parquet [--receipts */clean_records.json] [--erase subjects.txt] < settings.json

The settings hold the groups deduplication and collection. Writes deduplicated.parquet, deduplicate_records.dropped.parquet and the receipt deduplicate_records.json.
Of the records of a cluster one is kept: first of all one of the test or the validation split that the user gave, since what is tested must
not stand in the training data too; then as keep_duplicate says. A cluster with a record of somebody to be erased is left out whole,
and nothing of its text is written. Here all records are together for the first time, so a source that lost too many is refused here. Memory grows by about 100 bytes a record.
"""

from __future__ import annotations

import argparse
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llamaflow.data_params import Collection, Deduplication
from llamaflow.errors import DataError, exits_cleanly
from llamaflow.files import read_json, sha256
from llamaflow.records import EXAMPLES, DroppedWriter, Faults, ParquetWriter, Record, read_batches, refuse_too_many, texts_of, values
from llamaflow.similar import Array, Similarities, compared
from llamaflow.steps import read_settings, receipt
from llamaflow.subjects import read_subjects

STEP = "deduplicate_records"
KEPT, REASONS = 0, ("", "exact duplicate", "near-duplicate", "erased on request")  # by the number that a record gets
EXACT, NEAR, ERASED = 1, 2, 3
RANKS = {"test": 0, "validation": 1}  # the lowest rank is kept; all other records have 2
TEXTS = ("text", "messages", "prompt", "chosen", "rejected")
CLUSTER_SIZES = (2, 3, 5, 10, 100)  # from ... on, for the receipt


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="records of clean_records, in the order of the sources")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="receipts of clean_records")
    parser.add_argument("--erase", type=Path, help="a subject_id a line")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(
    records: Sequence[Path],
    receipts: Sequence[Path],
    rules: Deduplication,
    collection: Collection,
    erase: Path | None,
    outdir: Path,
    settings: Mapping[str, Any],
) -> None:
    deduplicated, rejected = outdir / "deduplicated.parquet", outdir / f"{STEP}.dropped.parquet"
    counts: Counter[str] = Counter()
    with receipt(STEP, settings, outdir) as written:
        written.inputs = {f"{number}/{path.name}": sha256(path) for number, path in enumerate(records, 1)}  # the names may all be the same
        refuse_what_cleaning_left([read_json(path)["counts"] for path in receipts], collection.max_dropped_fraction)
        subjects = read_subjects(erase)
        index = read_index(records, rules, subjects)
        clusters = clusters_of(records, index, rules.near_duplicate_threshold, outdir)
        verdicts = judge(index, clusters)
        _refuse_nothing(verdicts)
        with ParquetWriter(deduplicated) as kept, DroppedWriter(rejected, STEP) as dropped:
            for position, batch in _batches(records):
                mask = verdicts[position : position + batch.num_rows]
                chosen = batch.filter(pa.array(mask == KEPT))
                kept.write_batch(chosen)
                counts.update(values(chosen, "source"))
                for verdict, record in zip(mask[mask != KEPT], batch.filter(pa.array(mask != KEPT)).to_pylist(), strict=True):
                    dropped.drop(record["source"], record["meta"]["location"], REASONS[verdict], "" if verdict == ERASED else record)
        written.add_output(deduplicated)
        written.add_output(rejected)
        by_source = {source: {"kept": counts[source], "dropped": dropped.by_source.get(source, {})} for source in sorted({*counts, *dropped.by_source})}
        written.counts = {"records": kept.count, "dropped": dropped.reasons, "sources": by_source, "clusters": _sizes(clusters)}
        if erase:
            written.counts["subjects"] = {"asked": len(subjects), "found": index.subjects_found}


def refuse_what_cleaning_left(cleaned: Sequence[dict[str, Any]], fraction: float) -> None:
    """Raise DataError if no record is left at all, or a source lost too many of its own; a source may have been cleaned in several parts."""
    sources: dict[str, dict[str, Any]] = {}
    faults: dict[str, Faults] = {}
    for counts in cleaned:
        for source, part in counts["sources"].items():
            whole = sources.setdefault(source, {"kept": 0, "dropped": Counter()})
            whole["kept"] += part["kept"]
            whole["dropped"].update(part["dropped"])
        for source, found in counts["faults"].items():
            known = faults.get(source, {"reasons": {}, "first": []})
            reasons = Counter(known["reasons"]) + Counter(found["reasons"])
            faults[source] = {"reasons": dict(reasons), "first": sorted(known["first"] + found["first"])[:EXAMPLES]}
    refuse_too_many(faults, sources, fraction)
    if sources and not any(whole["kept"] for whole in sources.values()):
        reasons = sum((whole["dropped"] for whole in sources.values()), Counter[str]())
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        raise DataError(f"all records were dropped: {listed}. See the cleaning parameters in docs/parameters.md.")


@dataclass(frozen=True)
class Index:
    """What is decided by of all rows, counted through all files in order."""

    contents: Array  # int64: equal numbers for equal ids
    ranks: Array  # int8: see RANKS
    merits: Array  # float64: the highest one is kept
    erased: Array  # bool: of somebody who is to be erased
    subjects_found: int


def read_index(records: Sequence[Path], rules: Deduplication, subjects: frozenset[str]) -> Index:
    identities, ranks, merits, erased, found = bytearray(), array("b"), array("d"), bytearray(), set[str]()
    columns = ("id", "split", "meta", *(TEXTS if rules.keep_duplicate == "longest" else ()))
    for _, batch in _batches(records, columns):
        for record in batch.to_pylist():
            identities += bytes.fromhex(record["id"])
            ranks.append(RANKS.get(record["split"], 2))
            merits.append(merit(record, rules.keep_duplicate))
            subject = record["meta"]["subject_id"]
            erased.append(subject in subjects)
            found.update({subject} & subjects)
    keys = np.frombuffer(identities, dtype=np.dtype((np.void, 16)))
    contents = np.unique(keys, return_inverse=True)[1] if len(keys) else np.zeros(0, dtype=np.int64)
    return Index(contents, np.array(ranks), np.array(merits), np.frombuffer(erased, dtype=bool), len(found))


def merit(record: Record, keep: str) -> float:
    """What speaks for a record among its near-duplicates: its length, or its date in seconds since 1970; nothing if the first is kept."""
    if keep == "longest":
        return sum(map(len, texts_of(record)))
    if keep == "newest":
        try:
            made = datetime.fromisoformat(record["meta"]["created_at"] or "")
        except ValueError:
            return -np.inf
        return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    return 0.0


def clusters_of(records: Sequence[Path], index: Index, threshold: float, directory: Path) -> Array:
    """int64 [rows]: equal numbers for rows that say the same or nearly the same."""
    if threshold == 1 or not len(index.contents):
        return index.contents
    _, firsts = np.unique(index.contents, return_index=True)
    is_first = np.zeros(len(index.contents), dtype=bool)
    is_first[firsts] = True

    def texts() -> Iterator[str]:
        for position, batch in _batches(records, TEXTS):
            yield from map(compared, batch.filter(pa.array(is_first[position : position + batch.num_rows])).to_pylist())

    with tempfile.TemporaryDirectory(dir=directory, prefix=".texts-") as scratch:
        leaders = Similarities(texts(), Path(scratch)).clusters(threshold)
    cluster_of_content = np.empty(len(firsts), dtype=np.int64)
    cluster_of_content[index.contents[is_first]] = leaders
    return cluster_of_content[index.contents]


def judge(index: Index, clusters: Array) -> Array:
    """int8 [rows]: KEPT, or why not."""
    order = np.lexsort((np.arange(len(clusters)), -index.merits, index.ranks, clusters))
    verdicts = np.full(len(clusters), NEAR, dtype=np.int8)
    best_of_content = order[np.unique(index.contents[order], return_index=True)[1]]
    is_repeated = np.ones(len(clusters), dtype=bool)
    is_repeated[best_of_content] = False
    verdicts[is_repeated] = EXACT
    verdicts[order[np.unique(clusters[order], return_index=True)[1]]] = KEPT
    verdicts[np.isin(clusters, clusters[index.erased])] = ERASED
    return verdicts


def _refuse_nothing(verdicts: Array) -> None:
    if len(verdicts) and not (verdicts == KEPT).any():
        raise DataError("no record is left: all belong to people in --erase_subjects, or nearly equal what they said.")


def _sizes(clusters: Array) -> dict[str, int]:
    """How many clusters have two records, three to four, and so on."""
    sizes = np.unique(clusters, return_counts=True)[1]
    counts = np.histogram(sizes, bins=[*CLUSTER_SIZES, np.inf])[0]
    names = [str(low) if low == high - 1 else f"{low} to {high - 1}" for low, high in pairwise(CLUSTER_SIZES)]
    return {name: int(count) for name, count in zip([*names, f"{CLUSTER_SIZES[-1]} and more"], counts, strict=True) if count}


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
    settings = read_settings()
    rules, collection = Deduplication.model_validate(settings.get("deduplication", {})), Collection.model_validate(settings.get("collection", {}))
    run(args.records, args.receipts, rules, collection, args.erase, args.outdir, settings)


if __name__ == "__main__":
    main()
