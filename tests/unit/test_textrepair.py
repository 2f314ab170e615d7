"""Repair of text."""

from __future__ import annotations

import unicodedata

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaflow.textrepair import REPAIR, repair


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("FÃ©rias", "Férias"),
        ("voilÃ  le travail", "voilà le travail"),
        ("nothing \x93quoted\x94", "nothing “quoted”"),
        ("first line\nâ€œsecondâ€\x9d", "first line\n“second”"),
        ("Fe\u0301rias", "Férias"),
        ("Fe\x00\u0301rias", "Férias"),
        ("\ufb01nd", "find"),
        ("a\x00b\x07c\ufeffd", "abcd"),
        ("ana\u200b@x\u00ad.org", "ana@x.org"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("  a \t\nb\n\n\n\n\n\nc\n ", "a\nb\n\n\nc"),
        ("a\n\n\nb", "a\n\n\nb"),
    ],
)
def test_repairs(broken: str, whole: str) -> None:
    assert repair(broken) == whole


@pytest.mark.parametrize(
    "text", ["“curled” and 'straight'", "informações à vista", "全角\uff01", "&lt;p&gt;", "x = [\n    1,\n]", "👩‍👩‍👧", "हिन्दी", "mañana—così", "é”"]
)
def test_leaves_sound_text_alone(text: str) -> None:
    assert repair(text) == text


@pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "cp1251", "cp437"])
@pytest.mark.parametrize("text", ["Férias à vista, não há exceções", "L\u2019été — déjà vu", "Größe", "съешь ещё"])
def test_quick_check_lets_no_mojibake_through(text: str, encoding: str) -> None:
    """Where ftfy alone repairs a line, so do we: only lines without a sign of damage are skipped."""
    broken = text.encode().decode(encoding, "replace")
    assert repair(broken) == ftfy.fix_text(broken, REPAIR).strip()


@given(st.text(st.characters(codec="utf-8")))
def test_result_is_clean(text: str) -> None:
    cleaned = repair(text)
    assert cleaned == cleaned.strip() == unicodedata.normalize("NFC", cleaned)
    assert not any(unicodedata.category(character) == "Cc" and character not in "\t\n" for character in cleaned)
    assert "\n\n\n\n" not in cleaned
    assert not any(line != line.rstrip() for line in cleaned.split("\n"))
