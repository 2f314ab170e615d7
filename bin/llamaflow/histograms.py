"""Lengths counted by length ({length: records}): what memory holds does not grow with the data, and percentiles are exact."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

PERCENTILES = (5, 25, 50, 75, 95, 99)


def summary(counts: Mapping[int, int]) -> dict[str, Any]:
    """{p5: ..., p99: ..., max: ...}: the smallest length that so many per cent of the records do not exceed (nearest rank)."""
    total, seen, found = sum(counts.values()), 0, dict[str, Any]()
    left = list(PERCENTILES)
    for length in sorted(counts):
        seen += counts[length]
        while left and 100 * seen >= left[0] * total:
            found[f"p{left.pop(0)}"] = length
    return found | {"max": max(counts, default=None)}


def binned(counts: Mapping[int, int]) -> list[list[int]]:
    """[[low, high, records], ...]: two bins a doubling (64 to 95, 96 to 127), from the first to the last that has any."""
    if not counts:
        return []
    ends = sorted({end for power in range(max(counts).bit_length() + 1) for end in (1 << power, 3 << power >> 1)} | {0})
    bins = [[low, high - 1, 0] for low, high in pairwise(ends)]
    for length, count in counts.items():
        bins[bisect_right(ends, length) - 1][2] += count
    filled = [place for place, (_, _, count) in enumerate(bins) if count]
    return bins[filled[0] : filled[-1] + 1]
