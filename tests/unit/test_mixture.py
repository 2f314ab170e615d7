"""Samples and mixtures: shares as asked, bounded repetition, and the same records again whatever else there is."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaflow.mixture import rates, repeats, sampled

SIZES = st.lists(st.integers(1, 10**6), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("sizes", "weights", "expected"),
    [
        ([100, 100], [1, 1], [1, 1]),
        ([300, 100], [1, 1], [2 / 3, 2]),
        ([900, 100], [1, 1], [2 / 3, 4]),  # the small one would be needed five times
        ([100, 100], [1, 0], [2, 0]),
        ([0, 100], [1, 1], [0, 1]),
        ([100], [7], [1]),
    ],
)
def test_rates(sizes: list[int], weights: list[float], expected: list[float]) -> None:
    assert rates(sizes, weights, 4) == pytest.approx(expected)


@given(st.data(), SIZES)
def test_the_whole_stays_as_large_and_no_source_is_repeated_too_often(data: st.DataObject, sizes: list[int]) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    found = rates(sizes, weights, 4)
    assert all(0 < rate <= 4 for rate in found)
    assert sum(rate * size for rate, size in zip(found, sizes, strict=True)) == pytest.approx(sum(sizes))
    shares = [rate * size / weight for rate, size, weight in zip(found, sizes, weights, strict=True) if rate < 4]
    assert shares == pytest.approx(shares[:1] * len(shares))  # those that are not bounded stand as their weights do


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200), st.floats(0, 4))
def test_repeats_come_as_near_to_the_rate_as_whole_records_can(sizes: list[int], rate: float) -> None:
    all_sizes, orders = np.array(sizes), np.random.default_rng(0).permutation(len(sizes))
    times = repeats(all_sizes, orders, rate)
    assert abs((times * all_sizes).sum() - rate * all_sizes.sum()) <= max(sizes) / 2
    assert set(times.tolist()) <= {int(rate), int(rate) + 1}


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2)), max_size=60), st.randoms())
def test_a_sample_is_the_same_whatever_the_order_of_the_records(records: list[tuple[int, int]], chance: Random) -> None:
    def chosen(rows: list[tuple[int, int]]) -> set[tuple[int, int]]:
        orders, sources = np.array([order for order, _ in rows], dtype=np.uint64), np.array([source for _, source in rows])
        mask = sampled(orders, sources, {0: 5, 2: 0}, 12)
        return {row for row, kept in zip(rows, mask, strict=True) if kept}

    unique = list({order: (order, source) for order, source in records}.values())
    first = chosen(unique)
    chance.shuffle(unique)
    assert chosen(unique) == first
    assert len(first) == min(12, sum(source == 1 for _, source in unique) + min(5, sum(source == 0 for _, source in unique)))
