"""Percentiles and bins of counted lengths."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llamaflow.histograms import PERCENTILES, by_doubling, summary


@given(st.lists(st.integers(0, 300), min_size=1))
def test_percentiles_are_those_of_the_values(lengths: list[int]) -> None:
    expected = {f"p{percentile}": int(np.percentile(lengths, percentile, method="inverted_cdf")) for percentile in PERCENTILES}
    assert summary(Counter(lengths)) == expected | {"max": max(lengths)}


def test_bins_double() -> None:
    assert by_doubling(Counter([2, 3, 3, 4, 17])) == {"2": 3, "4": 1, "8": 0, "16": 1}
    assert by_doubling({0: 2, 1: 1}) == {"1": 3}
    assert by_doubling({}) == {}
