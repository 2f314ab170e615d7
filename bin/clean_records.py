#!/usr/bin/env python3
"""Repair the text of records and drop those that cannot teach anything.

    clean_records.py --records collected.parquet < settings.json

The settings hold {"cleaning": {...}}. Writes cleaned.parquet, clean_records.dropped.parquet and the receipt clean_records.json.
A rule returns None or the reason to drop; reasons are counted by source.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaflow.errors import DataError, exits_cleanly
from llamaflow.params import Cleaning
from llamaflow.records import DroppedWriter, ParquetWriter, Record, content_id, read_rows, texts_of, turns_of
from llamaflow.steps import read_settings, receipt
from llamaflow.textrepair import repair

STEP = "clean_records"
FIELDS = ("messages", "prompt", "chosen", "rejected")
ROLES = {"system", "user", "assistant"}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of collect_source")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(records: Path, cleaning: Cleaning, outdir: Path, settings: Mapping[str, Any]) -> None:
    cleaned, rejected = outdir / "cleaned.parquet", outdir / f"{STEP}.dropped.parquet"
    counts: Counter[str] = Counter()
    changed = 0
    with receipt(STEP, settings, outdir) as written:
        written.add_input(records)
        with ParquetWriter(cleaned) as kept, DroppedWriter(rejected, STEP) as dropped:
            for record in read_rows(records):
                repaired = repaired_record(record)
                reason = fault(repaired, cleaning)
                if reason:
                    dropped.drop(record["source"], record["meta"]["location"], reason, record)
                    continue
                changed += any(repaired[field] != record[field] for field in ("text", *FIELDS))
                kept.write(finished(repaired, cleaning.system_prompt))
                counts[record["source"]] += 1
            dropped.refuse_too_many(counts, cleaning.max_dropped_fraction)
            if not kept.count:
                raise DataError(
                    f"all records were dropped: {_listed(dropped.reasons) or 'there were none'}. See the cleaning parameters in docs/parameters.md."
                )
        written.add_output(cleaned)
        written.add_output(rejected)
        by_source = {source: {"kept": counts[source], "dropped": dropped.by_source.get(source, {})} for source in sorted({*counts, *dropped.by_source})}
        written.counts = {"records": kept.count, "changed": changed, "dropped": dropped.reasons, "sources": by_source}


def repaired_record(record: Record) -> Record:
    """The record with all its texts repaired; a system message without text says nothing and is left out."""
    result = dict(record)
    for name in ("text", "label"):
        if record[name] is not None:
            result[name] = repair(record[name])
    for name in FIELDS:
        if record[name] is not None:
            turns = [{"role": turn["role"], "content": repair(turn["content"])} for turn in record[name]]
            result[name] = [turn for turn in turns if turn["content"] or turn["role"] != "system"]
    return result


def finished(record: Record, system_prompt: str | None) -> Record:
    """Add the system message where there is none, and give the record the id of its new content."""
    field = {"chat": "messages", "preference": "prompt"}.get(record["type"])
    if system_prompt and field and record[field][0]["role"] != "system":
        record[field] = [{"role": "system", "content": system_prompt}, *record[field]]
    record["id"] = content_id(record)
    return record


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


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.items())


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    run(args.records, Cleaning.model_validate(settings.get("cleaning", {})), args.outdir, settings)


if __name__ == "__main__":
    main()
