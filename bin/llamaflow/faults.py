"""What of a source cannot be used, and when that is too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from llamaflow.errors import DataError

EXAMPLES = 3  # of a source, for the message


class Faults(TypedDict):
    """How often by reason, and the first ones as lines."""

    reasons: dict[str, int]
    first: list[str]


def refuse_too_many(faults: Mapping[str, Faults], sources: Mapping[str, Mapping[str, Any]], fraction: float) -> None:
    """Raise DataError with the first faults if a source lost more than a share of its records; `sources` has what was kept and dropped of each."""
    for source, found in faults.items():
        lost, total = sum(found["reasons"].values()), sources[source]["kept"] + sum(sources[source]["dropped"].values())
        if lost > fraction * total:
            raise DataError(
                f"source {source!r}: {lost} of {total} records ({lost / total:.1%}) cannot be used, and {fraction:.1%} is the most that is accepted.\n"
                + "".join(f"  {count} x {reason}\n" for reason, count in found["reasons"].items())
                + "The first ones:\n"
                + "".join(f"  {line}\n" for line in found["first"])
                + "Mend them in the file, or raise --max_dropped_fraction if they may be left out."
            )


def refuse_what_cleaning_left(cleaned: Sequence[Mapping[str, Any]], fraction: float) -> None:
    """Raise DataError if no record is left at all, or a source lost too many: `cleaned` are the counts of clean_records, several if a source has shards."""
    sources: dict[str, dict[str, Any]] = {}
    faults: dict[str, Faults] = {}
    for counts in cleaned:
        for source, part in counts["sources"].items():
            whole = sources.setdefault(source, {"kept": 0, "dropped": Counter()})
            whole["kept"] += part["kept"]
            whole["dropped"].update(part["dropped"])
        for source, found in counts["faults"].items():
            known = faults.get(source, {"reasons": {}, "first": []})
            reasons = Counter(known["reasons"]) + Counter(found["reasons"])
            faults[source] = {"reasons": dict(reasons), "first": sorted(known["first"] + found["first"])[:EXAMPLES]}
    refuse_too_many(faults, sources, fraction)
    if sources and not any(whole["kept"] for whole in sources.values()):
        reasons = sum((whole["dropped"] for whole in sources.values()), Counter[str]())
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        raise DataError(f"all records were dropped: {listed}. See the cleaning parameters in docs/parameters.md.")
