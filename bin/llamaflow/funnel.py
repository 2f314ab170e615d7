"""What became of the records of each source on their way, from the receipts of the steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

STEPS_BEFORE = ("collect_source", "clean_records", "generate_records", "deduplicate_records")


def funnel(receipts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each step kept and dropped of each source, in the order of the steps; a source may have been cleaned in several parts."""
    entries: dict[tuple[int, str], dict[str, Any]] = {}
    for made in receipts:
        if made["step"] in STEPS_BEFORE:
            for source, counts in made["counts"].get("sources", {}).items():
                empty = {"step": made["step"], "source": source, "kept": 0, "dropped": Counter()}
                entry = entries.setdefault((STEPS_BEFORE.index(made["step"]), source), empty)
                entry["kept"] += counts["kept"]
                entry["dropped"].update(counts["dropped"])
    return [entry | {"dropped": dict(sorted(entry["dropped"].items()))} for _, entry in sorted(entries.items())]


def skipped(receipts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Sources that could not be read at all, and why."""
    return dict(sorted((made["settings"]["source"]["id"], made["counts"]["error"]) for made in receipts if "error" in made["counts"]))


def personal_data(receipts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How many of each type were found in each source."""
    found: dict[str, Counter[str]] = {}
    for made in receipts:
        for source, counts in made["counts"].get("personal_data", {}).items():
            found.setdefault(source, Counter()).update(counts)
    return {source: dict(sorted(counts.items())) for source, counts in sorted(found.items())}
