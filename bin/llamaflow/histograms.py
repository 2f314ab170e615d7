"""Lengths counted by length ({length: records}): what memory holds does not grow with the data, and percentiles are exact."""

from __future__ import annotations

from collections.abc import Mapping
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


def by_doubling(counts: Mapping[int, int]) -> dict[str, int]:
    """How many lengths are in 1, 2 to 3, 4 to 7 and so on, by the lower end; ends are left out where there is nothing."""
    bins: dict[int, int] = {}
    for length, count in counts.items():
        low = 1 << max(0, length.bit_length() - 1)
        bins[low] = bins.get(low, 0) + count
    if not bins:
        return {}
    lows = range(min(bins).bit_length() - 1, max(bins).bit_length())
    return {str(1 << power): bins.get(1 << power, 0) for power in lows}
