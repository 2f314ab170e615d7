"""Conversations put together from single messages: threads of mail, and tables with one message a row.

Messages wait in an SQLite file beside the results: those of a conversation need not stand together, and memory does not grow with the data.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parseaddr
from functools import lru_cache
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llamaflow.records import DroppedWriter, Record, ShardsWriter, content_id, seconds_of
from llamaflow.rows import ROLES, Fields, Shape, cell, optional_text
from llamaflow.sources import Source
from llamaflow.templates import folded
from llamaflow.textfiles import Unusable

MAIL = ("message_id", "from", "body")
AUTHORS, CONTENTS = ("author", "from", "role"), ("content", "body", "text")
MESSAGES = 1000  # of a conversation: more is a column that does not tell conversations apart
REPLY = re.compile(r"((re|aw|antw|res|rv|sv|r|rif|fw|fwd|wg|enc|tr)(\[\d+\])? ?: *)+", re.IGNORECASE)
TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE link (key TEXT PRIMARY KEY, conversation INTEGER) WITHOUT ROWID;
    CREATE INDEX links ON link (conversation);
    CREATE TABLE message (conversation INTEGER, sent REAL, number INTEGER, record TEXT);
    CREATE INDEX messages ON message (conversation, sent, number);
    BEGIN;
"""


def message_shape(columns: Iterable[str], source: Source) -> Shape | None:
    """How a row becomes a message: a conversation of one turn, and with it `keys`, of which those of one conversation share one,
    `starts` (the keys that from here on are its own), `sent` (what orders them) and `subject`."""
    present = set(columns)
    if source.conversation is None:
        return (
            Shape("chat", MAIL, lambda row: _from_mail(row, source), ("references", "people", "subject", "auto_submitted"))
            if present.issuperset(MAIL)
            else None
        )
    key = folded(source.conversation)
    author = next((name for name in (AUTHORS if source.assistant else ("role",)) if name in present), None)
    content = next((name for name in CONTENTS if name in present), None)
    if key not in present or author is None or content is None:
        return None
    return Shape("chat", (key, author, content), lambda row: _from_row(row, source, key, author, content))


def _from_row(row: Mapping[str, Any], source: Source, key: str, author: str, content: str) -> Fields:
    role = _role(cell(row, author), source)
    return {"messages": [{"role": role, "content": cell(row, content)}], "keys": [cell(row, key)], "starts": [], "sent": 0.0, "subject": ""}


def _from_mail(row: Mapping[str, Any], source: Source) -> Fields:
    """References (RFC 5322, 3.6.4) make a thread; an answer without any belongs to the last mail of the same people and subject."""
    if (optional_text(row, "auto_submitted") or "no").lower() != "no":
        raise Unusable("automatic mail", by_choice=True)
    given, references = optional_text(row, "subject") or "", (optional_text(row, "references") or "").split()
    subject = REPLY.sub("", given, count=1) if REPLY.match(given) else given
    topic = [f"{folded(subject)}\n{optional_text(row, 'people')}"] if subject else []
    is_stray = subject != given and not references
    return {
        "messages": [{"role": _role(cell(row, "from"), source), "content": cell(row, "body")}],
        "keys": [*filter(None, [optional_text(row, "message_id")]), *references, *(topic if is_stray else ())],
        "starts": [] if subject != given else topic,
        "sent": _seconds(optional_text(row, "created_at") or ""),
        "subject": subject,
    }


def _seconds(sent: str) -> float:
    if (seconds := seconds_of(sent)) is None:
        raise Unusable("mail without date", sent)
    return seconds


def _role(author: str, source: Source) -> str:
    """Without names of assistants, the author is a role."""
    if source.assistant:
        return "user" if _names_of(author).isdisjoint(source.assistants) else "assistant"
    role = ROLES.get(author.lower(), author.lower())
    if role not in ("user", "assistant", "system"):
        raise Unusable("message of an unknown role", f"{author!r}; say in the column assistant of the samplesheet whose messages are the assistant's")
    return role


