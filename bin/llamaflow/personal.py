"""Personal data and passwords in text: found by pattern, verified by checksum where there is one, then masked, hashed, or a reason to drop the record.

Names of people have no pattern: a model finds them (llamaflow.names), if the user gives one, and all places of a name that it found anywhere in a
record count. Without one they stay, which the data card says.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import phonenumbers
from stdnum import iban, luhn
from stdnum.br import cnpj, cpf

from llamaflow.data_params import Action, PersonalType
from llamaflow.words import is_cased

ISSUERS = re.compile(r"3\d|4|5\d|6\d|2[2-7]")  # ISO/IEC 7812: what cards begin with
# mailboxes of RFC 2142, and those that offices have besides
ROLES = re.compile(
    "abuse|accounts|admin|billing|careers|contact|contato|contacto|dpo|encarregado|feedback|finance|help|helpdesk|hello|hostmaster|hr|imprensa|info|jobs"
    "|legal|marketing|news|noc|noreply|office|orders|ouvidoria|postmaster|press|privacidade|privacy|reservations|returns|rh|sac|sales|secretaria|security"
    "|service|suporte|support|team|vendas|webmaster|www"
)
SEVEN_DIGITS = re.compile(r"(?:\d[\s().\-/]{0,3}){7}")  # a text without has no phone number
SEPARATORS = re.compile(r"[\s().\-/]")
NUMBERS: tuple[PersonalType, ...] = ("iban", "cnpj", "cpf", "credit_card", "rg", "passport")
HASH_DIGITS = 10
WORD_EDGE = r"\b"


@dataclass(frozen=True)
class Found:
    """Personal data at text[start:end]; `value` is the same however it was written."""

    type: PersonalType
    start: int
    end: int
    value: str


@dataclass(frozen=True)
class Pattern:
    """The group `data` is what is personal; without one, the whole match. `check` tells chance hits from real ones.

    A text without the characters `needs`, or with fewer `digits`, need not be searched.
    """

    type: PersonalType
    regex: re.Pattern[str]
    check: Callable[[str], bool] = bool
    needs: str = ""
    digits: int = 0


def _is_ip(text: str) -> bool:
    """An address of RFC 791 or RFC 4291 that may lead to somebody: not 0.0.0.0, ::, or the machine itself, nor a version or a section (4.6.2.0)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    sizes = [len(part) for part in text.split(".")] if address.version == 4 else [3]
    return (max(sizes) == 3 or sizes.count(2) > 1) and not (address.is_unspecified or address.is_loopback)


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and bool(ISSUERS.match(digits)) and luhn.is_valid(digits)


def _is_somebodys(address: str) -> bool:
    """A mailbox of a role belongs to nobody, and answers are there to name it."""
    return not ROLES.fullmatch(re.sub(r"[.+_-]", "", address.partition("@")[0].casefold()))


# the first that matches a place wins, so the most telling ones come first
PATTERNS = (
    Pattern("private_key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), needs="-----BEGIN"),
    Pattern("url_credentials", re.compile(r"(?<=\w://)[^\s/:@]+:[^\s/@]+(?=@)"), needs="://"),
    Pattern(
        "api_key",
        re.compile(
            r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}"
            r"|xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
        ),
    ),
    Pattern("email", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,63}\b"), _is_somebodys, needs="@"),
    Pattern("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), iban.is_valid, digits=2),
    Pattern("cnpj", re.compile(r"(?<![\w.-])[A-Z0-9]{2}\.?[A-Z0-9]{3}\.?[A-Z0-9]{3}/?[A-Z0-9]{4}-?\d{2}(?![\w-])"), cnpj.is_valid, digits=2),
    Pattern("cpf", re.compile(r"(?<![\w.-])\d{3}\.?\d{3}\.?\d{3}-?\d{2}(?![\w-])"), cpf.is_valid, digits=11),
    Pattern("credit_card", re.compile(r"(?<![\w.-])(?:\d{13,19}|\d{4}(?:[ -]\d{4}){3}|\d{4}[ -]\d{6}[ -]\d{4,5})(?![\w-])"), _is_card, digits=13),
    Pattern("rg", re.compile(r"\bRG\b(?:\s*(?:n[.ºo°]*|:))*\s*(?P<data>\d{1,2}\.?\d{3}\.?\d{3}-?[\dXx])\b"), needs="RG", digits=7),
    Pattern("passport", re.compile(r"\b[Pp]assa?port[e]?\b[^\n]{0,20}?\b(?P<data>[A-Z]{1,2}\d{6,8})\b"), needs="ass", digits=6),
    Pattern("ip", re.compile(r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?![\w:]|\.\d)"), _is_ip, digits=6),
    Pattern("ip", re.compile(r"(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]|\.\d)"), _is_ip, needs=":", digits=1),
)


def find(text: str, regions: Sequence[str], names: re.Pattern[str] | None = None) -> list[Found]:
    """All personal data of a text, in order, without overlaps; `regions` are the countries whose phone numbers need no country code.

    `names` matches those of people (see pattern_of).
    """
    found, taken = list[Found](), bytearray(len(text))
    for one in (*_matches(text), *_phones(text, regions), *_named(text, names)):
        if taken.find(1, one.start, one.end) < 0:
            found.append(one)
            taken[one.start : one.end] = b"\1" * (one.end - one.start)
    return sorted(found, key=lambda one: one.start)


def _matches(text: str) -> Iterator[Found]:
    digits = sum(map(text.count, "0123456789"))
    for pattern in PATTERNS:
        if pattern.needs not in text or digits < pattern.digits:
            continue
        for match in pattern.regex.finditer(text):
            group = "data" if "data" in pattern.regex.groupindex else 0
            if pattern.check(match[group]):
                yield Found(pattern.type, *match.span(group), _plain(pattern.type, match[group]))


def _plain(kind: PersonalType, text: str) -> str:
    """The value however it was written: 529.982.247-25 and 52998224725 are one, as are Ana@x.org and ana@x.org."""
    if kind in NUMBERS:
        return SEPARATORS.sub("", text).upper()
    if kind == "name":
        return " ".join(text.casefold().split())
    return text.casefold() if kind in ("email", "ip") else text


def _phones(text: str, regions: Sequence[str]) -> Iterator[Found]:
    """Google's libphonenumber, which knows the numbering plans of all countries."""
    if not SEVEN_DIGITS.search(text):
        return
    for region in regions:
        for match in phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.STRICT_GROUPING):
            start = match.start + (match.raw_string.startswith("(") and ")" not in match.raw_string)  # the bracket is the sentence's
            yield Found("phone", start, match.end, phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.E164))


