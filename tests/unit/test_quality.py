"""Rules against debris: each drops what it is for, and none drops prose."""

from __future__ import annotations

import re

import pytest

from llamaflow.languages import language_of
from llamaflow.quality import PRESETS, fault

PROSE = (
    "The leave that an employee has earned in a year is granted by the head of the unit. It can be taken in up to three periods, "
    "and one of them must have at least fourteen days. Whoever falls ill meanwhile gets those days back, if a doctor says so in writing. "
    "Up to ten days can be sold to the company, which pays for them with the salary of the month. The form has to be handed in by March."
)
WORDS = re.findall("[A-Za-z]+", PROSE)


@pytest.mark.parametrize("preset", PRESETS)
def test_prose_stays(preset: str) -> None:
    assert fault(PROSE, preset, "en") is None
    assert fault(f"{PROSE}\n\n{PROSE.replace('leave', 'sick leave').replace('year', 'month')[::-1]}.", preset) is None or preset == "web"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Home. Contact. Imprint.", "too few words"),
        ("a b c d. " * 20, "words too short or too long on average"),
        (PROSE + " ###### " * 20 + "# " * 20, "many # or ..."),
        ("".join(f"Room {number}, {number + 1}, {number + 2}. " for number in range(100, 400, 7)), "few words with letters"),
        (" ".join(f"wort{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(80)) + ".", "no sentences: hardly a stop word"),
        ("\n".join(f"- {PROSE[start : start + 150]}." for start in range(0, 250, 10)), "nothing but bullets"),
        ("\n".join(f"{PROSE[start : start + 60]}..." for start in range(0, 400, 20)), "lines that break off"),
        ("\n".join([PROSE, "The same line stands here.", "The same line stands here."] + ["The same line stands here."] * 5), "repeated lines"),
        ("\n\n".join([PROSE[:100], PROSE, PROSE]), "repeated paragraphs"),
        ("the men and the women " * 30, "the same 2 words again and again"),
        (PROSE + " " + PROSE, "runs of 5 words that come again"),
        (PROSE.replace(".", ",") + " end.", "fewer than 3 sentences"),
        (PROSE + " function() { return; }", "curly bracket: code, not text"),
        (PROSE + " Lorem ipsum dolor.", "lorem ipsum"),
        ("\n".join([*PROSE.split(". "), "Yes, it is so.", "Yes, it is so."]), "lines that come again"),
        ("\n".join(" ".join(WORDS[start : start + 4]) + "!" for start in range(0, len(WORDS) - 3, 4)), "mostly short lines"),
    ],
)
def test_debris_from_the_web(text: str, reason: str) -> None:
    assert fault(text, "web", "en") == reason


def test_light_leaves_out_what_is_mostly_repetition() -> None:
    assert fault("Yes. Yes. Yes.", "light") is None
    assert fault("# A\n{b}", "light") is None
    assert fault("We sell good shoes to you. " * 30, "light") == "mostly the same words again"
    assert fault("\n".join([PROSE] + ["The same line stands here.", *WORDS[:9]] * 30), "light") == "mostly repeated lines"
    assert fault(f"{PROSE} {PROSE[:250]}", "light") is None
    assert fault(f"{PROSE} {PROSE[:250]}", "web") == "runs of 5 words that come again"
    assert fault("We sell good shoes to you. " * 30, "none") is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (PROSE, "en"),
        ("As férias de cada servidor são concedidas pelo chefe da unidade, em até três períodos.", "pt"),
        ("Der Urlaub wird vom Leiter der Abteilung genehmigt und kann in drei Teile geteilt werden.", "de"),
        ("OK", None),
        ("When do evacuation drills take place? Twice a year, in April and October (Safety 2.7).", None),
        ("12345 67890 12345 67890", None),
        ("[NAME aa4188cef3] 7: Please ask [NAME 36aaeb6704] about the form. [NAME 6b7bd7c1ac] 7: Please ask [NAME 3d0c407369] about the form.", None),
        ("", None),
    ],
)
def test_language(text: str, language: str | None) -> None:
    assert language_of(text) == language
