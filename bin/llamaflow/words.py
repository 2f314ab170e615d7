"""Texts as they are compared: folded, without what differs in every record anyway, and in words."""

from __future__ import annotations

import re

from llamaflow.records import Record, fold, turns_of

TURN = "\x1e"
# Thai, Chinese, Japanese and Korean are written without spaces between words: there a character counts as one
ALONE = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+")


def compared(record: Record) -> str:
    """What two records are compared by: the text, or what was said turn by turn, without system messages; folded, a line a line."""
    turns = [turn["content"] for turn in turns_of(record) if turn["role"] != "system"] or [record["text"]]
    lines = ("\n".join(filter(None, map(fold, turn.split("\n")))) for turn in turns)
    return TURN.join(lines)


def is_cased(character: str) -> bool:
    """Whether it is a letter of a script with capitals, whose words are parted by spaces."""
    return character.lower() != character.upper()
