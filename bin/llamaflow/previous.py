"""The splits of an earlier run: what it was tested with is not learnt now, and what it learnt is no test now."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from llamaflow.identities import COLUMNS, NOTHING, document_of, group_of, number_of, subject_of
from llamaflow.previous_files import files_of
from llamaflow.records import read_rows

NOT_GIVEN = -1
Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Places:
    """Places in SPLITS (int8) by key (uint64), in the order of the keys. 9 bytes a key."""

    keys: Numbers
    places: Numbers

    @classmethod
    def of(cls, keys: Numbers, places: Numbers, *, whole: bool = False) -> Self:
        """A key that is in several splits counts for the last of them: test before validation before train; if it is to be `whole`, for none.

        NOTHING is no key.
        """
        keys, places = keys[keys != NOTHING], places[keys != NOTHING]
        order = np.lexsort((-places, keys))
        unique, firsts, counts = np.unique(keys[order], return_index=True, return_counts=True)
        lasts, others = places[order][firsts], places[order][firsts + counts - 1]
        is_one = lasts == others if whole else np.ones(len(unique), dtype=bool)
        return cls(unique[is_one], lasts[is_one])

    def find(self, keys: Numbers) -> Numbers:
        """int8 [keys]: the place of each, or NOT_GIVEN."""
        if not len(self.keys):
            return np.full(len(keys), NOT_GIVEN, dtype=np.int8)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.places[at], NOT_GIVEN).astype(np.int8)


@dataclass(frozen=True)
class Previous:
    """Where the records of an earlier run were, by what they are known by."""

    ids: Places
    prompts: Places
    subjects: Places
    documents: Places  # those that were in one split

    def same(self, ids: Numbers) -> Numbers:
        """int8: where the same record was, or NOT_GIVEN."""
        return self.ids.find(ids)

    def place(self, ids: Numbers, prompts: Numbers, subjects: Numbers) -> Numbers:
        """int8: where the same record was, or else one with the same prompt or about the same person, or NOT_GIVEN."""
        same = self.same(ids)
        return np.where(same != NOT_GIVEN, same, np.maximum(self.prompts.find(prompts), self.subjects.find(subjects)))


def read_previous(directory: Path, seed: int) -> Previous:
    """Read the splits in a directory; `seed` as for the numbers that will be asked for. Memory is 36 bytes a record."""
    ids, prompts, subjects, documents = (array("Q") for _ in range(4))
    places = array("b")
    for place, file in enumerate(files_of(directory)):
        for row in read_rows(file, COLUMNS):
            ids.append(number_of(row))
            prompts.append(group_of(row, seed))
            subjects.append(subject_of(row, seed))
            documents.append(document_of(row, seed))
            places.append(place)
    where = np.array(places, dtype=np.int8)
    same, related, people, parents = (np.array(numbers, dtype=np.uint64) for numbers in (ids, prompts, subjects, documents))
    return Previous(Places.of(same, where), Places.of(related, where), Places.of(people, where), Places.of(parents, where, whole=True))
