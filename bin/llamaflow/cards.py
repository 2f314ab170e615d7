"""What the cards of the model and of the data have in common: Markdown, in which what comes from users shows as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

LANGUAGE_SHARE = 0.05


def main_languages(counts: Mapping[str, int]) -> list[str]:
    """What texts are in; a language of a few records may be a mistake of its detection."""
    return sorted(language for language, count in counts.items() if language != "unknown" and count >= LANGUAGE_SHARE * sum(counts.values()))


class Markdown(str):
    """A cell that is Markdown already."""

    __slots__ = ()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell if isinstance(cell, Markdown) else escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in a line or a cell."""
    return re.sub(r"([\\`*_\[\]<>|~#&$!])", r"\\\1", " ".join(str(text).split()))


def fenced(text: str, language: str = "text") -> str:
    """Text as a block of code, whose fence is longer than any in the text."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text}\n{fence}"
