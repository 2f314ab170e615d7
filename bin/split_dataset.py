#!/usr/bin/env python3
"""Divide records into train, validation and test, and describe the data set.

    split_dataset.py --records deduplicated.parquet --receipts */collect_source.json ... --dropped */*.dropped.parquet ... < settings.json

The settings hold the groups splitting and personal_data. Writes the directory dataset/ (train, validation, test and dropped.parquet, dataset.json, the
data card README.md and croissant.json) and the receipt split_dataset.json. Splits that the user gave are kept (but see splits.read_index); the rest is drawn as splits.py says.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llamaflow.croissant import croissant
from llamaflow.data_params import PERSONAL_TYPES, Action, PersonalData, PersonalType, Splitting, actions_of
from llamaflow.datacard import data_card, described, origin_of
from llamaflow.errors import exits_cleanly
from llamaflow.files import read_json, sha256, write_json, write_text
from llamaflow.histograms import binned
from llamaflow.histograms import summary as percentiles
from llamaflow.licences import NOT_GIVEN, hub_names
from llamaflow.limits import LABELS_LISTED
from llamaflow.personal import Redactor
from llamaflow.records import DROPPED_SCHEMA, SPLITS, ParquetWriter, read_batches, read_rows, values
from llamaflow.samples import DroppedSample, chosen, read_candidates
from llamaflow.splits import Numbers, draw, read_index, refuse_empty_splits, straddling
from llamaflow.steps import read_settings, receipt
from llamaflow.subjects import read_subjects

STEP = "split_dataset"
STEPS_BEFORE = ("collect_source", "clean_records", "deduplicate_records")
GROUPS = ("collection", "cleaning", "personal_data", "deduplication", "splitting")  # of parameters that decide what is in the data
CONVERSATIONS = ("messages", "prompt", "chosen")  # columns of what is trained on


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of deduplicate_records")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="receipts of the steps before, for the funnel")
    parser.add_argument("--dropped", type=Path, nargs="*", default=[], help="what the steps before dropped")
    parser.add_argument("--samples", type=Path, nargs="*", default=[], help="records to look at, of clean_records")
    parser.add_argument("--erase", type=Path, help="a subject_id a line: nothing of what these people said is written")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(
    records: Path,
    receipts: Sequence[Path],
    dropped: Sequence[Path],
    samples: Sequence[Path],
    splitting: Splitting,
    personal: PersonalData,
    erase: Path | None,
    outdir: Path,
    settings: Mapping[str, Any],
) -> None:
    with receipt(STEP, settings, outdir) as written:
        written.add_input(records)
        written.inputs |= {f"{number}/{path.name}": sha256(path) for number, path in enumerate([*receipts, *dropped, *samples], 1)}
        index = read_index(records, splitting)
        assigned = draw(index)
        refuse_empty_splits(index, assigned)
        dataset = outdir / "dataset"
        dataset.mkdir(exist_ok=True)
        candidates = read_candidates(samples)
        summary, left = _write_splits(records, assigned, dataset, candidates)
        lost = _write_dropped(dropped, personal, read_subjects(erase), dataset / "dropped.parquet")
        made = [read_json(path) for path in receipts]
        steps = funnel(made)
        for entry in steps:  # a source of which nothing is left is listed too
            summary["sources"].setdefault(entry["source"], {**dict.fromkeys(SPLITS, 0), "license": None, "type": None})
        description = {
            **summary,
            "prompts_in_several_splits": straddling(index),
            "funnel": steps,
            "personal_data": {"action": personal.personal_data, "found": _personal_data(made)},
            "settings": splitting.model_dump(),
            "origins": dict(sorted((one["settings"]["source"]["id"], origin_of(one)) for one in made if one["step"] == STEPS_BEFORE[0])),
            "sample": {"kept": chosen(candidates[place] for place in left), "dropped": lost},
        }
        write_json(dataset / "dataset.json", description)
        write_text(dataset / "README.md", data_card(description, _parameters([settings, *(one["settings"] for one in made)])))
        write_json(dataset / "croissant.json", croissant(dataset, described(description), description["sha256"], hub_names(description["licenses"])))
        written.add_output(dataset)
        written.counts = {"records": len(assigned), "splits": summary["splits"]}


def _parameters(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters that the steps were given, without the list of people to be erased, which is nobody's business."""
    given = {name: value for one in settings for group in GROUPS for name, value in one.get(group, {}).items()}
    return {name: ",".join(value) if isinstance(value, list) else value for name, value in given.items() if name != "erase_subjects" and value is not None}