def _named(text: str, names: re.Pattern[str] | None) -> Iterator[Found]:
    yield from (Found("name", *match.span(), _plain("name", match[0])) for match in (names.finditer(text) if names else ()))


def pattern_of(names: Collection[str]) -> re.Pattern[str] | None:
    """What matches any of these names, the longest first, or None of none. Of scripts with capitals, whose words are parted by spaces, whole words only."""
    return re.compile(_any_of([_parts(name) for name in names])) if names else None


def _parts(name: str) -> list[str]:
    characters = [r"\s+" if character.isspace() else re.escape(character) for character in name]
    return [*([WORD_EDGE] if is_cased(name[0]) else []), *characters, *([WORD_EDGE] if is_cased(name[-1]) else [])]


def _any_of(alternatives: Collection[Sequence[str]]) -> str:
    """A regular expression for any of these sequences of parts: a trie, so that many are looked for as fast as few."""
    following: dict[str, list[Sequence[str]]] = {}
    for first, *rest in filter(None, alternatives):
        following.setdefault(first, []).append(rest)
    branches = [first + _any_of(rests) for first, rests in sorted(following.items(), key=lambda branch: (branch[0] == WORD_EDGE, branch[0]))]
    may_end = "" if all(alternatives) else "?"
    return f"(?:{'|'.join(branches)}){may_end}" if len(branches) > 1 or (branches and may_end) else "".join(branches)


@dataclass
class Redactor:
    """Replace the personal data of one record's texts; the same value gets the same word in all of them.

    A masked value becomes [EMAIL_1], the next one [EMAIL_2]; with a key a hashed one becomes [EMAIL 3f9a1c04be], the same
    everywhere (HMAC-SHA256, RFC 2104). `counts` has how many were found by type, whatever was done.
    """

    actions: Mapping[PersonalType, Action]
    regions: Sequence[str]
    key: bytes = b""
    names: re.Pattern[str] | None = None
    counts: dict[PersonalType, int] = field(default_factory=dict)
    _words: dict[PersonalType, dict[str, str]] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        parts, end = [], 0
        for one in find(text, self.regions, self.names):
            self.counts[one.type] = self.counts.get(one.type, 0) + 1
            if self.actions[one.type] != "keep":
                parts += [text[end : one.start], self._word(one)]
                end = one.end
        return "".join([*parts, text[end:]])

    def forbidden(self) -> PersonalType | None:
        """The first type found for which the record is to be dropped."""
        return next((kind for kind in self.counts if self.actions[kind] == "drop"), None)

    def _word(self, one: Found) -> str:
        words = self._words.setdefault(one.type, {})
        if one.value not in words:
            mark = f" {self._digest(one.value)}" if self.actions[one.type] == "hash" else f"_{len(words) + 1}"
            words[one.value] = f"[{one.type.upper()}{mark}]"
        return words[one.value]

    def _digest(self, value: str) -> str:
        return hmac.new(self.key, value.encode(), hashlib.sha256).hexdigest()[:HASH_DIGITS]
