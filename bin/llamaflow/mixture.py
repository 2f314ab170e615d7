"""How much of each source is trained on: samples, and shares that the user gives.

Sizes are tokens of text, if the user says whose (a grid may have several tokenizers), or else bytes (UTF-8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llamaflow.errors import DataError
from llamaflow.previous import Numbers
from llamaflow.records import read_rows, texts_of

TEXTS = ("text", "messages", "prompt", "chosen")  # columns of what is trained on

Count = Callable[[Iterable[list[str]]], Iterable[int]]  # the sizes of records, given the texts of each


def sampled(orders: Numbers, sources: Numbers, limits: Mapping[int, int], limit: int | None) -> Numbers:
    """bool [records]: at most limits[source] of each source and `limit` of all, those whose `orders` (hashes) are lowest; the same ones whatever else there is."""
    chosen = np.ones(len(orders), dtype=bool)
    for source, most in limits.items():
        _keep_lowest(chosen, np.flatnonzero(sources == source), orders, most)
    if limit is not None:
        _keep_lowest(chosen, np.flatnonzero(chosen), orders, limit)
    return chosen


def _keep_lowest(chosen: Numbers, places: Numbers, orders: Numbers, most: int) -> None:
    chosen[places[np.argsort(orders[places], kind="stable")[most:]]] = False


def rates(sizes: Sequence[float], weights: Sequence[float], most: float) -> list[float]:
    """How often each source is gone through, so that their shares are as the weights say and the whole stays as large as it is.

    None is gone through more than `most` times: repeating it further teaches little (Muennighoff et al. 2023, "Scaling Data-Constrained
    Language Models"). What it then lacks is taken from the others, in their shares, as far as they may be repeated.
    """
    found = [0.0] * len(sizes)
    left, open_places = float(sum(sizes)), [place for place, size in enumerate(sizes) if size and weights[place]]
    while open_places:
        unit = left / sum(weights[place] for place in open_places)
        wanted = {place: unit * weights[place] / sizes[place] for place in open_places}
        full = [place for place in open_places if wanted[place] > most]
        for place in full or open_places:
            found[place] = min(most, wanted[place])
            left -= found[place] * sizes[place]
        open_places = [place for place in open_places if place not in full] if full else []
    return found


def repeats(sizes: Numbers, orders: Numbers, rate: float) -> Numbers:
    """int64 [records]: how often each record of a source is written; those with the lowest `orders` once more, as long as their sizes are within the rate."""
    times = np.full(len(sizes), int(rate), dtype=np.int64)
    by_order = np.argsort(orders, kind="stable")
    before = np.cumsum(sizes[by_order]) - sizes[by_order] / 2  # a record counts if more than half of it is within
    times[by_order[before < (rate - int(rate)) * sizes.sum()]] += 1
    return times


class Mixture:
    """How often each record is written, so that the sources have the shares of the training text that the user gave them as weights.

    `tokens` counts them; without it, bytes are counted.
    times: int64 [records], 1 for all but training records; described: for the data set's description, None without weights.
    Raises DataError if nothing is left to train on.
    """

    def __init__(self, records: Path, trained: Numbers, orders: Numbers, weights: Mapping[str, float], most: float, tokens: Count | None = None) -> None:
        self.times = np.ones(len(trained), dtype=np.int64)
        self.described: dict[str, Any] | None = None
        if not weights:
            return
        sizes, sources = _sizes(records, tokens or _bytes), _places(records, list(weights))
        members = [np.flatnonzero(trained & (sources == place)) for place in range(len(weights))]
        found = rates([int(sizes[rows].sum()) for rows in members], list(weights.values()), most)
        for rows, rate in zip(members, found, strict=True):
            self.times[rows] = repeats(sizes[rows], orders[rows], rate)
        if not self.times[trained].any():
            raise DataError(
                "nothing is left to train on: the sources with a weight above 0 have no training records. Check weight and split in the samplesheet."
            )
        written = [int((sizes[rows] * self.times[rows]).sum()) for rows in members]
        shares = {
            source: {"weight": weight, "records": len(rows), "times": round(rate, 3), "share": round(size / (sum(written) or 1), 4)}
            for (source, weight), rows, rate, size in zip(weights.items(), members, found, written, strict=True)
        }
        self.described = {"unit": "tokens" if tokens else "bytes", "sources": shares}


def _sizes(records: Path, count: Count) -> Numbers:
    return np.fromiter(count(list(texts_of(row)) for row in read_rows(records, TEXTS)), dtype=np.int64)


def _bytes(records: Iterable[list[str]]) -> Iterator[int]:
    return (sum(len(text.encode()) for text in texts) for texts in records)


def _places(records: Path, sources: Sequence[str]) -> Numbers:
    """The place of each record's source."""
    return np.fromiter((sources.index(row["source"]) for row in read_rows(records, ("source",))), dtype=np.int32)
