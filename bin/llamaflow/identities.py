"""What a record is known by, as numbers of 64 bits: what it says, what it asks, whom it is about, what text it was made from, and what it is a part of."""

from __future__ import annotations

import hashlib
import re

from llamaflow.records import Record, fold
from llamaflow.subjects import people_of

COLUMNS = ("id", "source", "type", "messages", "prompt", "meta")  # what these numbers are made of
NOTHING = 0
PASSAGE = re.compile(r"\[\d+:\d+\]$")  # where in a text a question was generated from, see generate_records


def number_of(row: Record) -> int:
    """The first half of a record's id."""
    return int(row["id"][:16], 16)


def replaced_of(row: Record) -> int:
    """The same of the record of an earlier run whose place this one takes (see deduplicate_records); NOTHING if there is none."""
    replaced = row["meta"].get("replaces")
    return int(replaced[:16], 16) if replaced else NOTHING


def group_of(row: Record, seed: int) -> int:
    """Hash of the seed and the prompt (all but the last answer); texts without a prompt count by their id."""
    turns = row["messages"][:-1] if row["type"] == "chat" else row["prompt"]
    prompt = row["id"] if row["type"] == "text" else "\x1e".join(f"{turn['role']}\x1f{fold(turn['content'])}" for turn in turns)
    return _hash(f"{seed}\0{prompt}")


def subject_of(row: Record, seed: int) -> int:
    """Hash of the seed and of whom the record is about, of several people the first one; NOTHING if that is not known."""
    people = people_of(row["meta"]["subject_id"])  # not all of several: who answers everybody would make all conversations one group
    return _hash(f"{seed}\1{people[0]}") if people else NOTHING


def text_of(row: Record, seed: int) -> int:
    """Hash of the seed and of the text that a question was generated from; NOTHING if it was not."""
    location = row["meta"]["location"] or ""
    if not PASSAGE.search(location):
        return NOTHING
    return _hash(f"{seed}\2{row['source']}\2{PASSAGE.sub('', location)}")


def document_of(row: Record, seed: int) -> int:
    """Hash of the seed and of the document or thread, of the same source, that the record is a part of; NOTHING if it is a part of none."""
    document = row["meta"].get("document_id")  # earlier runs may not have it
    return _hash(f"{seed}\3{row['source']}\3{document}") if document else NOTHING


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
