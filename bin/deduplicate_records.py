#!/usr/bin/env python3
"""Drop records that say the same as another one, or nearly the same, within and across sources.

    deduplicate_records.py --records faq.parquet manual.parquet [--receipts */clean_records.json]
        [--erase subjects.txt] [--previous data/] [--benchmarks gsm8k.jsonl ...] < settings.json

The settings hold the groups deduplication and collection. Writes deduplicated.parquet, deduplicate_records.dropped.parquet and the receipt
deduplicate_records.json. All records are together for the first time: a source of which cleaning dropped too many is refused here.
Of the records of a cluster one is kept: first of all one of the test or the validation split that the user gave, since what is tested must
not stand in the training data too; then as keep_duplicate says. What nearly equals a test record of an earlier run, and will be no test record
itself, is left out, and so is what contains a question of a benchmark. A new record that nearly equals one that an earlier run trained or validated
with says so (meta.replaces), and split_dataset gives it the same split. A cluster with a record of somebody to be erased is left out whole,
and nothing of its text is written. Memory grows by about 100 bytes a record, those of the earlier run included.
"""

from __future__ import annotations

import argparse
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llamaflow.benchmarks import Benchmarks
from llamaflow.data_params import Collection, Deduplication
from llamaflow.errors import DataError, exits_cleanly
from llamaflow.faults import refuse_what_cleaning_left
from llamaflow.files import read_json, sha256
from llamaflow.identities import group_of, number_of, subject_of
from llamaflow.mixture import sampled
from llamaflow.previous import NOT_GIVEN, Previous, read_previous
from llamaflow.previous_files import files_of
from llamaflow.records import SPLITS, DroppedWriter, ParquetWriter, Record, count_rows, read_batches, seconds_of, texts_of, values
from llamaflow.similar import Array, Similarities
from llamaflow.steps import read_settings, receipt
from llamaflow.subjects import people_of, read_subjects
from llamaflow.words import compared

STEP = "deduplicate_records"
KEPT, REASONS = 0, ("", "exact duplicate", "near-duplicate", "erased on request", "near-duplicate of an earlier test record", "beyond max_records")  # by number
EXACT, NEAR, ERASED, EARLIER, BEYOND = range(1, 6)
WITHOUT_TEXT = (ERASED, BEYOND)
STAYS, TESTED, VALIDATING, OTHER = range(4)  # ranks: test record of the earlier run, will be test, given as validation; the lowest is kept
TEST = SPLITS.index("test")
TEXTS = ("text", "messages", "prompt", "chosen", "rejected")
CLUSTER_SIZES = (2, 3, 5, 10, 100)  # from ... on, for the receipt


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="records of clean_records, in the order of the sources")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="receipts of clean_records")
    parser.add_argument("--erase", type=Path, help="a subject_id a line")
    parser.add_argument("--previous", type=Path, help="train, validation and test.parquet of an earlier run")
    parser.add_argument("--benchmarks", type=Path, nargs="*", default=[], help="files with questions of which nothing is to be trained on")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Inputs:
    """The files."""

    records: Sequence[Path]  # of clean_records, in the order of the sources
    receipts: Sequence[Path] = ()  # of clean_records
    erase: Path | None = None
    previous: Path | None = None
    benchmarks: Sequence[Path] = ()


def run(given: Inputs, rules: Deduplication, collection: Collection, outdir: Path, settings: Mapping[str, Any]) -> None:
    deduplicated, rejected = outdir / "deduplicated.parquet", outdir / f"{STEP}.dropped.parquet"
    with receipt(STEP, settings, outdir) as written:
        reference = files_of(given.previous) if given.previous else []
        inputs = [*given.records, *reference, *given.benchmarks]
        written.inputs = {f"{number}/{path.name}": sha256(path) for number, path in enumerate(inputs, 1)}  # the names may all be the same
        refuse_what_cleaning_left([read_json(path)["counts"] for path in given.receipts], collection.max_dropped_fraction)
        subjects = read_subjects(given.erase)
        index = read_index(given.records, reference, rules, subjects, read_previous(given.previous, 0) if given.previous else None)
        clusters = clusters_of([*given.records, *reference], index, rules.near_duplicate_threshold, outdir)
        verdicts, reasons, known = judge(index, clusters), list(REASONS), Benchmarks(given.benchmarks)
        _refuse_nothing(verdicts, "all belong to people in --erase_subjects, or nearly equal what they said or what --previous_dataset was tested with")
        if given.benchmarks:
            decontaminate(given.records, index, verdicts, known, reasons)
            _refuse_nothing(verdicts, "all that are not duplicates contain questions of --decontaminate_against")
        sample(given.records, verdicts, settings.get("max_records_of", {}), rules.max_records)
        with ParquetWriter(deduplicated) as kept, DroppedWriter(rejected, STEP) as dropped:
            _write(given.records, verdicts, reasons, replaced(index, clusters, verdicts), kept, dropped)
        written.add_output(deduplicated)
        written.add_output(rejected)
        counts = Counter(source for batch in read_batches(deduplicated, ("source",)) for source in values(batch, "source"))
        by_source = {source: {"kept": counts[source], "dropped": dropped.by_source.get(source, {})} for source in sorted({*counts, *dropped.by_source})}
        written.counts = {"records": kept.count, "dropped": dropped.reasons, "sources": by_source, "clusters": _sizes(clusters[index.is_record])}
        if given.erase:
            written.counts["subjects"] = {"asked": len(subjects), "found": index.subjects_found}
        if given.benchmarks:
            written.counts["benchmarks"] = known.counts


