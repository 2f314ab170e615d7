"""Which record belongs to which split: what the user gave, and the draw of the rest.

Within each source (or label) the records are put in the order of a hash of seed and content, and cut; so the same records and seed give
the same split, whatever their order. Records with the same prompt, or of the same person, are drawn as one, since the model would be
tested on what it has seen otherwise.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from llamaflow.data_params import Splitting
from llamaflow.errors import DataError
from llamaflow.records import SPLITS, Record, fold, read_rows

NOT_GIVEN = -1
NOBODY = 0
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that different numbers stay different (Knuth, TAOCP 3, 6.4)
Numbers = np.ndarray[Any, Any]


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


def refuse_empty_splits(index: Index, assigned: Numbers) -> None:
    for place, split in enumerate(SPLITS):
        if not (assigned == place).any():
            remedy = "lower --validation_fraction and --test_fraction" if split == "train" else f"raise --{split}_fraction"
            raise DataError(
                f"the split {split!r} would be empty: there are {len(assigned)} records with {len(np.unique(index.groups))} different prompts, "
                f"and records with the same prompt or the same subject_id stay together. Add data, {remedy}, or say in a column `split` which records belong to it."
            )


def straddling(index: Index) -> int:
    """How many prompts the user gave in several splits: they are left there, but the test is easier for it."""
    order = np.lexsort((index.given, index.groups))
    groups, given = index.groups[order], index.given[order]
    is_change = (groups[1:] == groups[:-1]) & (given[1:] != given[:-1]) & (given[:-1] != NOT_GIVEN)
    return len(np.unique(groups[1:][is_change]))
