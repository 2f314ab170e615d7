"""Which record belongs to which split: what the user gave, and the draw of the rest.

Within each source (or label) the records are put in the order of a hash of seed and content, and cut; so the same records and seed give
the same split, whatever their order. Records with the same prompt, of the same person, or generated from the same text are drawn as one, since the model
would be tested on what it has seen otherwise. Records that an earlier run knew stay where they were, and only what is missing of the shares is drawn.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from llamaflow.data_params import Splitting
from llamaflow.errors import DataError
from llamaflow.identities import NOBODY, group_of, number_of, subject_of, text_of
from llamaflow.previous import NOT_GIVEN, Numbers, Previous
from llamaflow.records import SPLITS, read_rows

TRAIN, VALIDATION, TEST = range(len(SPLITS))
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that different numbers stay different (Knuth, TAOCP 3, 6.4)


@dataclass(frozen=True)
class Index:
    """What the draw needs of each record, as numbers: memory is 16 bytes a record."""

    groups: Numbers  # uint64: hash of seed and prompt; equal prompts are one group, and its order is the order of the draw
    given: Numbers  # int8: place in SPLITS as the user gave it, or test as it was in an earlier run; or NOT_GIVEN
    overruled: int  # how many the user gave otherwise than as the test records that they were
    known: Numbers  # int8: where the same record was in an earlier run, or NOT_GIVEN
    kept: Numbers  # int8: where it stays for the sake of the earlier run, or NOT_GIVEN
    free: Numbers  # bool: to be drawn
    strata: Numbers  # int32: place in `fractions`
    fractions: list[tuple[float, float]]  # test, validation: shares to draw from each stratum; strata without a test share come first


def read_index(records: Path, splitting: Splitting, previous: Previous | None = None) -> Index:
    """Read what the draw needs.

    If no record at all is given as validation, those given as train are free too, but not for test: most published data has
    only train and test, and the learning curves need a third part. What was test in an earlier run stays test, whatever is given now; else
    what is given now counts, and what an earlier run knew stays where it was.
    """
    ids, groups, subjects, texts, given, kinds = array("Q"), array("Q"), array("Q"), array("Q"), array("b"), array("i")
    kind_of: dict[tuple[str, str, str | None], int] = {}
    for row in read_rows(records, ("id", "source", "type", "messages", "prompt", "label", "split", "meta")):
        ids.append(number_of(row))
        groups.append(group_of(row, splitting.split_seed))
        subjects.append(subject_of(row, splitting.split_seed))
        texts.append(text_of(row, splitting.split_seed))
        given.append(SPLITS.index(row["split"]) if row["split"] else NOT_GIVEN)
        stratum = row["source"] if splitting.stratify_by == "source" else row["label"] or ""
        kinds.append(kind_of.setdefault((row["source"], stratum, row["split"]), len(kind_of)))
    strata, fractions = _strata(list(kind_of), splitting)
    keys = [np.array(numbers, dtype=np.uint64) for numbers in (ids, groups, subjects)]
    places = np.array(given, dtype=np.int8)
    nowhere = np.full(len(places), NOT_GIVEN, dtype=np.int8)
    known, kept = (previous.same(keys[0]), previous.place(*keys)) if previous else (nowhere, nowhere)
    overruled = (known == TEST) & (places != NOT_GIVEN) & (places != TEST)
    places[overruled] = TEST
    free = places == NOT_GIVEN
    if not (places == VALIDATION).any():
        free |= places == TRAIN
    kept = np.where(free, kept, NOT_GIVEN)
    return Index(
        groups=joined(joined(*keys[1:]), np.array(texts, dtype=np.uint64)),
        given=places,
        overruled=int(overruled.sum()),
        known=known,
        kept=kept,
        free=free & (kept == NOT_GIVEN),
        strata=strata[np.array(kinds, dtype=np.int32)],
        fractions=fractions,
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


def joined(groups: Numbers, subjects: Numbers) -> Numbers:
    """Groups that share a person (or a text) become one: each takes the lowest number that a chain of shared prompts and people leads to."""
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
    fixed = np.where(index.kept == NOT_GIVEN, index.given, index.kept)
    np.maximum.at(split_of_group, group_of_row[~index.free], fixed[~index.free])
    stratum_of_group = np.full(len(groups), len(index.fractions), dtype=np.int32)
    np.minimum.at(stratum_of_group, group_of_row[index.free], index.strata[index.free])
    undecided = np.flatnonzero(split_of_group == NOT_GIVEN)
    undecided = undecided[np.argsort(stratum_of_group[undecided], kind="stable")]  # within a stratum still by hash, as np.unique sorted them
    ends = np.searchsorted(stratum_of_group[undecided], np.arange(1, len(index.fractions)))
    carried = (0.0, 0.0)
    for fractions, kept, members in zip(index.fractions, _kept(index), np.split(undecided, ends), strict=True):
        quotas, carried = quotas_of(int(sizes[members].sum()), fractions, carried, kept)
        split_of_group[members] = _cut(sizes[members].tolist(), quotas)
    assigned = np.where(index.free, split_of_group[group_of_row], fixed)
    return np.where((index.given == TRAIN) & (assigned == TEST), TRAIN, assigned)


def _kept(index: Index) -> list[tuple[int, int, int]]:
    """Records of each stratum that stay where they were: test, validation, train."""
    counts = np.zeros((len(index.fractions), len(SPLITS)), dtype=np.int64)
    stays = index.kept != NOT_GIVEN
    np.add.at(counts, (index.strata[stays], index.kept[stays]), 1)
    return [(test, validation, train) for train, validation, test in counts.tolist()]


def quotas_of(
    rows: int, fractions: tuple[float, float], carried: tuple[float, float], kept: tuple[int, int, int] = (0, 0, 0)
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Of so many rows, those to draw for test and validation: with the kept ones within one row of the fraction, if those are not too many.

    What rounding leaves goes to the next stratum: without that, a hundred labels with four records each would give no test record at all.
    """
    total = rows + sum(kept)
    # a stratum that keeps too many gives up one of another's at most: that one needs test records too
    exact_test, exact_validation = (max(total * fraction - there, -1.0) + left for fraction, left, there in zip(fractions, carried, kept, strict=False))
    test = min(rows, max(0, floor(exact_test + 0.5)))
    validation = max(0, min(floor(exact_validation + 0.5), rows - test, int(total * fractions[1]) + 1 - kept[1]))
    return (test, validation), (exact_test - test, exact_validation - validation)


