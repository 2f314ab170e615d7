#!/usr/bin/env python3
"""Divide records into train, validation and test, and describe the data set.

    split_dataset.py --records deduplicated.parquet --receipts */collect_source.json ... --dropped */*.dropped.parquet ... < settings.json

The settings hold the groups splitting and personal_data. Writes the directory dataset/ (train, validation, test and dropped.parquet, dataset.json) and
the receipt split_dataset.json. Splits that the user gave are kept (but see read_index). The rest is drawn: within each source (or label) the records are put in
the order of a hash of seed and content, and cut; so the same records and seed give the same split, whatever their order.
Records with the same prompt, or of the same person, are drawn as one, since the model would be tested on what it has seen otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llamaflow.data_params import PERSONAL_TYPES, Action, PersonalData, PersonalType, Splitting, actions_of
from llamaflow.errors import DataError, exits_cleanly
from llamaflow.files import read_json, sha256, write_json
from llamaflow.limits import LABELS_LISTED
from llamaflow.personal import Redactor
from llamaflow.records import DROPPED_SCHEMA, SPLITS, ParquetWriter, Record, fold, read_batches, read_rows, values
from llamaflow.steps import read_settings, receipt

STEP = "split_dataset"
STEPS_BEFORE = ("collect_source", "clean_records", "deduplicate_records")
CONVERSATIONS = ("messages", "prompt", "chosen")  # columns of what is trained on
NOT_GIVEN = -1
NOBODY = 0
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that different numbers stay different (Knuth, TAOCP 3, 6.4)
Numbers = np.ndarray[Any, Any]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of deduplicate_records")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="receipts of the steps before, for the funnel")
    parser.add_argument("--dropped", type=Path, nargs="*", default=[], help="what the steps before dropped")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(
    records: Path, receipts: Sequence[Path], dropped: Sequence[Path], splitting: Splitting, personal: PersonalData, outdir: Path, settings: Mapping[str, Any]
) -> None:
    with receipt(STEP, settings, outdir) as written:
        written.add_input(records)
        written.inputs |= {f"{number}/{path.name}": sha256(path) for number, path in enumerate([*receipts, *dropped], 1)}
        index = read_index(records, splitting)
        assigned = draw(index)
        _refuse_empty_splits(index, assigned)
        dataset = outdir / "dataset"
        dataset.mkdir(exist_ok=True)
        summary = _write_splits(records, assigned, dataset)
        _write_dropped(dropped, personal, dataset / "dropped.parquet")
        made = [read_json(path) for path in receipts]
        steps = funnel(made)
        for entry in steps:  # a source of which nothing is left is listed too
            summary["sources"].setdefault(entry["source"], {**dict.fromkeys(SPLITS, 0), "license": None, "type": None})
        description = {
            **summary,
            "prompts_in_several_splits": _straddling(index),
            "funnel": steps,
            "personal_data": {"action": personal.personal_data, "found": _personal_data(made)},
            "settings": splitting.model_dump(),
        }
        write_json(dataset / "dataset.json", description)
        written.add_output(dataset)
        written.counts = {"records": len(assigned), "splits": summary["splits"]}


@dataclass(frozen=True)
class Index:
    """What the draw needs of each record, as numbers: memory is 14 bytes a record."""

    groups: Numbers  # uint64: hash of seed and prompt; equal prompts are one group, and its order is the order of the draw
    given: Numbers  # int8: place in SPLITS, or NOT_GIVEN
    free: Numbers  # bool: to be drawn
    strata: Numbers  # int32: place in `fractions`
    fractions: list[tuple[float, float]]  # test, validation: shares to draw from each stratum; strata without a test share come first


def read_index(records: Path, splitting: Splitting) -> Index:
    """Read what the draw needs.

    If no record at all is given as validation, those given as train are free too, but not for test: most published data has
    only train and test, and the learning curves need a third part.
    """
    groups, subjects, given, kinds = array("Q"), array("Q"), array("b"), array("i")
    kind_of: dict[tuple[str, str, str | None], int] = {}
    for row in read_rows(records, ("id", "source", "type", "messages", "prompt", "label", "split", "meta")):
        groups.append(group_of(row, splitting.split_seed))
        subjects.append(subject_of(row, splitting.split_seed))
        given.append(SPLITS.index(row["split"]) if row["split"] else NOT_GIVEN)
        stratum = row["source"] if splitting.stratify_by == "source" else row["label"] or ""
        kinds.append(kind_of.setdefault((row["source"], stratum, row["split"]), len(kind_of)))
    strata, fractions = _strata(list(kind_of), splitting)
    places = np.array(given, dtype=np.int8)
    free = places == NOT_GIVEN
    if not (places == SPLITS.index("validation")).any():
        free |= places == SPLITS.index("train")
    return Index(
        joined(np.array(groups, dtype=np.uint64), np.array(subjects, dtype=np.uint64)), places, free, strata[np.array(kinds, dtype=np.int32)], fractions
    )


def _strata(kinds: Sequence[tuple[str, str, str | None]], splitting: Splitting) -> tuple[Numbers, list[tuple[float, float]]]:
    """Number the strata of all kinds of records (source, name of the stratum, given split), and say what to draw from each.

    A fraction is not drawn from a source for which the user gave that split, and test not from what was given as train.
    """
    provided = {(source, split) for source, _, split in kinds}
    keys = []
    for source, name, split in kinds:
        test = 0.0 if split or (source, "test") in provided else splitting.test_fraction
        validation = 0.0 if (source, "validation") in provided else splitting.validation_fraction
        keys.append((test, validation, name))
    place = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([place[key] for key in keys], dtype=np.int32), [(test, validation) for test, validation, _ in place]


def group_of(row: Record, seed: int) -> int:
    """Hash of the seed and the prompt (all but the last answer); texts without a prompt count by their id. 64 bits."""
    turns = row["messages"][:-1] if row["type"] == "chat" else row["prompt"]
    prompt = row["id"] if row["type"] == "text" else "\x1e".join(f"{turn['role']}\x1f{fold(turn['content'])}" for turn in turns)
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{prompt}".encode(), digest_size=8).digest())


def subject_of(row: Record, seed: int) -> int:
    """Hash of the seed and of whom the record is about; NOBODY if that is not known. 64 bits."""
    subject = row["meta"]["subject_id"]
    return int.from_bytes(hashlib.blake2b(f"{seed}\1{subject}".encode(), digest_size=8).digest()) if subject else NOBODY


def joined(groups: Numbers, subjects: Numbers) -> Numbers:
    """Groups that share a person become one: each takes the lowest number that a chain of shared prompts and people leads to."""
    known = subjects != NOBODY
    if not known.any():
        return groups
    prompt, person = np.unique(groups, return_inverse=True)[1], np.unique(subjects[known], return_inverse=True)[1]
    found = groups
    while True:
        before = found.copy()
        for members, place in ((known, person), (slice(None), prompt)):
            lowest = np.full(place.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
            np.minimum.at(lowest, place, found[members])
            found = found.copy()
            found[members] = lowest[place]
        if (found == before).all():
            return found * MIX  # the lowest of many is low, and low numbers are drawn first: mixed anew


def draw(index: Index) -> Numbers:
    """Give every record its place in SPLITS. int8."""
    groups, group_of_row, sizes = np.unique(index.groups, return_inverse=True, return_counts=True)
    # test before validation before train: a record whose prompt the user put into a split follows it there
    split_of_group = np.full(len(groups), NOT_GIVEN, dtype=np.int8)
    np.maximum.at(split_of_group, group_of_row[~index.free], index.given[~index.free])
    stratum_of_group = np.full(len(groups), len(index.fractions), dtype=np.int32)
    np.minimum.at(stratum_of_group, group_of_row[index.free], index.strata[index.free])
    undecided = np.flatnonzero(split_of_group == NOT_GIVEN)
    undecided = undecided[np.argsort(stratum_of_group[undecided], kind="stable")]  # within a stratum still by hash, as np.unique sorted them
    ends = np.searchsorted(stratum_of_group[undecided], np.arange(1, len(index.fractions)))
    carried = (0.0, 0.0)
    for fractions, members in zip(index.fractions, np.split(undecided, ends), strict=True):
        quotas, carried = quotas_of(int(sizes[members].sum()), fractions, carried)
        split_of_group[members] = _cut(sizes[members].tolist(), quotas)
    assigned = np.where(index.free, split_of_group[group_of_row], index.given)
    train, test = SPLITS.index("train"), SPLITS.index("test")
    return np.where((index.given == train) & (assigned == test), train, assigned)


def quotas_of(rows: int, fractions: tuple[float, float], carried: tuple[float, float]) -> tuple[tuple[int, int], tuple[float, float]]:
    """Rows for test and validation: within one row of the fraction, and what rounding leaves goes to the next stratum.

    Without that, a hundred labels with four records each would give no test record at all.
    """
    exact_test, exact_validation = rows * fractions[0] + carried[0], rows * fractions[1] + carried[1]
    test = min(rows, floor(exact_test + 0.5))
    validation = min(floor(exact_validation + 0.5), rows - test, int(rows * fractions[1]) + 1)
    return (test, validation), (exact_test - test, exact_validation - validation)


def _cut(sizes: Sequence[int], quotas: tuple[int, int]) -> list[int]:
    """Fill test, then validation, with the groups that still fit; the others train."""
    left = {SPLITS.index("test"): quotas[0], SPLITS.index("validation"): quotas[1]}
    result = []
    for size in sizes:
        split = next((split for split, room in left.items() if size <= room), SPLITS.index("train"))
        result.append(split)
        if split in left:
            left[split] -= size
    return result


def _refuse_empty_splits(index: Index, assigned: Numbers) -> None:
    for place, split in enumerate(SPLITS):
        if not (assigned == place).any():
            remedy = "lower --validation_fraction and --test_fraction" if split == "train" else f"raise --{split}_fraction"
            raise DataError(
                f"the split {split!r} would be empty: there are {len(assigned)} records with {len(np.unique(index.groups))} different prompts, "
                f"and records with the same prompt or the same subject_id stay together. Add data, {remedy}, or say in a column `split` which records belong to it."
            )


def _straddling(index: Index) -> int:
    """How many prompts the user gave in several splits: they are left there, but the test is easier for it."""
    order = np.lexsort((index.given, index.groups))
    groups, given = index.groups[order], index.given[order]
    is_change = (groups[1:] == groups[:-1]) & (given[1:] != given[:-1]) & (given[:-1] != NOT_GIVEN)
    return len(np.unique(groups[1:][is_change]))


def _write_splits(records: Path, assigned: Numbers, dataset: Path) -> dict[str, Any]:
    counts: Counter[tuple[Any, ...]] = Counter()
    characters, texts, digest, position = Counter[str](), {split: Counter[str]() for split in SPLITS}, 0, 0
    with ExitStack() as stack:
        writers = [stack.enter_context(ParquetWriter(dataset / f"{split}.parquet")) for split in SPLITS]
        for batch in read_batches(records):
            places = assigned[position : position + batch.num_rows]
            position += batch.num_rows
            for place, split in enumerate(SPLITS):
                rows = batch.filter(pa.array(places == place))
                writers[place].write_batch(rows)
                characters[split] += _characters(rows, "text", *CONVERSATIONS, "rejected")
                texts[split].update(_texts(rows))
                digest += sum(_id_number(split, identity) for identity in values(rows, "id"))
                meta = rows["meta"]
                columns = (rows["source"], rows["type"], rows["label"], pc.struct_field(meta, "language"), pc.struct_field(meta, "license"))
                counts.update((split, *row) for row in zip(*(column.to_pylist() for column in columns), strict=True))
    return _summary(counts, characters, digest) | {"texts": texts}


def _id_number(split: str, identity: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{split}\0{identity}".encode()).digest())


def _characters(rows: pa.RecordBatch, *columns: str) -> int:
    return sum(_sum(pc.utf8_length(text)) for text in _strings(rows, "content", columns))


def _texts(rows: pa.RecordBatch) -> dict[str, int]:
    """What tells how many tokens there will be to train on (llamaflow.lengths); of a preference, the chosen answer."""
    roles = _strings(rows, "role", CONVERSATIONS)
    return {
        "characters": _characters(rows, "text", *CONVERSATIONS),
        "bytes": sum(_sum(pc.binary_length(text)) for text in _strings(rows, "content", ("text", *CONVERSATIONS))),
        "conversations": _sum(pc.not_equal(rows["type"], pa.scalar("text"))),
        "messages": sum(map(len, roles)),
        "system_messages": sum(_sum(pc.equal(role, pa.scalar("system"))) for role in roles),
    }


def _strings(rows: pa.RecordBatch, field: str, columns: Sequence[str]) -> list[Any]:
    """The column `text` as it is, and a field of all messages in each of the other columns."""
    return [rows[name] if name == "text" else pc.struct_field(pc.list_flatten(rows[name]), field) for name in columns]


def _sum(numbers: Any) -> int:
    return int(pc.sum(numbers).as_py() or 0)


def _summary(counts: Counter[tuple[Any, ...]], characters: Counter[str], digest: int) -> dict[str, Any]:
    totals, types, languages = Counter[str](), Counter[str](), Counter[str]()
    sources: dict[str, dict[str, Any]] = {}
    labels: dict[str, Counter[str]] = {}
    for (split, source, kind, label, language, license_name), count in counts.items():
        entry = sources.setdefault(source, {**dict.fromkeys(SPLITS, 0), "license": set(), "type": set()})
        entry[split] += count
        entry["license"].add(license_name)
        entry["type"].add(kind)
        totals[split] += count
        types[kind] += count
        languages[language or "unknown"] += count
        if label:
            labels.setdefault(label, Counter())[split] += count
    for entry in sources.values():
        entry |= {name: ", ".join(sorted(filter(None, entry[name]))) or None for name in ("license", "type")}
    most = sorted(labels, key=lambda label: (-labels[label].total(), label))[:LABELS_LISTED]
    return {
        # a sum, so that the order of the records does not matter and nothing has to be sorted
        "sha256": f"{digest % 2**256:064x}",
        "splits": {split: totals[split] for split in SPLITS},
        "sources": dict(sorted(sources.items())),
        "labels": {label: {split: labels[label][split] for split in SPLITS} for label in most},
        "types": dict(sorted(types.items())),
        "languages": dict(sorted(languages.items())),
        "characters": {split: {"total": characters[split], "mean": round(characters[split] / totals[split], 1)} for split in SPLITS},
    }


def funnel(receipts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each step kept and dropped of each source, in the order of the steps."""
    entries = [
        {"step": made["step"], "source": source, "kept": counts["kept"], "dropped": counts["dropped"]}
        for made in receipts
        if made["step"] in STEPS_BEFORE
        for source, counts in made["counts"].get("sources", {}).items()
    ]
    return sorted(entries, key=lambda entry: (STEPS_BEFORE.index(entry["step"]), entry["source"]))


def _personal_data(receipts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How many of each type were found in each source."""
    return dict(sorted(entry for made in receipts for entry in made["counts"].get("personal_data", {}).items()))


def _write_dropped(files: Sequence[Path], personal: PersonalData, target: Path) -> None:
    """All that was dropped. What is personal in rows that could not even be read goes here; the steps after that saw to it themselves."""
    actions = actions_of(personal.personal_data)
    masked: dict[PersonalType, Action] = {kind: "keep" if actions[kind] == "keep" else "mask" for kind in PERSONAL_TYPES}
    with ParquetWriter(target, DROPPED_SCHEMA) as writer:
        for file in files:
            for row in read_rows(file):
                if row["step"] == STEPS_BEFORE[0]:
                    row["record"] = Redactor(masked, personal.phone_regions)(row["record"])
                writer.write(row)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    splitting, personal = Splitting.model_validate(settings.get("splitting", {})), PersonalData.model_validate(settings.get("personal_data", {}))
    run(args.records, args.receipts, args.dropped, splitting, personal, args.outdir, settings)


if __name__ == "__main__":
    main()