def _write_splits(records: Path, assigned: Numbers, dataset: Path, candidates: Collection[tuple[str, str]]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The summary of what was written, and which of the candidates (id, source) are part of it."""
    counts: Counter[tuple[Any, ...]] = Counter()
    lengths, texts, digest, position = {split: Counter[int]() for split in SPLITS}, {split: Counter[str]() for split in SPLITS}, 0, 0
    left: set[tuple[str, str]] = set()
    with ExitStack() as stack:
        writers = [stack.enter_context(ParquetWriter(dataset / f"{split}.parquet")) for split in SPLITS]
        for batch in read_batches(records):
            places = assigned[position : position + batch.num_rows]
            position += batch.num_rows
            for place, split in enumerate(SPLITS):
                rows = batch.filter(pa.array(places == place))
                writers[place].write_batch(rows)
                lengths[split].update(_lengths(rows))
                texts[split].update(_texts(rows))
                identities = values(rows, "id")
                digest += sum(_id_number(split, identity) for identity in identities)
                left.update(place for place in zip(identities, values(rows, "source"), strict=True) if place in candidates)
                meta = rows["meta"]
                columns = (rows["source"], rows["type"], rows["label"], pc.struct_field(meta, "language"), pc.struct_field(meta, "license"))
                counts.update((split, *row) for row in zip(*(column.to_pylist() for column in columns), strict=True))
    return _summary(counts, lengths, digest) | {"texts": texts}, sorted(left)


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


def _summary(counts: Counter[tuple[Any, ...]], lengths: Mapping[str, Counter[int]], digest: int) -> dict[str, Any]:
    totals, types, languages, licences = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    sources: dict[str, dict[str, Any]] = {}
    labels: dict[str, Counter[str]] = {}
    for (split, source, kind, label, language, license_name), count in counts.items():
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
        "sha256": f"{digest % 2**256:064x}",
        "splits": {split: totals[split] for split in SPLITS},
        "sources": dict(sorted(sources.items())),
        "labels": {label: {split: labels[label][split] for split in SPLITS} for label in most},
        "types": dict(sorted(types.items())),
        "languages": dict(sorted(languages.items())),
        "licenses": dict(sorted(licences.items())),
        "characters": {split: _described(lengths[split]) for split in SPLITS},
    }


def _described(lengths: Counter[int]) -> dict[str, Any]:
    total = sum(length * count for length, count in lengths.items())
    return {"total": total, "mean": round(total / lengths.total(), 1), **percentiles(lengths), "histogram": binned(lengths)}


def funnel(receipts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each step kept and dropped of each source, in the order of the steps."""
    entries = [
        {"step": made["step"], "source": source, "kept": counts["kept"], "dropped": counts["dropped"]}
        for made in receipts
        if made["step"] in STEPS_BEFORE
        for source, counts in made["counts"].get("sources", {}).items()
    ]
    return sorted(entries, key=lambda entry: (STEPS_BEFORE.index(entry["step"]), entry["source"]))


def _personal_data(receipts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How many of each type were found in each source."""
    return dict(sorted(entry for made in receipts for entry in made["counts"].get("personal_data", {}).items()))


def _write_dropped(files: Sequence[Path], personal: PersonalData, erased: frozenset[str], target: Path) -> list[dict[str, Any]]:
    """All that was dropped, of which some is returned to be shown. What is personal in rows that could not even be read goes here; the steps after that saw to it themselves."""
    actions = actions_of(personal.personal_data)
    masked: dict[PersonalType, Action] = {kind: "keep" if actions[kind] == "keep" else "mask" for kind in PERSONAL_TYPES}
    sample = DroppedSample(personal.phone_regions)
    with ParquetWriter(target, DROPPED_SCHEMA) as writer:
        for file in files:
            for row in read_rows(file):
                if row["subject_id"] in erased:
                    row |= {"subject_id": None, "record": ""}
                elif row["step"] == STEPS_BEFORE[0]:
                    row["record"] = Redactor(masked, personal.phone_regions)(row["record"])
                writer.write(row)
                sample.offer(row)
    return sample.chosen()


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    splitting, personal = Splitting.model_validate(settings.get("splitting", {})), PersonalData.model_validate(settings.get("personal_data", {}))
    run(args.records, args.receipts, args.dropped, args.samples, splitting, personal, args.erase, args.outdir, settings)


if __name__ == "__main__":
    main()
