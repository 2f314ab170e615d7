from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaflow.errors import DataError
from llamaflow.stats import estimates, higher_is_better, holm, paired_gain


def table(**columns: Any) -> pa.Table:
    """Predictions with the columns given, and plain values in the others."""
    rows = len(next(iter(columns.values())))
    plain: dict[str, Any] = {"record_id": [f"r{n:05}" for n in range(rows)], "source": ["s"] * rows, "prompt": ["p"] * rows}
    plain |= {"reference": ["ref"] * rows, "prediction": ["answer"] * rows, "label": pa.nulls(rows, pa.string())}
    plain |= {"nll": [2.0] * rows, "tokens": [1] * rows}
    return pa.table(plain | columns)


def normal(seed: int, rows: int, mean: float, sd: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, rows)


def test_perplexity_by_hand_weighs_tokens_not_rows() -> None:
    found = estimates(table(nll=[10.0, 1.0], tokens=[5, 10]), resamples=1000, seed=1)["perplexity"]
    assert found["value"] == pytest.approx(math.exp(11 / 15))
    # two rows have three resamples: the first twice, the second twice, one of each
    assert found["ci_low"] == pytest.approx(math.exp(0.1))
    assert found["ci_high"] == pytest.approx(math.exp(2.0))
    assert found["n"] == 2


def test_accuracy_and_macro_f1_by_hand() -> None:
    found = estimates(table(prediction=["Sim.", "sim", "não", "talvez"], label=["sim", "não", "não", "não"]), resamples=500, seed=1)
    assert found["accuracy"]["value"] == 0.5
    # sim: precision 1/2, recall 1/1, F1 2/3; não: precision 1/1, recall 1/3, F1 1/2; "talvez" is no label and only costs recall
    assert found["macro_f1"]["value"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_rows_without_a_value_do_not_count_and_measures_without_rows_are_left_out() -> None:
    found = estimates(table(score_rouge_l=[0.2, None, 0.4], score_chrf=pa.nulls(3, pa.float64())), resamples=200, seed=0)
    assert found["rouge_l"]["value"] == pytest.approx(0.3)
    assert found["rouge_l"]["n"] == 2
    assert set(found) == {"perplexity", "rouge_l"}


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    predictions = table(score_rouge_l=normal(1, 60, 0.5))
    assert estimates(predictions, 300, seed=4) == estimates(predictions, 300, seed=4)
    assert estimates(predictions, 300, seed=4) != estimates(predictions, 300, seed=5)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """200 simulated test sets of 60 rows with a known mean: a 95 % interval holds it in about 95 % of them (88 % to 99 % leaves 3 sd of luck)."""
    held = 0
    for seed in range(200):
        found = estimates(table(score_x=normal(seed, 60, 0.5)), resamples=400, seed=seed)["x"]
        held += found["ci_low"] <= 0.5 <= found["ci_high"]
    assert 176 <= held <= 198


def test_equal_models_differ_significantly_as_rarely_as_they_should() -> None:
    """Two models without a difference, 200 times: p < 0.05 in about 5 % (below 12 %)."""
    p_values = [
        paired_gain(table(score_x=normal(seed, 60, 0.5)), table(score_x=normal(seed + 1000, 60, 0.5)), "x", 400, seed)["p_value"] for seed in range(200)
    ]
    assert 1 <= sum(p < 0.05 for p in p_values) <= 24


def test_a_clear_gain_on_the_same_rows_is_found_whatever_the_order_of_rows() -> None:
    base = normal(1, 200, 0.5)
    better = table(score_rouge_l=base + normal(2, 200, 0.05, 0.1))
    shuffled = better.take(np.random.default_rng(0).permutation(200))
    found = paired_gain(shuffled, table(score_rouge_l=base), "rouge_l", 2000, seed=3)
    assert found == paired_gain(better, table(score_rouge_l=base), "rouge_l", 2000, seed=3)
    assert found["gain"] == pytest.approx(float(np.mean(np.array(better["score_rouge_l"].to_pylist()) - base)))
    assert 0 < found["ci_low"] < found["gain"] < found["ci_high"]
    assert found["p_value"] < 0.01
    # unpaired, the spread of the rows (sd 1) would hide it: 2.8 * sqrt(2 / 200) = 0.28; paired it is 2.8 * 0.1 / sqrt(200)
    assert found["min_detectable"] == pytest.approx(2.8 * 0.1 / math.sqrt(200), rel=0.15)


def test_lower_perplexity_is_a_gain() -> None:
    found = paired_gain(table(nll=[1.0] * 20), table(nll=[2.0] * 20), "perplexity", 200, seed=0)
    assert found["gain"] == pytest.approx(math.e**2 - math.e)
    assert higher_is_better("rouge_l")
    assert not higher_is_better("perplexity")


def test_the_smallest_p_value_has_one_added_to_its_count() -> None:
    found = paired_gain(table(score_x=[1.0] * 50), table(score_x=[0.0] * 50), "x", 199, seed=0)
    assert found["p_value"] == pytest.approx(2 / 200)


def test_few_rows_cannot_show_much() -> None:
    found = paired_gain(table(score_x=[1.0] * 4), table(score_x=[0.0] * 4), "x", 2000, seed=0)
    assert found["p_value"] == 1 / 8  # all of four rows improve: so do two of the 16 ways that signs can fall


def test_models_with_the_same_answers_do_not_differ_by_rounding() -> None:
    scores = list(normal(1, 97, 0.3333333))
    found = paired_gain(table(score_x=scores), table(score_x=scores), "x", 2000, seed=0)
    assert (found["gain"], found["ci_low"], found["ci_high"], found["p_value"]) == (0, 0, 0, 1)


@pytest.mark.parametrize("metric", ["perplexity", "x", "accuracy", "macro_f1"])
@pytest.mark.parametrize("rows", [1, 2, 30])
def test_degenerate_tables_neither_warn_nor_fail(metric: str, rows: int) -> None:
    same = table(score_x=[0.1] * rows, label=["only"] * rows, prediction=["only"] * rows)
    found = estimates(same, 200, seed=0)[metric]
    assert found["ci_low"] == pytest.approx(found["value"])
    assert found["ci_high"] == pytest.approx(found["value"])
    gain = paired_gain(same, same, metric, 200, seed=0)
    assert (gain["gain"], gain["p_value"], gain["n"]) == (0, 1, rows)
    assert gain["min_detectable"] == (None if rows == 1 else 0)


def test_a_hopeless_model_has_a_finite_perplexity() -> None:
    assert math.isfinite(estimates(table(nll=[1e6] * 3), 100, seed=0)["perplexity"]["value"])


def test_other_records_are_an_error_that_names_them() -> None:
    with pytest.raises(DataError, match=r"different test records .*in one only: r00002"):
        paired_gain(table(nll=[1.0] * 3), table(nll=[1.0] * 2), "perplexity", 100, seed=0)


def test_a_measure_that_the_predictions_lack_is_an_error() -> None:
    with pytest.raises(DataError, match="no accuracy: it needs labels"):
        paired_gain(table(nll=[1.0] * 3), table(nll=[1.0] * 3), "accuracy", 100, seed=0)


def test_holm_on_a_published_example() -> None:
    """The worked example of Wikipedia's article on the Holm-Bonferroni method."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_between_the_raw_and_the_bonferroni_values_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(raw <= value <= min(1, raw * len(p_values)) + 1e-12 for raw, value in zip(p_values, adjusted, strict=True))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [value for _, value in pairs] == sorted(adjusted)