def _cut(sizes: Sequence[int], quotas: tuple[int, int]) -> list[int]:
    """Fill test, then validation, with the groups that still fit; the others train."""
    left = {TEST: quotas[0], VALIDATION: quotas[1]}
    result = []
    for size in sizes:
        split = next((split for split, room in left.items() if size <= room), TRAIN)
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


def straddling(index: Index, assigned: Numbers) -> int:
    """How many prompts are in several splits, as the user gave them or an earlier run had them: they are left there, but the test is easier for it."""
    order = np.lexsort((assigned, index.groups))
    groups, places = index.groups[order], assigned[order]
    is_change = (groups[1:] == groups[:-1]) & (places[1:] != places[:-1])
    return len(np.unique(groups[1:][is_change]))


def stability(index: Index, assigned: Numbers) -> dict[str, Any]:
    """What became of the records that an earlier run knew."""
    stays = (index.known == assigned) & (index.known != NOT_GIVEN)
    moves = (index.known != NOT_GIVEN) & ~stays
    follows = (index.known == NOT_GIVEN) & (index.kept == assigned)
    counted = {"kept": stays, "related": follows, "moved": moves, "new": ~(stays | follows | moves)}
    counts = {name: {split: int((rows & (assigned == place)).sum()) for place, split in enumerate(SPLITS)} for name, rows in counted.items()}
    return counts | {"test_not_as_given": index.overruled}
