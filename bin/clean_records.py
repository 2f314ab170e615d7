#!/usr/bin/env python3
"""Repair the text of records and drop those that cannot teach anything.

    clean_records.py --records collected.parquet/00001.parquet < settings.json

The settings hold the groups cleaning and personal_data. Every record is looked at alone, so that several tasks may share a source; whether it lost
too many is asked in deduplicate_records. Writes cleaned.parquet, clean_records.dropped.parquet, clean_records.sample.jsonl
(records to look at, before and after) and the receipt clean_records.json. A rule returns None or the reason to drop; reasons are counted by
source. Personal data goes before anything is written, what is dropped included. Values that are hashed take their key from the environment: LLAMAFLOW_HASH_KEY.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llamaflow.data_params import Action, Cleaning, PersonalData, PersonalType, actions_of
from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.languages import language_of
from llamaflow.personal import Redactor
from llamaflow.quality import fault as quality_fault
from llamaflow.records import DroppedWriter, ParquetWriter, Record, finished, read_rows, texts_of, turns_of
from llamaflow.samples import CleaningSample
from llamaflow.steps import read_settings, receipt
from llamaflow.textrepair import repair

STEP = "clean_records"
FIELDS = ("messages", "prompt", "chosen", "rejected")
ROLES = {"system", "user", "assistant"}
KEY, KEY_CHARACTERS = "LLAMAFLOW_HASH_KEY", 16
ANSWERS_FILTER = {"none": "none", "light": "light", "web": "light"}  # an answer of three words is no debris


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of collect_source")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Rules:
    """What is done to records, as the user chose it."""

    cleaning: Cleaning
    personal: PersonalData

    def redactor(self) -> Redactor:
        return Redactor(self._actions, self.personal.phone_regions, self._key)

    @cached_property
    def _actions(self) -> dict[PersonalType, Action]:
        return actions_of(self.personal.personal_data)

    @cached_property
    def _key(self) -> bytes:
        key = os.environ.get(KEY, "")
        if "hash" in self._actions.values() and len(key) < KEY_CHARACTERS:
            raise UsageError(
                f"--personal_data hashes values, which takes a secret key: without one, whoever has a list of numbers could find them again. "
                f"Set the environment variable {KEY} to at least {KEY_CHARACTERS} random characters (openssl rand -hex 32), or use mask."
            )
        return key.encode()


def run(records: Path, rules: Rules, outdir: Path, settings: Mapping[str, Any]) -> None:
    cleaned, rejected, shown = outdir / "cleaned.parquet", outdir / f"{STEP}.dropped.parquet", outdir / f"{STEP}.sample.jsonl"
    counts: Counter[str] = Counter()
    personal: dict[str, Counter[PersonalType]] = {}
    changed, sample = 0, CleaningSample(rules.personal.phone_regions, repair)
    with receipt(STEP, settings, outdir) as written:
        written.add_input(records)
        with ParquetWriter(cleaned) as kept, DroppedWriter(rejected, STEP) as dropped:
            for record in read_rows(records):
                redactor = rules.redactor()
                repaired = with_texts(with_texts(record, repair), redactor)
                personal.setdefault(record["source"], Counter()).update(redactor.counts)
                problem = fault(repaired, rules.cleaning)
                unwanted = problem or filtered(repaired, rules.cleaning, redactor)
                if unwanted:
                    dropped.drop(record["source"], record["meta"]["location"], unwanted, repaired, by_choice=not problem)
                    continue
                is_changed = any(repaired[field] != record[field] for field in ("text", *FIELDS))
                changed += is_changed
                kept.write(finished(repaired, rules.cleaning.system_prompt))
                sample.offer(record, repaired, changed=is_changed)
                counts[record["source"]] += 1
        sample.write(shown)
        for path in (cleaned, rejected, shown):
            written.add_output(path)
        by_source = {source: {"kept": counts[source], "dropped": dropped.by_source.get(source, {})} for source in sorted({*counts, *dropped.by_source})}
        found = {source: dict(sorted(types.items())) for source, types in sorted(personal.items()) if types}
        written.counts = {
            "records": kept.count,
            "changed": changed,
            "dropped": dropped.reasons,
            "sources": by_source,
            "faults": dropped.faults,
            "personal_data": found,
        }


def with_texts(record: Record, change: Callable[[str], str]) -> Record:
    """The record with all its texts changed; a system message without text says nothing and is left out."""
    result = dict(record)
    for name in ("text", "label"):
        if record[name] is not None:
            result[name] = change(record[name])
    for name in FIELDS:
        if record[name] is not None:
            turns = [{"role": turn["role"], "content": change(turn["content"])} for turn in record[name]]
            result[name] = [turn for turn in turns if turn["content"] or turn["role"] != "system"]
    return result


def filtered(record: Record, cleaning: Cleaning, redactor: Redactor) -> str | None:
    """The reason to leave out a sound record, as the user's filters have it, or None. The record's language is noted where it can be told."""
    if kind := redactor.forbidden():
        return f"personal data: {kind}"
    meta = record["meta"]
    meta["language"] = meta["language"] or language_of(" ".join(turn["content"] for turn in turns_of(record) if turn["role"] != "system") or record["text"])
    spoken = (meta["language"] or "").lower().partition("-")[0]
    if cleaning.languages and spoken and spoken not in cleaning.languages:
        return f"language: {spoken}"
    if record["type"] == "text":
        reason = quality_fault(record["text"], cleaning.quality_filter, spoken)
    else:
        answers = (turn["content"] for turn in (record["messages"] or record["chosen"]) if turn["role"] == "assistant")
        reason = next(filter(None, (quality_fault(answer, ANSWERS_FILTER[cleaning.quality_filter]) for answer in answers)), None)
    return reason and f"quality: {reason}"


def fault(record: Record, cleaning: Cleaning) -> str | None:
    """The reason to drop a record, or None. Lengths count all its texts, before a system prompt is added."""
    length = sum(map(len, texts_of(record)))
    if not length:
        return "empty"
    problem = {"text": lambda _: None, "chat": _chat_fault, "preference": _preference_fault}[record["type"]](record)
    if problem:
        return problem
    if length < cleaning.min_characters:
        return "too short"
    return "too long" if length > cleaning.max_characters else None


def _chat_fault(record: Record) -> str | None:
    return _turns_fault(record) or _order_fault(record["messages"])


def _preference_fault(record: Record) -> str | None:
    prompt, chosen, rejected = record["prompt"], record["chosen"], record["rejected"]
    problem = _turns_fault(record) or _order_fault(prompt + chosen) or _order_fault(prompt + rejected)
    if problem:
        return problem
    if not prompt or prompt[-1]["role"] != "user" or not chosen or not rejected:
        return "role order"
    return "chosen equals rejected" if chosen == rejected else None


def _turns_fault(record: Record) -> str | None:
    turns = turns_of(record)
    if any(turn["role"] not in ROLES for turn in turns):
        return "unknown role"
    return "empty turn" if not all(turn["content"] for turn in turns) else None


def _order_fault(turns: list[dict[str, str]]) -> str | None:
    """A system message at most, then user and assistant in turns; the assistant has the last word."""
    roles = [turn["role"] for turn in turns]
    for role in ("assistant", "user"):
        if role not in roles:
            return f"no {role} turn"
    roles = roles[1:] if roles[0] == "system" else roles
    is_alternating = len(roles) % 2 == 0 and all(role == ("user", "assistant")[place % 2] for place, role in enumerate(roles))
    return None if is_alternating else "role order"


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    rules = Rules(
        Cleaning.model_validate(settings.get("cleaning", {})),
        PersonalData.model_validate(settings.get("personal_data", {})),
    )
    run(args.records, rules, args.outdir, settings)


if __name__ == "__main__":
    main()
