"""How running text is cut into rows: plain text at blank lines, Markdown at its headings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

TEXT_CHARACTERS = 4000
HEADING = re.compile(r" {0,3}(#{1,6})(\s|$)")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")

Line = tuple[int, str]
Section = tuple[int, dict[str, str]]


def paragraphs(lines: Iterable[Line]) -> Iterator[Section]:
    """Paragraphs in order, put together until a row has TEXT_CHARACTERS; without blank lines it ends at twice that."""
    piece: list[str] = []
    start, size = 1, 0
    for number, line in lines:
        if size >= (2 * TEXT_CHARACTERS if line.strip() else TEXT_CHARACTERS):
            yield start, {"text": "\n".join(piece)}
            piece, size = [], 0
        if piece or line.strip():
            start = start if piece else number
            piece.append(line)
            size += len(line) + 1
    if piece:
        yield start, {"text": "\n".join(piece)}


def sections(lines: Iterable[Line]) -> Iterator[Section]:
    """One row a section, under the headings that lead to it; a heading with nothing but sections below is no row of its own."""
    titles: dict[int, str] = {}
    body: list[str] = []
    start, fence = 1, ""
    for number, line in lines:
        mark = FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        heading = None if fence else HEADING.match(line)
        if heading:
            yield from _section(start, titles, body)
            level = len(heading[1])
            titles = {above: title for above, title in titles.items() if above < level} | {level: line.strip()}
            body, start = [], number
        else:
            body.append(line)
    yield from _section(start, titles, body)


def _section(start: int, titles: dict[int, str], body: list[str]) -> Iterator[Section]:
    text = "\n".join(body).strip("\n")
    if text.strip():
        yield start, {"text": "\n\n".join([*titles.values(), text])}