@lru_cache(maxsize=4096)
def _names_of(author: str) -> set[str]:
    address = parseaddr(author)[1].lower()
    return {author.lower(), address, address.rpartition("@")[2]}


class Conversations:
    """Take messages in any order, then write the conversations that they make, in the order of their first ones."""

    def __init__(self, path: Path) -> None:
        self.count = self.left_out = 0
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(TABLES)

    def write(self, message: Record) -> None:
        keys, starts = message.pop("keys"), message.pop("starts")
        known = self._known(keys)
        conversation = known[0] if known else self.count
        for other in known[1:]:
            for table in ("link", "message"):
                self._database.execute(f"UPDATE {table} SET conversation = ? WHERE conversation = ?", (conversation, other))  # noqa: S608 - our own words
        self._database.executemany("INSERT OR REPLACE INTO link VALUES (?, ?)", [(key, conversation) for key in [*keys, *starts]])
        self._database.execute("INSERT INTO message VALUES (?, ?, ?, ?)", (conversation, message.pop("sent"), self.count, json.dumps(message)))
        self.count += 1

    def _known(self, keys: Sequence[str]) -> list[int]:
        found = (self._database.execute("SELECT conversation FROM link WHERE key = ?", (key,)).fetchone() for key in keys)
        return sorted({row[0] for row in found if row})

    def write_to(self, kept: ShardsWriter, dropped: DroppedWriter) -> None:
        for messages in self._together():
            try:
                kept.write(self._joined(messages))
            except Unusable as problem:
                first = messages[0]
                dropped.drop(first["source"], first["meta"]["location"], problem.reason, first, problem.detail, by_choice=problem.by_choice)

    def _together(self) -> Iterator[list[Record]]:
        rows = self._database.execute("SELECT conversation, record FROM message ORDER BY conversation, sent, number")
        for _, group in groupby(rows, itemgetter(0)):
            yield [json.loads(record) for _, record in islice(group, MESSAGES + 1)]

    def _joined(self, messages: list[Record]) -> Record:
        """From the first question to the last answer; what one side says in a row, once each, is one turn."""
        if len(messages) > MESSAGES:
            raise Unusable(f"conversation of more than {MESSAGES} messages", "does the column tell conversations apart?")
        roles = [message["messages"][0]["role"] for message in messages]
        start = roles.index("user") if "user" in roles else len(roles)
        end = len(roles) - roles[::-1].index("assistant") if "assistant" in roles else 0
        if start >= end:
            raise Unusable("conversation without an answer", by_choice=True)
        told = [message for message in messages[start:end] if message["messages"][0]["role"] != "system"]
        opening = [message["messages"][0] for message in messages[:start] if message["messages"][0]["role"] == "system"][:1]
        self.left_out += len(messages) - len(told) - len(opening)
        return _record(told, opening)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._database.close()


def _record(messages: list[Record], opening: list[dict[str, str]]) -> Record:
    """The first message says what the record is about; whatever it leaves open may be said later. It is about all who speak."""
    turns = [message["messages"][0] for message in messages]
    first = messages[0]
    subject = first.pop("subject")
    joined = [{"role": role, "content": "\n\n".join(dict.fromkeys(turn["content"] for turn in group))} for role, group in groupby(turns, itemgetter("role"))]
    joined[0]["content"] = f"{subject}\n\n{joined[0]['content']}".strip()
    later = {name: next((message[name] for message in messages if message[name] is not None), None) for name in ("label", "liked", "split")}
    people = dict.fromkeys(message["meta"]["subject_id"] for message in messages if message["meta"]["subject_id"])
    meta = {**first["meta"], "subject_id": "\n".join(people) or None}
    record = {**first, **later, "messages": opening + joined, "meta": meta}
    return {**record, "id": content_id(record)}
