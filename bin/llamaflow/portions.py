"""Texts of several records at once, for what is quicker with many: as many as fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def portions(records: Iterable[list[str]], characters: int) -> Iterator[list[list[str]]]:
    """The texts of records, as many records together as reach so many characters."""
    waiting, found = list[list[str]](), 0
    for texts in records:
        waiting.append(texts)
        found += 1 + sum(map(len, texts))
        if found >= characters:
            yield waiting
            waiting, found = [], 0
    if waiting:
        yield waiting
