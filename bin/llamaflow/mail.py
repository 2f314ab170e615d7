"""Mail as rows: one message of an .eml file (RFC 5322), or all of a mailbox (mbox, RFC 4155)."""

from __future__ import annotations

import email
import mailbox
import re
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from email.utils import getaddresses, parseaddr
from pathlib import Path
from typing import Any

from llamaflow.replies import own_words
from llamaflow.textfiles import Unusable

Row = tuple[int, dict[str, Any] | Unusable]
QUOTED = re.compile(r"^>.*\n?", re.MULTILINE)
NOT_OWN = "//head | //script | //style | //blockquote | //div[contains(@class, 'gmail_quote') or contains(@class, 'moz-cite-prefix')]"
LINES = ("br", "p", "div", "li", "tr")
SIGNATURE = "\n-- \n"  # RFC 3676, 4.3
NO_TEXT = "mail without text"
IDS = re.compile(r"<[^<>\s]+>")


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
    """Subject and text, without what is quoted and without signature; the sender is whom the record is about. Beside it, what threads are made of."""
    try:
        body = message.get_body(("plain", "html"))
        text = own = str(body.get_content()) if body else ""
        if body and body.get_content_subtype() == "html":
            text, own = _visible(text), _visible_lines(text)
        subject, sender, date = (str(message[name] or "") for name in ("Subject", "From", "Date"))
        made = message["Date"].datetime if date else None
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # unknown encodings, headers that are none
        return Unusable(NO_TEXT, str(error))
    headers = _headers(message)
    message_id = "".join(IDS.findall(headers.get("message-id", ""))[:1])
    references = list(dict.fromkeys(IDS.findall(headers.get("references", "") + headers.get("in-reply-to", ""))))
    own = own_words(own.replace("\r\n", "\n"))
    text = QUOTED.sub("", text.replace("\r\n", "\n").partition(SIGNATURE)[0]).strip()
    if not text:
        return Unusable(NO_TEXT, subject)
    return {
        "text": f"{subject}\n\n{text}".strip(),
        "document_id": references[0] if references else message_id,  # the first one began the thread: RFC 5322, 3.6.4
        "subject_id": parseaddr(sender)[1].lower(),
        "created_at": made.isoformat() if made else None,
        "subject": subject,
        "body": own or Unusable("mail without words of its own", by_choice=True),
        "from": sender,
        "people": " ".join(sorted({address.lower() for _, address in getaddresses([headers.get(name, "") for name in ("from", "to", "cc")])})),
        "message_id": message_id,
        "references": " ".join(references),
        "auto_submitted": headers.get("auto-submitted"),
    }


def _headers(message: EmailMessage) -> dict[str, str]:
    """Headers as they were sent, by their names in small letters: to parse them all takes longer than the rest."""
    return {name.lower(): str(value) for name, value in message.raw_items()}


def _visible(page: str) -> str:
    from trafilatura import html2txt

    return str(html2txt(page) or "")


def _visible_lines(page: str) -> str:
    """The text of a page line by line, as it is shown, without its quotations."""
    from trafilatura import load_html

    tree = load_html(page)
    if tree is None:
        return ""
    for part in tree.xpath(NOT_OWN):
        if part.getparent() is not None:
            part.drop_tree()
    for part in tree.iter("*"):
        part.text, part.tail = _on_one_line(part.text), ("\n" if part.tag in LINES else "") + _on_one_line(part.tail)
    return "\n".join(line.strip() for line in str(tree.text_content()).split("\n"))


def _on_one_line(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")
