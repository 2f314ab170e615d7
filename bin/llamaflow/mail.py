"""Mail as rows: one message of an .eml file (RFC 5322), or all of a mailbox (mbox, RFC 4155)."""

from __future__ import annotations

import email
import mailbox
import re
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from llamaflow.textfiles import Unusable

Row = tuple[int, dict[str, Any] | Unusable]
QUOTED = re.compile(r"^>.*\n?", re.MULTILINE)
SIGNATURE = "\n-- \n"  # RFC 3676, 4.3
NO_TEXT = "mail without text"


def eml(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        yield 1, _row(_parsed(file))


def mbox(path: Path) -> Iterator[Row]:
    box = mailbox.mbox(path, create=False)
    try:
        yield from ((number, _row(_parsed(box.get_file(key)))) for number, key in enumerate(box.iterkeys(), 1))
    finally:
        box.close()


def _parsed(file: Any) -> EmailMessage:
    return email.message_from_binary_file(file, policy=default)


def _row(message: EmailMessage) -> dict[str, Any] | Unusable:
    """Subject and text, without what is quoted and without signature; the sender is whom the record is about."""
    try:
        body = message.get_body(("plain", "html"))
        text = str(body.get_content()) if body else ""
        if body and body.get_content_subtype() == "html":
            text = _visible(text)
        subject, sender, date = (str(message[name] or "") for name in ("Subject", "From", "Date"))
        made = message["Date"].datetime if date else None
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # unknown encodings, headers that are none
        return Unusable(NO_TEXT, str(error))
    text = QUOTED.sub("", text.replace("\r\n", "\n").partition(SIGNATURE)[0]).strip()
    if not text:
        return Unusable(NO_TEXT, subject)
    return {"text": f"{subject}\n\n{text}".strip(), "subject_id": parseaddr(sender)[1].lower(), "created_at": made.isoformat() if made else None}


def _visible(page: str) -> str:
    from trafilatura import html2txt

    return str(html2txt(page) or "")
