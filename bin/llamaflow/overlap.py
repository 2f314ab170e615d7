"""Which texts contain a question that models are tested with.

A word of a question is found if a run of RUN words that it is in is in the text too, and a text contains a question if more than SHARE of its
words are found: Lambert et al. 2024, Tülu 3, arXiv:2411.15124, section 3.2. Runs that are in more than COMMON questions come from a template and
tell nothing of any of them: they do not count (as in Brown et al. 2020, arXiv:2005.14165, appendix C). A question without runs of its own,
such as one of fewer than RUN words, is found where it is a whole line or a whole message.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from llamaflow.records import SPLITS, count_rows, fold, read_batches
from llamaflow.words import TURN, WORD, compared

RUN, SHARE, COMMON = 8, 0.5, 10
AT_ONCE = 2048  # questions
LOOKED_FOR = 10_000  # questions of a split
QUESTION_WORDS = 200  # of a longer question its beginning, so that long texts do not take the memory
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, see splits.MIX
Array = np.ndarray[Any, Any]
COLUMNS = ("question", "prompt", "problem", "instruction", "query", "ctx", "messages", "conversations", "text")  # the first one holds the question
TEXTS = ("type", "text", "messages", "prompt", "chosen", "rejected")
NONE = -1


def question_of(row: Mapping[str, Any]) -> str:
    """What a row asks: the first of COLUMNS that has something; of messages, those of the user."""
    for value in (row.get(name) for name in COLUMNS):
        if isinstance(value, str) and value.strip():
            return f"{value}\n{row['input']}" if isinstance(row.get("input"), str) else value
        if isinstance(value, list):
            turns = [turn for turn in value if isinstance(turn, dict)]
            return "\n".join(str(turn.get("content") or turn.get("value") or "") for turn in turns if {turn.get("role"), turn.get("from")} & {"user", "human"})
    return ""


class Questions:
    """Questions to look for, by number in the order given. Memory: 16 bytes a run, 100 while they are read, and 100 bytes a question."""

    def __init__(self, texts: Iterable[str]) -> None:
        hashes, numbers, starts, seen = array("Q"), array("i"), array("i"), dict[int, int]()
        for batch in _batches(enumerate(texts)):
            words = {number: WORD.findall(fold(text))[:QUESTION_WORDS] for number, text in batch}
            new = [number for number, question in words.items() if question and seen.setdefault(_whole(question), number) == number]
            runs, owners, places = _runs([words[number] for number in new])
            for column, found in ((hashes, runs), (numbers, np.array(new, dtype=np.int32)[owners]), (starts, places)):
                column.frombytes(found.tobytes())
        self._index(*(np.frombuffer(column, dtype=kind) for column, kind in ((hashes, np.uint64), (numbers, np.int32), (starts, np.int32))))
        with_runs = set(self._known.tolist())
        self._wholes = {whole: number for whole, number in seen.items() if number not in with_runs}

    def _index(self, hashes: Array, numbers: Array, starts: Array) -> None:
        order = np.argsort(hashes, kind="stable")
        _, times = np.unique(hashes[order], return_counts=True)
        order = order[np.repeat(times <= COMMON, times)]
        self._runs, self._numbers, self._starts = hashes[order], numbers[order], starts[order]
        self._known, self._words = _covered(self._numbers.astype(np.int64), self._starts)

    def find(self, texts: Sequence[str]) -> Array:
        """int64 [texts]: the number of a question that each contains, or NONE. Texts are folded (words.compared)."""
        lines = [[WORD.findall(line) for line in re.split(f"[\n{TURN}]", text)] for text in texts]
        found = np.full(len(texts), NONE, dtype=np.int64)
        for place, (text, words_of_lines) in enumerate(zip(texts, lines, strict=True)):
            found[place] = self._find_whole(text, words_of_lines)
        runs, owners, _ = _runs([list(chain.from_iterable(words_of_lines)) for words_of_lines in lines])
        places, numbers = self._matches(owners, runs)
        found[places] = numbers
        return found

    def _find_whole(self, text: str, lines: Sequence[list[str]]) -> int:
        if not self._wholes:
            return NONE
        turns = (WORD.findall(turn) for turn in text.split(TURN) if "\n" in turn)
        return next((self._wholes[whole] for whole in map(_whole, chain(lines, turns)) if whole in self._wholes), NONE)

    def _matches(self, owners: Array, hashes: Array) -> tuple[Array, Array]:
        """Owners, and the numbers of questions of which they have more than SHARE of the words."""
        order = np.argsort(hashes)  # neighbours are looked up faster
        owners, hashes = owners[order], hashes[order]
        first = np.searchsorted(self._runs, hashes)
        hit = first < np.searchsorted(self._runs, hashes, side="right")
        first, owners = first[hit], owners[hit]
        times = np.searchsorted(self._runs, hashes[hit], side="right") - first
        at = np.repeat(first - np.cumsum(times) + times, times) + np.arange(times.sum())
        width = np.int64(self._known[-1] + 1 if len(self._known) else 1)
        pairs, covered = _covered(np.repeat(owners, times) * width + self._numbers[at], self._starts[at])
        enough = covered > SHARE * self._words[np.searchsorted(self._known, pairs % width)] if len(pairs) else np.zeros(0, dtype=bool)
        return pairs[enough] // width, pairs[enough] % width


def _runs(texts: Sequence[Sequence[str]]) -> tuple[Array, Array, Array]:
    """Of each run of RUN words within a text: its hash (uint64), the place of the text and that of the run's first word (int32).

    Python's hash of a word differs from process to process, but nothing of it leaves this one.
    """
    sizes = np.array(list(map(len, texts)), dtype=np.int64)
    words = np.fromiter(map(hash, chain.from_iterable(texts)), dtype=np.int64, count=sizes.sum()).view(np.uint64)
    owners, firsts = np.repeat(np.arange(len(texts), dtype=np.int32), sizes), np.repeat(np.cumsum(sizes) - sizes, sizes)
    count = max(0, len(words) - RUN + 1)
    within = np.flatnonzero(owners[:count] == owners[len(words) - count :])
    hashes = np.zeros(len(within), dtype=np.uint64)
    for place in range(RUN):
        hashes = hashes * FACTOR + words[within + place]
    return hashes, owners[within], (within - firsts[within]).astype(np.int32)


def _whole(words: Sequence[str]) -> int:
    return hash(tuple(words))


def _covered(owners: Array, starts: Array) -> tuple[Array, Array]:
    """Each owner once, in order, and how many words are in its runs, which begin at `starts`."""
    order = np.lexsort((starts, owners))
    owners, starts = owners[order], starts[order]
    unique, firsts = np.unique(owners, return_index=True)
    steps = np.minimum(np.diff(starts, append=0), RUN)
    steps[np.append(firsts[1:], len(owners))[: len(firsts)] - 1] = RUN
    return unique, np.add.reduceat(steps, firsts) if len(firsts) else steps


def leakage(dataset: Path) -> dict[str, dict[str, int]]:
    """How many records of each split contain a question of one that comes after it, in the order of SPLITS.

    Of a split with more than LOOKED_FOR questions, so many are looked for, drawn by their ids: memory does not grow with the data.
    """
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS[:-1]}
    for place, tested in enumerate(SPLITS[1:], 1):
        questions = Questions(map(question_of, _rows(dataset / f"{tested}.parquet")))
        for split in SPLITS[:place]:
            batches = (list(map(compared, batch.to_pylist())) for batch in read_batches(dataset / f"{split}.parquet", TEXTS))
            counts[split][tested] = sum(int((questions.find(texts) != NONE).sum()) for texts in batches)
    return {split: dict(count) for split, count in counts.items()}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    share = LOOKED_FOR / max(LOOKED_FOR, count_rows(file))
    for batch in read_batches(file, ("id", *TEXTS)):
        yield from (row for row in batch.to_pylist() if int(row["id"][:8], 16) < share * 2**32)


def _batches(texts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    rest = iter(texts)
    while batch := list(islice(rest, AT_ONCE)):
        yield batch
