"""Rules that tell text written for readers from debris, as published with large web corpora; each gives its reason.

Gopher: Rae et al. 2021, https://arxiv.org/abs/2112.11446, appendix A.1; C4: Raffel et al. 2020, https://arxiv.org/abs/1910.10683;
FineWeb: Penedo et al. 2024, https://arxiv.org/abs/2406.17557. They were made for long pages of the web, and drop three of a hundred sections of a
good manual for their technical terms: the preset light only leaves out what is mostly repetition.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*|[^\w\s]+")
SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f\u2026]+[\"'\u201d\u2019)]*(?:\s|$)")
PARAGRAPHS = re.compile(r"\n{2,}")
LINES = re.compile(r"\n+")
ENDS = (".", "!", "?", '"', "'", "\u201d", "\u2019", "\u2026", "\u3002", "\uff01", "\uff1f")
STOP_WORDS = {
    "en": {"the", "be", "to", "of", "and", "that", "have", "with"},
    "pt": {"o", "a", "de", "que", "e", "do", "da", "em", "um", "para"},
    "es": {"el", "la", "de", "que", "y", "en", "un", "los", "con"},
    "fr": {"le", "la", "de", "et", "les", "des", "en", "un", "une", "est"},
    "de": {"der", "die", "und", "in", "den", "das", "mit", "von", "ist"},
    "it": {"il", "di", "che", "e", "la", "un", "per", "in", "con"},
}
WORDS, MOST_WORDS = 50, 100_000
MOSTLY = 0.5
ZLIB_WINDOW, DENSE = 32_768, 0.4  # bytes (RFC 1950); prose takes half of its size, what stands there twice a quarter
TOP_NGRAMS = {2: 0.20, 3: 0.18, 4: 0.16}  # share of characters in the most frequent one
REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # share of characters in any that comes again


@dataclass(frozen=True)
class Text:
    """A text, its words (marks between them are words of their own) and its language, if that is known."""

    text: str
    language: str | None = None

    @cached_property
    def words(self) -> list[str]:
        return WORD.findall(self.text)

    @cached_property
    def spoken(self) -> list[str]:
        return [word for word in self.words if word[0].isalnum()]

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.split("\n") if line.strip()]


Rule = Callable[[Text], str | None]


def gopher_words(given: Text) -> str | None:
    words, spoken = given.words, given.spoken
    if not WORDS <= len(spoken) <= MOST_WORDS:
        return "too few words" if len(spoken) < WORDS else "too many words"
    if not 3 <= sum(map(len, spoken)) / len(spoken) <= 10:
        return "words too short or too long on average"
    if max(given.text.count("#"), given.text.count("...") + given.text.count("\u2026")) / len(words) > 0.1:
        return "many # or ..."
    if sum(any(character.isalpha() for character in word) for word in words) / len(words) < 0.8:
        return "few words with letters"
    known = STOP_WORDS.get(given.language or "")
    return "no sentences: hardly a stop word" if known and len(known.intersection(map(str.lower, words))) < 2 else None


def gopher_lines(given: Text) -> str | None:
    most = len(given.lines)
    if sum(line.startswith(("•", "-")) for line in given.lines) > 0.9 * most:
        return "nothing but bullets"
    return "lines that break off" if sum(line.endswith(("...", "\u2026")) for line in given.lines) > 0.3 * most else None


def mostly_repetition(given: Text) -> str | None:
    """Shorter texts may repeat themselves: yes, yes."""
    if _says_new_things(given.text) or len(given.spoken) < WORDS:
        return None
    most = MOSTLY * len(given.text)
    if _repeated(given.lines)[1] > most:
        return "mostly repeated lines"
    return "mostly the same words again" if _characters_again(given.words, min(REPEATED_NGRAMS)) > most else None


def _says_new_things(text: str) -> bool:
    """A quick look that spares most texts the long one: what can hardly be compressed does not repeat itself."""
    data = text.encode()
    return len(data) < ZLIB_WINDOW and len(zlib.compress(data, 1)) > DENSE * len(data)


def repeated_lines(given: Text) -> str | None:
    for kind, parts in (("paragraphs", PARAGRAPHS.split(given.text.strip())), ("lines", LINES.split(given.text))):
        again, characters = _repeated(parts)
        if again > 0.3 * len(parts) or characters > 0.2 * len(given.text):
            return f"repeated {kind}"
    return None


def _repeated(parts: Iterable[str]) -> tuple[int, int]:
    """How many parts stood there before, and their characters."""
    seen: set[str] = set()
    again = characters = 0
    for part in parts:
        if part in seen:
            again, characters = again + 1, characters + len(part)
        seen.add(part)
    return again, characters


def repeated_words(given: Text) -> str | None:
    for length, most in TOP_NGRAMS.items():
        gram, times = Counter(zip(*(given.words[start:] for start in range(length)), strict=False)).most_common(1)[0]
        if times > 1 and len(" ".join(gram)) * times > most * len(given.text):
            return f"the same {length} words again and again"
    for length, most in REPEATED_NGRAMS.items():
        if _characters_again(given.words, length) > most * len(given.text):
            return f"runs of {length} words that come again"
    return None


def _characters_again(words: list[str], length: int) -> int:
    """Characters in runs of words that stood there before; overlapping runs count once."""
    seen: set[str] = set()
    characters = place = 0
    while place + length <= len(words):
        gram = "".join(words[place : place + length])
        if gram in seen:
            characters, place = characters + len(gram), place + length
        else:
            seen.add(gram)
            place += 1
    return characters


def c4(given: Text) -> str | None:
    if "lorem ipsum" in given.text.casefold():
        return "lorem ipsum"
    if "{" in given.text:
        return "curly bracket: code, not text"
    return "fewer than 3 sentences" if len(SENTENCE_END.findall(given.text)) < 3 else None


def fineweb(given: Text) -> str | None:
    most = len(given.lines)
    if sum(line.endswith(ENDS) for line in given.lines) < 0.12 * most:
        return "lines without an end of a sentence"
    if sum(len(line) <= 30 for line in given.lines) > 0.67 * most:
        return "mostly short lines"
    if _repeated(given.lines)[1] > 0.01 * len(given.text.replace("\n", "")):
        return "lines that come again"
    return "one word a line" if given.text.count("\n") > 0.3 * len(given.words) else None


PRESETS: dict[str, tuple[Rule, ...]] = {
    "none": (),
    "light": (mostly_repetition,),
    "web": (gopher_words, gopher_lines, repeated_lines, repeated_words, c4, fineweb),
}


def fault(text: str, preset: str, language: str | None = None) -> str | None:
    """The first rule's reason to drop a text, or None."""
    given = Text(text, language)
    return next((reason for rule in PRESETS[preset] if (reason := rule(given))), None)
