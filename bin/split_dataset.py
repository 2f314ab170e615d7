#!/usr/bin/env python3
"""Divide records into train, validation and test, and describe the data set.

    split_dataset.py --records deduplicated.parquet --receipts */collect_source.json ... --dropped */*.dropped.parquet ... < settings.json

The settings hold the groups splitting and personal_data. Writes the directory dataset/ (train, validation, test and dropped.parquet, dataset.json) and
the receipt split_dataset.json. Splits that the user gave or an earlier run had are kept (see splits.read_index); the rest is drawn as splits.py says.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llamaflow.data_params import PERSONAL_TYPES, Action, PersonalData, PersonalType, Splitting, actions_of
from llamaflow.errors import DataError, exits_cleanly
from llamaflow.files import read_json, sha256, write_json
from llamaflow.limits import LABELS_LISTED
from llamaflow.overlap import leakage
from llamaflow.personal import Redactor
from llamaflow.previous import NOT_GIVEN, Numbers, files_of, read_previous
from llamaflow.records import DROPPED_SCHEMA, SPLITS, ParquetWriter, read_batches, read_rows, values
from llamaflow.splits import Index, draw, read_index, refuse_empty_splits, stability, straddling
from llamaflow.steps import read_settings, receipt
from llamaflow.subjects import read_subjects

STEP = "split_dataset"
STEPS_BEFORE = ("collect_source", "clean_records", "deduplicate_records")
CONVERSATIONS = ("messages", "prompt", "chosen")  # columns of what is trained on


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of deduplicate_records")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="receipts of the steps before, for the funnel")
    parser.add_argument("--dropped", type=Path, nargs="*", default=[], help="what the steps before dropped")
    parser.add_argument("--erase", type=Path, help="a subject_id a line: nothing of what these people said is written")
    parser.add_argument("--previous", type=Path, help="train, validation and test.parquet of an earlier run")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(
    records: Path,
    receipts: Sequence[Path],
    dropped: Sequence[Path],
    splitting: Splitting,
    personal: PersonalData,
    erase: Path | None,
    previous: Path | None,
    outdir: Path,
    settings: Mapping[str, Any],
) -> None:
    with receipt(STEP, settings, outdir) as written:
        written.add_input(records)
        written.inputs |= {f"{number}/{path.name}": sha256(path) for number, path in enumerate([*receipts, *dropped], 1)}
        if previous:
            written.inputs |= {f"previous/{file.name}": sha256(file) for file in files_of(previous)}
        index = read_index(records, splitting, read_previous(previous, splitting.split_seed) if previous else None)
        if previous:
            _refuse_strangers(index)
        assigned = draw(index)
        refuse_empty_splits(index, assigned)
        dataset = outdir / "dataset"
        dataset.mkdir(exist_ok=True)
        summary = _write_splits(records, assigned, dataset)
        _write_dropped(dropped, personal, read_subjects(erase), dataset / "dropped.parquet")
        made = [read_json(path) for path in receipts]
        steps = funnel(made)
        for entry in steps:  # a source of which nothing is left is listed too
            summary["sources"].setdefault(entry["source"], {**dict.fromkeys(SPLITS, 0), "license": None, "type": None})
        description = {
            **summary,
            "prompts_in_several_splits": straddling(index, assigned),
            "previous": stability(index, assigned) if previous else None,
            "leakage": leakage(dataset),
            "benchmarks": next((entry["counts"]["benchmarks"] for entry in made if "benchmarks" in entry["counts"]), None),
            "funnel": steps,
            "skipped_sources": skipped(made),
            "personal_data": {"action": personal.personal_data, "found": _personal_data(made)},
            "settings": splitting.model_dump(exclude={"previous_dataset"}),
        }
        write_json(dataset / "dataset.json", description)
        written.add_output(dataset)
        written.counts = {"records": len(assigned), "splits": summary["splits"]}


def _refuse_strangers(index: Index) -> None:
    if (index.known == NOT_GIVEN).all():
        raise DataError(
            "--previous_dataset: none of its records is among those of this run, so that nothing could stay where it was. "
            "Are system_prompt, personal_data and the cleaning as they were then? If the data are meant to be others, leave the parameter out, "
            "and give its test.parquet as --decontaminate_against: then nothing of it is trained on."
        )


def _write_splits(records: Path, assigned: Numbers, dataset: Path) -> dict[str, Any]:
    counts: Counter[tuple[Any, ...]] = Counter()
    characters, texts, digest, position = Counter[str](), {split: Counter[str]() for split in SPLITS}, 0, 0
    with ExitStack() as stack:
        writers = [stack.enter_context(ParquetWriter(dataset / f"{split}.parquet")) for split in SPLITS]
        for batch in read_batches(records):
            places = assigned[position : position + batch.num_rows]
            position += batch.num_rows
            for place, split in enumerate(SPLITS):
                rows = batch.filter(pa.array(places == place))
                writers[place].write_batch(rows)
                characters[split] += _characters(rows, "text", *CONVERSATIONS, "rejected")
                texts[split].update(_texts(rows))
                digest += sum(_id_number(split, identity) for identity in values(rows, "id"))
                meta = rows["meta"]
                columns = (rows["source"], rows["type"], rows["label"], pc.struct_field(meta, "language"), pc.struct_field(meta, "license"))
                counts.update((split, *row) for row in zip(*(column.to_pylist() for column in columns), strict=True))
    return _summary(counts, characters, digest) | {"texts": texts}


def _id_number(split: str, identity: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{split}\0{identity}".encode()).digest())


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


def _summary(counts: Counter[tuple[Any, ...]], characters: Counter[str], digest: int) -> dict[str, Any]:
    totals, types, languages = Counter[str](), Counter[str](), Counter[str]()
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
        "characters": {split: {"total": characters[split], "mean": round(characters[split] / totals[split], 1)} for split in SPLITS},
    }


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


def _personal_data(receipts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How many of each type were found in each source."""
    found: dict[str, Counter[str]] = {}
    for made in receipts:
        for source, counts in made["counts"].get("personal_data", {}).items():
            found.setdefault(source, Counter()).update(counts)
    return {source: dict(sorted(counts.items())) for source, counts in sorted(found.items())}


def _write_dropped(files: Sequence[Path], personal: PersonalData, erased: frozenset[str], target: Path) -> None:
    """All that was dropped. What is personal in rows that could not even be read goes here; the steps after that saw to it themselves."""
    actions = actions_of(personal.personal_data)
    masked: dict[PersonalType, Action] = {kind: "keep" if actions[kind] == "keep" else "mask" for kind in PERSONAL_TYPES}
    with ParquetWriter(target, DROPPED_SCHEMA) as writer:
        for file in files:
            for row in read_rows(file):
                if row["subject_id"] in erased:
                    row |= {"subject_id": None, "record": ""}
                elif row["step"] == STEPS_BEFORE[0]:
                    row["record"] = Redactor(masked, personal.phone_regions)(row["record"])
                writer.write(row)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    splitting, personal = Splitting.model_validate(settings.get("splitting", {})), PersonalData.model_validate(settings.get("personal_data", {}))
    run(args.records, args.receipts, args.dropped, splitting, personal, args.erase, args.previous, args.outdir, settings)


if __name__ == "__main__":
    main()
