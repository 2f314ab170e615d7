"""Which record belongs to which split: what the user gave, and the draw of the rest.

Within each source (or label) the records are put in the order of a hash of seed and content, and cut; so the same records and seed give
the same split, whatever their order. Records with the same prompt, of the same person, generated from the same text, or of the same document are drawn as
one, since the model would be tested on what it has seen otherwise (see llamaflow.together). Records that an earlier run knew stay where they were, and only
what is missing of the shares is drawn. By time, the order is that of age instead, and test is what is newest.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from llamaflow.data_params import Splitting
from llamaflow.errors import DataError
from llamaflow.identities import NOTHING, document_of, group_of, number_of, replaced_of, subject_of, text_of
from llamaflow.previous import NOT_GIVEN, Numbers, Previous
from llamaflow.records import SPLITS, Record, read_rows, seconds_of
from llamaflow.together import agreed, joined, with_documents

TRAIN, VALIDATION, TEST = range(len(SPLITS))
KEYS: dict[str, Callable[[Record, int], int]] = {
    "id": lambda row, _: number_of(row),
    "prompt": group_of,
    "subject": subject_of,
    "text": text_of,
    "document": document_of,
    "replaced": lambda row, _: replaced_of(row),
}


@dataclass(frozen=True)
class Index:
    """What the draw needs of each record, as numbers: memory is 40 bytes a record."""

    groups: Numbers  # uint64: hash of seed and prompt; equal prompts, one person's records and those made from one text are one group
    documents: Numbers  # uint64: hash of seed and document, or NOTHING
    wholes: Numbers  # uint64: groups and documents together, as they are drawn; of the same age, their order is the order of the draw
    ages: Numbers  # float64: what is youngest is drawn first; 0 for all if they are drawn by chance
    given: Numbers  # int8: place in SPLITS as the user gave it, or test as it was in an earlier run; or NOT_GIVEN
    overruled: int  # how many the user gave otherwise than as the test records that they were
    known: Numbers  # int8: where the same record was in an earlier run, or NOT_GIVEN
    kept: Numbers  # int8: where it stays for the sake of the earlier run, or NOT_GIVEN
    fixed: Numbers  # int8: where it stays for whatever reason, or NOT_GIVEN: it is to be drawn
    strata: Numbers  # int32: place in `fractions`
    fractions: list[tuple[float, float]]  # test, validation: shares to draw from each stratum; strata without a test share come first

    @property
    def free(self) -> Numbers:
        """bool: to be drawn."""
        return np.equal(self.fixed, NOT_GIVEN)


def read_index(records: Path, splitting: Splitting, previous: Previous | None = None) -> Index:
    """Read what the draw needs.

    If no record at all is given as validation, those given as train are free too, but not for test: most published data has
    only train and test, and the learning curves need a third part. What was test in an earlier run stays test, whatever is given now; else
    what is given now counts, and what an earlier run knew stays where it was. Raises DataError if there are no records.
    """
    keys, given, ages, strata, fractions = _read(records, splitting)
    if not len(given):
        raise DataError("no record is left to train on. The receipts of the steps before, in pipeline_info/receipts, say what was dropped, and why.")
    _refuse_undated(ages, splitting)
    known, kept, followed = _earlier(keys, previous)
    overruled = (known == TEST) & (given != NOT_GIVEN) & (given != TEST)
    given[overruled] = TEST
    free = given == NOT_GIVEN
    if not (given == VALIDATION).any():
        free |= given == TRAIN
    fixed, kept = np.where(free, kept, given), np.where(free, kept, NOT_GIVEN)
    groups = joined(joined(keys["prompt"], keys["subject"]), keys["text"])
    places = np.where(fixed == NOT_GIVEN, followed, fixed)
    wholes = with_documents(groups, keys["document"], places, _room(strata[free], fractions)[strata])
    follows = np.where((fixed == NOT_GIVEN) & np.isin(wholes, wholes[places != fixed]), agreed(wholes, places), NOT_GIVEN)
    return Index(
        groups=groups,
        documents=keys["document"],
        wholes=wholes,
        ages=ages,
        given=given,
        overruled=int(overruled.sum()),
        known=known,
        kept=np.maximum(kept, follows),
        fixed=np.maximum(fixed, follows),
        strata=strata,
        fractions=fractions,
    )


def _read(records: Path, splitting: Splitting) -> tuple[dict[str, Numbers], Numbers, Numbers, Numbers, list[tuple[float, float]]]:
    """By name the keys of each record (uint64), the split that it was given (int8), its age, its stratum (int32), and what to draw from each stratum."""
    keys, given, ages, kinds = {name: array("Q") for name in KEYS}, array("b"), array("d"), array("i")
    kind_of: dict[tuple[str, str, str | None], int] = {}
    for row in read_rows(records, ("id", "source", "type", "messages", "prompt", "label", "split", "meta")):
        for name, key in KEYS.items():
            keys[name].append(key(row, splitting.split_seed))
        given.append(SPLITS.index(row["split"]) if row["split"] else NOT_GIVEN)
        ages.append(_age(row) if splitting.split_by == "time" else 0.0)
        stratum = row["source"] if splitting.stratify_by == "source" else row["label"] or ""
        kinds.append(kind_of.setdefault((row["source"], stratum, row["split"]), len(kind_of)))
    found = {name: np.array(numbers, dtype=np.uint64) for name, numbers in keys.items()}
    if splitting.group_by == "record":
        found["document"][:] = NOTHING
    strata, fractions = _strata(list(kind_of), splitting)
    return found, np.array(given, dtype=np.int8), np.array(ages), strata[np.array(kinds, dtype=np.int32)], fractions


def _age(row: Record) -> float:
    """Seconds before 1970, which makes the newest the youngest; what has no date is as old as can be."""
    made = seconds_of(row["meta"]["created_at"])
    return np.inf if made is None else -made


def _refuse_undated(ages: Numbers, splitting: Splitting) -> None:
    if splitting.split_by == "time" and np.isinf(ages).all():
        raise DataError("--split_by time: no record has a date. Give it in a column created_at, as 2026-11-23 or 2026-11-23T10:30:00Z, or split by chance.")


def _earlier(keys: dict[str, Numbers], previous: Previous | None) -> tuple[Numbers, Numbers, Numbers]:
    """int8 each: where the same record was in the earlier run; the same, or else a related or nearly equal one; its document; or NOT_GIVEN."""
    if previous is None:
        nowhere = np.full(len(keys["id"]), NOT_GIVEN, dtype=np.int8)
        return nowhere, nowhere, nowhere
    kept = np.maximum(previous.place(keys["id"], keys["prompt"], keys["subject"]), previous.same(keys["replaced"]))
    return previous.same(keys["id"]), kept, previous.documents.find(keys["document"])


def _room(strata: Numbers, fractions: Sequence[tuple[float, float]]) -> Numbers:
    """int64 [fractions]: how many records the smaller split that is drawn from each stratum can take, 1 at least."""
    rows = np.bincount(strata, minlength=len(fractions)).tolist()
    return np.array([max(1, floor(count * min(filter(None, pair), default=1) + 0.5)) for count, pair in zip(rows, fractions, strict=True)], dtype=np.int64)


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


def draw(index: Index) -> Numbers:
    """Give every record its place in SPLITS. int8."""
    groups, group_of_row, sizes = np.unique(index.wholes, return_inverse=True, return_counts=True)
    # test before validation before train: a record whose prompt the user put into a split follows it there
    split_of_group = np.full(len(groups), NOT_GIVEN, dtype=np.int8)
    np.maximum.at(split_of_group, group_of_row[~index.free], index.fixed[~index.free])
    stratum_of_group = np.full(len(groups), len(index.fractions), dtype=np.int32)
    np.minimum.at(stratum_of_group, group_of_row[index.free], index.strata[index.free])
    undecided = np.flatnonzero(split_of_group == NOT_GIVEN)
    youngest = np.full(len(groups), np.inf)
    np.minimum.at(youngest, group_of_row, index.ages)
    order = np.lexsort((youngest[undecided], stratum_of_group[undecided]))  # what is as old stays ordered by hash, as np.unique sorted them
    undecided = undecided[order]
    ends = np.searchsorted(stratum_of_group[undecided], np.arange(1, len(index.fractions)))
    carried = (0.0, 0.0)
    for fractions, kept, members in zip(index.fractions, _kept(index), np.split(undecided, ends), strict=True):
        quotas, carried = quotas_of(int(sizes[members].sum()), fractions, carried, kept)
        split_of_group[members] = _cut(sizes[members].tolist(), quotas)
    assigned = np.where(index.free, split_of_group[group_of_row], index.fixed)
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


def straddling(keys: Numbers, assigned: Numbers) -> int:
    """How many keys (prompts, documents) are in several splits: as the user gave them, an earlier run had them, or no split could hold them."""
    order = np.lexsort((assigned, keys))
    sorted_keys, places = keys[order], assigned[order]
    is_change = (sorted_keys[1:] == sorted_keys[:-1]) & (places[1:] != places[:-1]) & (sorted_keys[1:] != NOTHING)
    return len(np.unique(sorted_keys[1:][is_change]))


def stability(index: Index, assigned: Numbers) -> dict[str, Any]:
    """What became of the records that an earlier run knew."""
    stays = (index.known == assigned) & (index.known != NOT_GIVEN)
    moves = (index.known != NOT_GIVEN) & ~stays
    follows = (index.known == NOT_GIVEN) & (index.kept == assigned)
    counted = {"kept": stays, "related": follows, "moved": moves, "new": ~(stays | follows | moves)}
    counts = {name: {split: int((rows & (assigned == place)).sum()) for place, split in enumerate(SPLITS)} for name, rows in counted.items()}
    return counts | {"test_not_as_given": index.overruled}
