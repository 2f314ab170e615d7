"""What there is in each split, counted while it is written."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llamaflow.histograms import binned
from llamaflow.histograms import summary as percentiles
from llamaflow.licences import NOT_GIVEN
from llamaflow.limits import LABELS_LISTED
from llamaflow.records import SPLITS, values

CONVERSATIONS = ("messages", "prompt", "chosen")  # columns of what is trained on


class Tally:
    """Counts by split, source, kind, label, language and licence; lengths; and which of the candidates (id, source) are there."""

    def __init__(self, candidates: Collection[tuple[str, str]]) -> None:
        self.candidates = candidates
        self.found: set[tuple[str, str]] = set()
        self.counts = Counter[tuple[Any, ...]]()
        self.lengths = {split: Counter[int]() for split in SPLITS}
        self.texts = {split: Counter[str]() for split in SPLITS}
        self.digest = 0

    def add(self, split: str, rows: pa.RecordBatch) -> None:
        self.lengths[split].update(_lengths(rows))
        self.texts[split].update(_texts(rows))
        identities, meta = values(rows, "id"), rows["meta"]
        self.digest += sum(_id_number(split, identity) for identity in identities)
        self.found.update(place for place in zip(identities, values(rows, "source"), strict=True) if place in self.candidates)
        columns = (rows["source"], rows["type"], rows["label"], pc.struct_field(meta, "language"), pc.struct_field(meta, "license"))
        self.counts.update((split, *row) for row in zip(*(column.to_pylist() for column in columns), strict=True))

    def summary(self) -> dict[str, Any]:
        totals, types, languages, licences = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
        sources: dict[str, dict[str, Any]] = {}
        labels: dict[str, Counter[str]] = {}
        for (split, source, kind, label, language, license_name), count in self.counts.items():
            entry = sources.setdefault(source, {**dict.fromkeys(SPLITS, 0), "license": set(), "type": set()})
            entry[split] += count
            entry["license"].add(license_name)
            entry["type"].add(kind)
            totals[split] += count
            types[kind] += count
            languages[language or "unknown"] += count
            licences[license_name or NOT_GIVEN] += count
            if label:
                labels.setdefault(label, Counter())[split] += count
        for entry in sources.values():
            entry |= {name: ", ".join(sorted(filter(None, entry[name]))) or None for name in ("license", "type")}
        most = sorted(labels, key=lambda label: (-labels[label].total(), label))[:LABELS_LISTED]
        return {
            # a sum, so that the order of the records does not matter and nothing has to be sorted
            "sha256": f"{self.digest % 2**256:064x}",
            "splits": {split: totals[split] for split in SPLITS},
            "sources": dict(sorted(sources.items())),
            "labels": {label: {split: labels[label][split] for split in SPLITS} for label in most},
            "types": dict(sorted(types.items())),
            "languages": dict(sorted(languages.items())),
            "licenses": dict(sorted(licences.items())),
            "characters": {split: _described(self.lengths[split]) for split in SPLITS},
            "texts": self.texts,
        }


def _id_number(split: str, identity: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{split}\0{identity}".encode()).digest())


def _lengths(rows: pa.RecordBatch) -> list[int]:
    """Characters of each record, in all its texts."""
    texts: Any = rows["text"]
    lengths = np.array(pc.fill_null(pc.utf8_length(texts), 0))
    for column in (*CONVERSATIONS, "rejected"):
        contents = pc.fill_null(pc.utf8_length(pc.struct_field(pc.list_flatten(rows[column]), "content")), 0)
        lengths = lengths + np.bincount(pc.list_parent_indices(rows[column]), weights=contents, minlength=rows.num_rows).astype(np.int64)
    return list(lengths.tolist())


def _characters(rows: pa.RecordBatch, *columns: str) -> int:
    return sum(_sum(pc.utf8_length(text)) for text in _strings(rows, "content", columns))


def _texts(rows: pa.RecordBatch) -> dict[str, int]:
    """What tells how many tokens there will be to train on (llamaflow.lengths); of a preference, the chosen answer."""
    roles = _strings(rows, "role", CONVERSATIONS)
    return {
        "characters": _characters(rows, "text", *CONVERSATIONS),
        "bytes": sum(_sum(pc.binary_length(text)) for text in _strings(rows, "content", ("text", *CONVERSATIONS))),
        "conversations": _sum(pc.not_equal(rows["type"], pa.scalar("text"))),
        "messages": sum(map(len, roles)),
        "system_messages": sum(_sum(pc.equal(role, pa.scalar("system"))) for role in roles),
    }


def _strings(rows: pa.RecordBatch, field: str, columns: Sequence[str]) -> list[Any]:
    """The column `text` as it is, and a field of all messages in each of the other columns."""
    return [rows[name] if name == "text" else pc.struct_field(pc.list_flatten(rows[name]), field) for name in columns]


def _sum(numbers: Any) -> int:
    return int(pc.sum(numbers).as_py() or 0)


def _described(lengths: Counter[int]) -> dict[str, Any]:
    total = sum(length * count for length, count in lengths.items())
    return {"total": total, "mean": round(total / lengths.total(), 1), **percentiles(lengths), "histogram": binned(lengths)}
