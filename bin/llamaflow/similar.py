"""Which texts nearly say the same: MinHash and locality-sensitive hashing find candidates, exact Jaccard similarity decides.

Broder 1997, doi:10.1109/SEQUEN.1997.666900; Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, chapter 3. Texts and signatures lie on
disk, so that memory grows by a few bytes a text.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llamaflow.words import TURN, WORD

Array = npt.NDArray[Any]
SHINGLE = 5  # words
PERMUTATIONS = 128
RECALL = 0.999  # of pairs that are just as similar as asked
SEED = 1
AT_ONCE = 2048  # texts


def shingles(text: str) -> set[str]:
    """Overlapping runs of words; of a shorter text the whole."""
    words = WORD.findall(text)
    return {" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))}


def jaccard(one: str, other: str) -> float:
    """What two texts have in common of all their shingles, 0 to 1."""
    left, right = shingles(one), shingles(other)
    common = len(left & right)
    return common / (len(left) + len(right) - common)


def are_alike(one: str, other: str, threshold: float) -> bool:
    """Whether two texts are as similar as `threshold`; in conversations, every line that is not the same in both.

    Else two different questions about the same long passage would pass for the same question.
    """
    if TURN not in one and TURN not in other:
        return jaccard(one, other) >= threshold
    left, right = re.split(f"[\n{TURN}]", one), re.split(f"[\n{TURN}]", other)
    in_left, in_right = set(left), set(right)
    changed = [line for line in left if line not in in_right], [line for line in right if line not in in_left]
    return len(left) == len(right) and len(changed[0]) == len(changed[1]) and all(jaccard(*pair) >= threshold for pair in zip(*changed, strict=True))


class Similarities:
    """The texts and their MinHash signatures uint32 [texts, PERMUTATIONS], in two files."""

    def __init__(self, texts: Iterable[str], directory: Path) -> None:
        from rensa import RMinHash

        self._texts, self._digests = directory / "texts.utf8", directory / "signatures.u32"
        ends = array("q", [0])
        with self._texts.open("wb") as file, self._digests.open("wb") as digests:
            for batch in _batches(texts):
                for text in batch:
                    ends.append(ends[-1] + file.write(text.encode()))
                hashes = [np.array(sorted(row), dtype=np.uint64) for row in RMinHash.hash_token_sets([list(shingles(text)) for text in batch])]
                offsets = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
                matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(hashes), offsets, num_perm=PERMUTATIONS, seed=SEED)
                np.array(matrix.to_rows(), dtype=np.uint32).tofile(digests)
        self._ends = np.frombuffer(ends, dtype=np.int64)
        self.count = len(ends) - 1

    def clusters(self, threshold: float) -> Array:
        """int64 [texts]: the position of the first text of each one's cluster. Likeness is not transitive: a cluster is what a chain of pairs joins."""
        leader = np.arange(self.count)

        def find(text: int) -> int:
            while leader[text] != text:
                leader[text] = leader[leader[text]]
                text = int(leader[text])
            return text

        with self._texts.open("rb") as file:

            def read(text: int) -> str:
                file.seek(self._ends[text])
                return file.read(self._ends[text + 1] - self._ends[text]).decode()

            for one, other in self._candidates(rows_of_band(threshold)):
                first, second = sorted((find(one), find(other)))
                if first != second and are_alike(read(one), read(other), threshold):
                    leader[second] = first
        return np.array([find(text) for text in range(self.count)], dtype=np.int64)

    def _candidates(self, rows: int) -> Iterator[tuple[int, int]]:
        """Pairs that agree in a band: each text with the one before it there, and with the first."""
        if not self.count:
            return
        digests = np.memmap(self._digests, dtype=np.uint32, mode="r", shape=(self.count, PERMUTATIONS))
        for band in range(PERMUTATIONS // rows):
            keys = np.ascontiguousarray(digests[:, band * rows : (band + 1) * rows]).view(np.dtype((np.void, 4 * rows)))[:, 0]
            order = np.argsort(keys, kind="stable")
            same = keys[order[1:]] == keys[order[:-1]]
            starts = np.flatnonzero(np.concatenate([[True], ~same]))
            firsts = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
            for place in np.flatnonzero(same):
                first, before, this = firsts[place + 1], order[place], order[place + 1]
                yield int(before), int(this)
                if first != before:
                    yield int(first), int(this)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, AT_ONCE)):
        yield batch


def rows_of_band(threshold: float) -> int:
    """The longest bands that still find RECALL of the pairs of this similarity: fewer chance candidates to compare."""
    return max(rows for rows in range(1, 17) if rows == 1 or 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL)
