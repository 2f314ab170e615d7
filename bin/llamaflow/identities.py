"""What a record is known by, as numbers of 64 bits: what it says, what it asks, whom it is about, and what text it was made from."""

from __future__ import annotations

import hashlib
import re

from llamaflow.records import Record, fold

COLUMNS = ("id", "type", "messages", "prompt", "meta")  # what these numbers are made of
NOBODY = NOTHING = 0
PASSAGE = re.compile(r"\[\d+:\d+\]$")  # where in a text a question was generated from, see generate_records


def number_of(row: Record) -> int:
    """The first half of a record's id."""
    return int(row["id"][:16], 16)


def group_of(row: Record, seed: int) -> int:
    """Hash of the seed and the prompt (all but the last answer); texts without a prompt count by their id."""
    turns = row["messages"][:-1] if row["type"] == "chat" else row["prompt"]
    prompt = row["id"] if row["type"] == "text" else "\x1e".join(f"{turn['role']}\x1f{fold(turn['content'])}" for turn in turns)
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{prompt}".encode(), digest_size=8).digest())


def subject_of(row: Record, seed: int) -> int:
    """Hash of the seed and of whom the record is about; NOBODY if that is not known."""
    subject = row["meta"]["subject_id"]
    return int.from_bytes(hashlib.blake2b(f"{seed}\1{subject}".encode(), digest_size=8).digest()) if subject else NOBODY


def text_of(row: Record, seed: int) -> int:
    """Hash of the seed and of the text that a question was generated from; NOTHING if it was not."""
    location = row["meta"]["location"] or ""
    if not PASSAGE.search(location):
        return NOTHING
    return int.from_bytes(hashlib.blake2b(f"{seed}\2{row['source']}\2{PASSAGE.sub('', location)}".encode(), digest_size=8).digest())