def _write(records: Sequence[Path], verdicts: Array, reasons: Sequence[str], instead: Mapping[int, str], kept: ParquetWriter, dropped: DroppedWriter) -> None:
    """Write what is kept, and the rest with the reason."""
    for position, batch in _batches(records):
        rows = range(position, position + batch.num_rows)
        here = verdicts[rows.start : rows.stop]
        kept.write_batch(_noted(batch, [instead.get(row) for row in rows] if instead else []).filter(pa.array(here == KEPT)))
        for verdict, record in zip(here[here != KEPT], batch.filter(pa.array(here != KEPT)).to_pylist(), strict=True):
            dropped.drop(record["source"], record["meta"]["location"], reasons[verdict], "" if verdict in WITHOUT_TEXT else record)


def _noted(batch: pa.RecordBatch, replaced: Sequence[str | None]) -> pa.RecordBatch:
    """The batch with the ids of the earlier records whose places its rows take."""
    if not any(replaced):
        return batch
    meta: Any = batch["meta"]
    parts = [pa.array(replaced, pa.string()) if field.name == "replaces" else part for field, part in zip(meta.type, meta.flatten(), strict=True)]
    return batch.set_column(batch.schema.get_field_index("meta"), "meta", pa.StructArray.from_arrays(parts, fields=list(meta.type)))


@dataclass(frozen=True)
class Index:
    """What is decided by of all rows, counted through all files in order, those of the reference last."""

    ids: Array  # 16 bytes each
    contents: Array  # int64: equal numbers for equal ids
    known: Array  # int8: place in SPLITS of the same record in the earlier run, or NOT_GIVEN
    ranks: Array  # int8: STAYS to OTHER
    merits: Array  # float64: the highest one is kept
    erased: Array  # bool: of somebody who is to be erased
    is_record: Array  # bool: not of the reference
    subjects_found: int


def read_index(records: Sequence[Path], reference: Sequence[Path], rules: Deduplication, subjects: frozenset[str], previous: Previous | None = None) -> Index:
    identities, known, ranks, merits, erased, found = bytearray(), array("b"), array("b"), array("d"), bytearray(), set[str]()
    columns = ("id", "split", "meta", *(("type", "messages", "prompt") if previous else ()), *(TEXTS if rules.keep_duplicate == "longest" else ()))
    for _, batch in _batches([*records, *reference], tuple(dict.fromkeys(columns))):
        rows = batch.to_pylist()
        same, places = _earlier(rows, previous)
        known.extend(same)
        ranks.extend(map(_rank, (row["split"] for row in rows), same, places))
        for record in rows:
            identities += bytes.fromhex(record["id"])
            merits.append(merit(record, rules.keep_duplicate))
            people = subjects.intersection(people_of(record["meta"]["subject_id"]))
            erased.append(bool(people))
            found |= people
    keys = np.frombuffer(identities, dtype=np.dtype((np.void, 16)))
    contents = np.unique(keys, return_inverse=True)[1] if len(keys) else np.zeros(0, dtype=np.int64)
    is_record = np.arange(len(keys)) < len(keys) - sum(map(count_rows, reference))
    return Index(keys, contents, np.array(known), np.array(ranks), np.array(merits), np.frombuffer(erased, dtype=bool), is_record, len(found))


def _earlier(rows: Sequence[Record], previous: Previous | None) -> tuple[Array, Array]:
    """int8: where the same records were in the earlier run, and where they go for its sake (llamaflow.splits); or NOT_GIVEN."""
    if previous is None or not rows:
        nowhere = np.full(len(rows), NOT_GIVEN, dtype=np.int8)
        return nowhere, nowhere
    keys = zip(*((number_of(row), group_of(row, 0), subject_of(row, 0)) for row in rows), strict=True)
    ids, prompts, people = (np.array(numbers, dtype=np.uint64) for numbers in keys)
    return previous.same(ids), previous.place(ids, prompts, people)


