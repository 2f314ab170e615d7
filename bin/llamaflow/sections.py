"""How running text is cut into rows: plain text at blank lines, Markdown at its headings.

Beside the text, a row has for templates: body (the text without headings), title (of the document) and heading (those that lead here, but for the title).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llamaflow.textfiles import Unusable

TEXT_CHARACTERS = 4000
HEADING = re.compile(r" {0,3}(#{1,6})(\s|$)")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")

Line = tuple[int, str]
Section = tuple[int, dict[str, Any]]


def paragraphs(lines: Iterable[Line], title: str = "") -> Iterator[Section]:
    """Paragraphs in order, put together until a row has TEXT_CHARACTERS; without blank lines it ends at twice that."""
    piece: list[str] = []
    start, size = 1, 0
    for number, line in lines:
        if size >= (2 * TEXT_CHARACTERS if line.strip() else TEXT_CHARACTERS):
            yield start, _row(piece, title)
            piece, size = [], 0
        if piece or line.strip():
            start = start if piece else number
            piece.append(line)
            size += len(line) + 1
    if piece:
        yield start, _row(piece, title)


def sections(lines: Iterable[Line], title: str = "") -> Iterator[Section]:
    """One row a section, under the headings that lead to it; a heading with nothing but sections below is no row of its own.

    A document without a title of its own has that of its first heading of level 1.
    """
    headings: dict[int, str] = {}
    body: list[str] = []
    start, fence = 1, ""
    for number, line in lines:
        mark = FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        heading = None if fence else HEADING.match(line)
        if heading:
            yield from _section(start, title, headings, body)
            level = len(heading[1])
            headings = {above: text for above, text in headings.items() if above < level} | {level: line.strip()}
            title = title or (_words_of(line) if level == 1 else "")
            body, start = [], number
        else:
            body.append(line)
    yield from _section(start, title, headings, body)


def _section(start: int, title: str, headings: dict[int, str], body: list[str]) -> Iterator[Section]:
    text = "\n".join(body).strip("\n")
    if text.strip():
        yield start, _row([text], title, list(headings.values()))


def _row(body: list[str], title: str, headings: Sequence[str] = ()) -> dict[str, Any]:
    """What a template asks for and is not there says so: the row is left out by the choice of that template."""
    text = "\n".join(body)
    path = [_words_of(heading) for heading in headings]
    path = path[1:] if path[:1] == [title] else path
    return {
        "text": "\n\n".join([*headings, text]),
        "body": text,
        "title": title or Unusable("document without title", by_choice=True),
        "heading": " > ".join(path) or Unusable("section without heading", by_choice=True),
    }


def _words_of(heading: str) -> str:
    """Without the marks before it, and those after it if a space is between (CommonMark 0.31, 4.2): C# stays C#."""
    words = heading.strip().lstrip("#").strip()
    before = words.rstrip("#")
    return words if before and not before[-1].isspace() else before.rstrip()
