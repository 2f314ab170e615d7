"""What somebody wrote in a mail, without what it answers.

Own code: the libraries for it know no Portuguese, cut at words such as "Thanks," or are no longer maintained. Lines are looked at one by one,
and as much of each as an attribution can have, so that no mail takes long.
"""

from __future__ import annotations

import re
from itertools import takewhile

OPENINGS = ("On ", "Am ", "Em ", "No dia ", "El ", "Le ", "Il ")
WROTE = re.compile(r"\b(wrote|schrieb|escreveu|escribió|a écrit|ha scritto)\b.{0,200}:$")
ESCAPED = ">From "  # in a mailbox; a line that begins with From would begin a mail
ATTRIBUTION_LINES, ATTRIBUTION_CHARACTERS = 3, 400
ORIGINAL = re.compile(
    r"-{2,} ?(original message|ursprüngliche nachricht|mensagem original|mensaje original|message d.origine|messaggio originale) ?-{2,}", re.I
)
# the heads of what Outlook quotes
SENDER = re.compile(r"\*?(From|Von|De|Da) ?:")
DATE = re.compile(r"\*?(Sent|Gesendet|Enviad[ao]( em| el)?|Envoyé|Inviato|Date|Datum|Data|Fecha) ?:")


def own_words(text: str) -> str:
    """The text without quotations, the lines that announce them, and signature (RFC 3676, 4.3)."""
    lines, kept = [line.rstrip() for line in text.split("\n")], list[str]()
    for number, line in enumerate(lines):
        if line == "--" or ORIGINAL.match(line) or _heads_original(lines[number : number + 3]):
            break
        if line.startswith(">") and not line.startswith(ESCAPED):
            _leave_out_attribution(kept)
        else:
            kept.append(line.removeprefix(">"))
    _leave_out_attribution(kept)
    return "\n".join(kept).strip("\n _")


def _heads_original(lines: list[str]) -> bool:
    return bool(SENDER.match(lines[0])) and any(DATE.match(line) for line in lines[1:])


def _leave_out_attribution(kept: list[str]) -> None:
    """The lines before a quotation, such as "On Sunday Ana wrote:", which may be broken."""
    while kept and not kept[-1]:
        kept.pop()
    paragraph = list(takewhile(bool, reversed(kept[-ATTRIBUTION_LINES:])))
    lasts = [" ".join(reversed(paragraph[:count])) for count in range(1, len(paragraph) + 1)]
    found = [count for count, last in enumerate(lasts, 1) if len(last) <= ATTRIBUTION_CHARACTERS and WROTE.search(last)]
    # the shortest that begins as one: a sentence before it may begin so too
    count = next((count for count in found if lasts[count - 1].startswith(OPENINGS)), 1 if 1 in found else 0)
    del kept[len(kept) - count :]
