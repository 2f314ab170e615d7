"""Where a quotation stands in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaflow.questions import span_of
from llamaflow.records import fold
from llamaflow.textfiles import Unusable


@pytest.mark.parametrize(
    ("text", "quote", "found"),
    [
        ("Art. 5: All are\n  equal before the law.", "“ALL are equal before …”", "All are\n  equal before"),
        ("Férias são 30 dias.", "Fe\u0301rias sa\u0303o 30 dias", "Férias são 30 dias"),
        ("带薪年休假为五天。病假另算。", "病假另算。", "病假另算。"),
        ("The ﬁrst and the last oﬃce is here. Next.", "the last office is here.", "the last oﬃce is here."),
        ("Straße und Weg sind lang", "strasse und weg", "Straße und Weg"),
        ("aaaaaaaaaaaa¨ΐa字a", "a字a", "a"),  # folded, the word is longer by three
    ],
)
def test_span(text: str, quote: str, found: str) -> None:
    start, end = span_of(quote, text)
    assert text[start:end] == found


@given(st.text(st.sampled_from("aé ﬁß¨\n.漢字ΐ"), min_size=1), st.data())
def test_any_passage_is_found_and_its_span_lies_in_the_text(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    quote = text[start : data.draw(st.integers(start + 1, len(text)))]
    try:
        first, last = span_of(quote, text)
    except Unusable:
        return
    assert 0 <= first < last <= len(text)
    if fold(text) == text:
        assert fold(quote.strip('"…“”„«»')) == text[first:last]
