"""Percentiles and bins of counted lengths."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llamaflow.histograms import PERCENTILES, binned, summary


@given(st.lists(st.integers(0, 300), min_size=1))
def test_percentiles_are_those_of_the_values(lengths: list[int]) -> None:
    expected = {f"p{percentile}": int(np.percentile(lengths, percentile, method="inverted_cdf")) for percentile in PERCENTILES}
    assert summary(Counter(lengths)) == expected | {"max": max(lengths)}


def test_two_bins_a_doubling() -> None:
    assert binned(Counter([2, 3, 3, 4, 12])) == [[2, 2, 1], [3, 3, 2], [4, 5, 1], [6, 7, 0], [8, 11, 0], [12, 15, 1]]
    assert binned({0: 2, 1: 1}) == [[0, 0, 2], [1, 1, 1]]
    assert binned({}) == []


@given(st.lists(st.integers(0, 5000), min_size=1))
def test_every_length_is_in_its_bin(lengths: list[int]) -> None:
    bins = binned(Counter(lengths))
    assert [count for _, _, count in bins] == [sum(low <= length <= high for length in lengths) for low, high, _ in bins]
    assert sum(count for _, _, count in bins) == len(lengths)