def _rank(split: str | None, was: int, place: int) -> int:
    """Which record of a cluster is kept first."""
    if was == TEST:
        return STAYS
    return {"test": TESTED, "validation": VALIDATING, None: TESTED if place == TEST else OTHER}.get(split, OTHER)


def merit(record: Record, keep: str) -> float:
    """What speaks for a record among its near-duplicates: its length, or its date in seconds since 1970; nothing if the first is kept."""
    if keep == "longest":
        return sum(map(len, texts_of(record)))
    if keep == "newest":
        made = seconds_of(record["meta"]["created_at"])
        return -np.inf if made is None else made
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
    """int16 [rows]: KEPT, or why not. Rows of the reference come last in a cluster, so that they are kept only where no record could be."""
    tested = ~index.is_record & (index.known == TEST)
    order = np.lexsort((np.arange(len(clusters)), -index.merits, index.ranks, ~index.is_record, clusters))
    verdicts = np.full(len(clusters), NEAR, dtype=np.int16)
    best_of_content = order[np.unique(index.contents[order], return_index=True)[1]]
    is_repeated = np.ones(len(clusters), dtype=bool)
    is_repeated[best_of_content] = False
    verdicts[is_repeated] = EXACT
    best = order[np.unique(clusters[order], return_index=True)[1]]
    verdicts[best] = np.where(np.isin(clusters[best], clusters[tested]) & (index.ranks[best] > TESTED), EARLIER, KEPT)
    verdicts[~is_repeated & (index.ranks == STAYS) & index.is_record] = KEPT  # also where a new record is near to several of them
    verdicts[np.isin(clusters, clusters[index.erased])] = ERASED
    return verdicts[index.is_record]


def replaced(index: Index, clusters: Array, verdicts: Array) -> dict[int, str]:
    """By row, the id of the record of the earlier run, nearly equal and no test record, whose place a new one takes."""
    new = np.flatnonzero((verdicts == KEPT) & (index.known[: len(verdicts)] == NOT_GIVEN))
    earlier = np.flatnonzero((index.known != NOT_GIVEN) & (index.known != TEST))
    _, mine, theirs = np.intersect1d(clusters[new], clusters[earlier], return_indices=True)
    return {int(row): index.ids[other].tobytes().hex() for row, other in zip(new[mine], earlier[theirs], strict=True)}


def decontaminate(records: Sequence[Path], index: Index, verdicts: Array, known: Benchmarks, reasons: list[str]) -> None:
    """Of those that are kept, mark what contains a question of a benchmark; a reason for each benchmark is added to `reasons`. Before a sample is drawn, so that it is not short of them."""
    numbers = {"": KEPT}
    for position, batch in _batches(records, TEXTS):
        kept = np.flatnonzero(verdicts[position : position + batch.num_rows] == KEPT)
        found = known.reasons(map(compared, batch.take(kept).to_pylist()), index.ranks[position + kept] <= TESTED)
        for reason in sorted(set(found) - set(numbers)):
            numbers[reason] = len(reasons)
            reasons.append(reason)
        verdicts[position + kept] = [numbers[reason] for reason in found]


def sample(records: Sequence[Path], verdicts: Array, limits: Mapping[str, int], most: int | None) -> None:
    """Of those that are kept, mark what is beyond max_records: of a source, or of all."""
    if not limits and most is None:
        return
    orders, places, codes = array("Q"), array("i"), dict[str, int]()
    for _, batch in _batches(records, ("id", "source")):
        orders.extend(int(identity[:16], 16) for identity in values(batch, "id"))
        places.extend(codes.setdefault(source, len(codes)) for source in values(batch, "source"))
    kept = np.flatnonzero(verdicts[: len(orders)] == KEPT)
    of_code = {codes[source]: limit for source, limit in limits.items() if source in codes}
    verdicts[kept[~sampled(np.array(orders)[kept], np.array(places)[kept], of_code, most)]] = BEYOND


def _refuse_nothing(verdicts: Array, why: str) -> None:
    if len(verdicts) and not (verdicts == KEPT).any():
        raise DataError(f"no record is left: {why}.")


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
    run(Inputs(args.records, args.receipts, args.erase, args.previous, args.benchmarks), rules, collection, args.outdir, settings)


if __name__ == "__main__":
    main()
