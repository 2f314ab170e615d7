"""The small parts of the report's sections: numbers, axes, shaded words."""

from __future__ import annotations

import pytest

from llamaflow.report import number
from llamaflow.report.answers import question_of, shaded
from llamaflow.report.intervals import axis
from llamaflow.units import duration


def test_words_in_common_with_the_reference_are_shaded() -> None:
    assert shaded("Não há <b> prazo.", "não tem Prazo") == '<span class="lf-hit">Não</span> há &lt;b&gt; <span class="lf-hit">prazo.</span>'
    assert shaded("  ", "x") == "<i>(empty)</i>"


def test_the_question_is_the_last_message_of_a_conversation() -> None:
    assert question_of('[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Até quando?"}]') == "Até quando?"
    assert [question_of(text) for text in ("Until when?", "[1]", "12", "")] == ["Until when?", "[1]", "12", ""]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.02, 0.69, (0, 0.8, 0.2)), (7.4, 7.4, (6.5, 8.5, 0.5)), (40, 955, (0, 1000, 200)), (0, 0, (-1e-4, 1e-4, 5e-5))]
)
def test_axes_have_round_ends_that_enclose_the_values(low: float, high: float, expected: tuple[float, float, float]) -> None:
    start, end, step = axis(low, high)
    assert start <= low
    assert end >= high
    assert (start, end, step) == pytest.approx(expected, abs=1e-9)


def test_numbers_as_people_read_them() -> None:
    assert [number(value) for value in (0.45678, 12.345, 1234.5, 0, None, 0.00456)] == ["0.457", "12.3", "1,234", "0", "\u2013", "0.0046"]
    assert [number(value, sign=True) for value in (0.1, -0.25)] == ["+0.100", "\u22120.250"]
    assert [duration(value) for value in (12.3, 750, 12_000)] == ["12.3 s", "12 min", "3 h 20 min"]
