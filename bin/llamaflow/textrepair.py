"""Repair of text: broken encodings, Unicode form, control characters, white space."""

from __future__ import annotations

import re
import unicodedata

import ftfy
from ftfy.fixes import remove_terminal_escapes

# Quotes, full-width characters and HTML entities are how the author wrote them, so they stay.
REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, fix_character_width=False, unescape_html=False, explain=False)

# UTF-8 read as another encoding shows as two foreign characters in a row that are not both Latin-1 letters, as a C1 control, as a
# replacement character, or as one of six letters before a space that was U+00A0. ftfy takes 0.8 ms for 1,000 characters that are not
# ASCII, so only lines with such a sign (or with a ligature) are given to it.
SUSPICIOUS = re.compile(
    r"[\x80-\x9f\ufffd\ufb00-\ufb06]"
    r"|[^\x00-\x7f\xc0-\xff][^\x00-\x7f]|[\xc0-\xff][^\x00-\x7f\xc0-\xff]"
    r"|[\xc2\xc3\xc5\xce\xd0\xd9] "
)
LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
# with those that nobody sees: soft hyphens, and spaces and joiners without width, with which an address is no longer found as one
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\u206a-\u206f\ufeff\ufff9-\ufffc]")
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u2028\u2029\u2060\u206a-\u206f\ufeff\ufff9-\ufffc]")  # either of the two
TRAILING_SPACE = re.compile(r"[^\S\n]+(?=\n)")
BLANK_LINES = re.compile(r"\n{4,}")


def repair(text: str) -> str:
    """Mend mis-decoded text; NFC; no control characters, trailing white space, or more than two blank lines in a row."""
    if "\x1b" in text:
        text = remove_terminal_escapes(text)
    if not text.isascii():
        text = "\n".join(ftfy.fix_text(line, REPAIR) if SUSPICIOUS.search(line) else line for line in text.split("\n"))
    if UNPRINTABLE.search(text):
        text = CONTROLS.sub("", LINE_ENDS.sub("\n", text))
    text = unicodedata.normalize("NFC", text)  # last: what a control character kept apart may belong together
    if "\n" in text:
        text = BLANK_LINES.sub("\n\n\n", TRAILING_SPACE.sub("", text))
    return text.strip()
