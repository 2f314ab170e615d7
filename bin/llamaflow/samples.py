"""A few records to look at: as collected and as cleaned, and some of what was dropped. Personal data is masked, whatever --personal_data says.

They are chosen by hashes of what they say: the same ones each time, whatever their order.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaflow.data_params import PERSONAL_TYPES, Action, PersonalType
from llamaflow.files import write_text
from llamaflow.personal import Redactor, find
from llamaflow.records import Record

CANDIDATES = 60  # of a source, of each kind: later steps leave some of them out
SHOWN, CHANGED = 20, 12  # records, and how many of them at most cleaning changed
OF_A_REASON, DROPPED = 3, 20
LONGEST = 700  # characters of a record shown
MASKED: dict[PersonalType, Action] = dict.fromkeys(PERSONAL_TYPES, "mask")
Candidate = dict[str, Any]  # id, source, changed, before, after


class Lowest:
    """The few values with the lowest keys of all that came by."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[str, Any] = {}

    def has_room(self, key: str) -> bool:
        return key not in self._values and (len(self._values) < self.size or key < max(self._values))

    def add(self, key: str, value: Any) -> None:
        self._values[key] = value
        if len(self._values) > self.size:
            del self._values[max(self._values)]

    def in_order(self) -> list[Any]:
        return [self._values[key] for key in sorted(self._values)]


class CleaningSample:
    """Some of the records that clean_records keeps. `repair` may bring personal data to light that could not be found before it."""

    def __init__(self, regions: Sequence[str], repair: Callable[[str], str]) -> None:
        self._regions, self._repair = regions, repair
        self._lowest = {is_changed: Lowest(CANDIDATES) for is_changed in (True, False)}

    def offer(self, before: Record, after: Record, names: re.Pattern[str] | None = None, *, changed: bool) -> None:
        lowest = self._lowest[changed]
        if not lowest.has_room(after["id"]):
            return
        given = masked(texts_by_role(before), self._regions, names)
        if not any(find(self._repair(text), self._regions, names) for _, text in given):
            shown = {"before": as_text(given), "after": as_text(masked(texts_by_role(after), self._regions, names))}
            lowest.add(after["id"], {"id": after["id"], "source": after["source"], "changed": changed, **shown})

    def write(self, path: Path) -> None:
        candidates = (candidate for lowest in self._lowest.values() for candidate in lowest.in_order())
        write_text(path, "".join(json.dumps(candidate, ensure_ascii=False) + "\n" for candidate in candidates))


def read_candidates(files: Iterable[Path]) -> dict[tuple[str, str], Candidate]:
    """What CleaningSample wrote of all sources, by id and source."""
    candidates = (json.loads(line) for file in files for line in file.read_text(encoding="utf-8").split("\n") if line)
    return {(candidate["id"], candidate["source"]): candidate for candidate in candidates}


def chosen(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those to be shown, of the candidates that came through all steps."""
    ordered = sorted(candidates, key=lambda candidate: (candidate["id"], candidate["source"]))
    changed = [candidate for candidate in ordered if candidate["changed"]][:CHANGED]
    return [*changed, *[candidate for candidate in ordered if not candidate["changed"]][: SHOWN - len(changed)]]


class DroppedSample:
    """Some dropped records of each reason."""

    def __init__(self, regions: Sequence[str]) -> None:
        self._regions = regions
        self._by_reason: dict[str, Lowest] = {}

    def offer(self, row: Mapping[str, Any]) -> None:
        """`row` is one of dropped.parquet; of those without text there is nothing to show."""
        key = hashlib.sha256(f"{row['source']}\0{row['location']}\0{row['record']}".encode()).hexdigest()
        lowest = self._by_reason.setdefault(row["reason"], Lowest(OF_A_REASON))
        if row["record"] and lowest.has_room(key):
            text = as_text(masked(_texts_of_excerpt(row["record"]), self._regions))
            lowest.add(key, {name: row[name] for name in ("source", "location", "step", "reason")} | {"record": text})

    def chosen(self) -> list[dict[str, Any]]:
        return [row for reason in sorted(self._by_reason) for row in self._by_reason[reason].in_order()][:DROPPED]


def texts_by_role(record: Record) -> Iterator[tuple[str, str]]:
    """Who says what: ("", text) of a text, and the role of a message, which of two answers is their column."""
    if record.get("text"):
        yield "", record["text"]
    for field in ("messages", "prompt", "chosen", "rejected"):
        for turn in record.get(field) or ():
            yield field if field in ("chosen", "rejected") else turn["role"], turn["content"]


def _texts_of_excerpt(excerpt: str) -> Iterable[tuple[str, str]]:
    """Of a whole record what texts_by_role tells; what was cut, or was no record yet, as it is."""
    try:
        return list(texts_by_role(json.loads(excerpt))) or [("", excerpt)]
    except (ValueError, AttributeError, KeyError, TypeError):
        return [("", excerpt.replace("\\n", "\n"))]


def masked(texts: Iterable[tuple[str, str]], regions: Sequence[str], names: re.Pattern[str] | None = None) -> list[tuple[str, str]]:
    mask = Redactor(MASKED, regions, names=names)
    return [(str(role), mask(str(text))) for role, text in texts]


def as_text(texts: Iterable[tuple[str, str]]) -> str:
    whole = "\n".join(f"{role}: {text}" if role else text for role, text in texts)
    return whole if len(whole) <= LONGEST else whole[:LONGEST] + " …"
