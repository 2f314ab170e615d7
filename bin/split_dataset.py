#!/usr/bin/env python3
"""Divide records into train, validation and test, and describe the data set.

    split_dataset.py --records deduplicated.parquet --receipts */collect_source.json ... --dropped */*.dropped.parquet ... < settings.json

The settings hold the groups splitting and personal_data. Writes the directory dataset/ (train, validation, test and dropped.parquet, dataset.json, the
data card README.md and croissant.json) and the receipt split_dataset.json. With --tokenizer, shares of a mixture are of its tokens. Splits that the user gave or an earlier run had
are kept (see splits.read_index); the rest is drawn as splits.py says.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llamaflow.croissant import croissant
from llamaflow.data_params import PERSONAL_TYPES, Action, PersonalData, PersonalType, Splitting, actions_of
from llamaflow.datacard import data_card, described, origin_of
from llamaflow.errors import DataError, exits_cleanly
from llamaflow.files import read_json, sha256, write_json, write_text
from llamaflow.funnel import STEPS_BEFORE, funnel, personal_data, skipped
from llamaflow.identities import NOTHING
from llamaflow.licences import hub_names
from llamaflow.mixture import Mixture
from llamaflow.overlap import leakage
from llamaflow.personal import Redactor
from llamaflow.previous import NOT_GIVEN, Numbers, read_previous
from llamaflow.previous_files import files_of
from llamaflow.records import DROPPED_SCHEMA, SPLITS, ParquetWriter, read_batches, read_rows
from llamaflow.references import parse_reference, public_name
from llamaflow.samples import DroppedSample, chosen, read_candidates
from llamaflow.splits import TRAIN, Index, draw, read_index, refuse_empty_splits, stability, straddling
from llamaflow.steps import read_settings, receipt, say
from llamaflow.subjects import people_of, read_subjects
from llamaflow.tally import Tally
from llamaflow.tokencount import TokenCounter

STEP = "split_dataset"
GROUPS = ("collection", "cleaning", "personal_data", "generation", "deduplication", "splitting")  # of parameters that decide what is in the data
COLLECTED, _, GENERATED, _ = STEPS_BEFORE
NOT_TOLD = ("erase_subjects", "names_model", "previous_dataset", "decontaminate_against", "generation_endpoint")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of deduplicate_records")
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="receipts of the steps before, for the funnel")
    parser.add_argument("--dropped", type=Path, nargs="*", default=[], help="what the steps before dropped")
    parser.add_argument("--samples", type=Path, nargs="*", default=[], help="records to look at, of clean_records")
    parser.add_argument("--erase", type=Path, help="a subject_id a line: nothing of what these people said is written")
    parser.add_argument("--previous", type=Path, help="train, validation and test.parquet of an earlier run")
    parser.add_argument("--tokenizer", type=Path, help="what counts tokens, of fetch_model; without it, shares of a mixture are of bytes")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Inputs:
    """The files."""

    records: Path  # of deduplicate_records
    receipts: Sequence[Path] = ()  # of all steps before, as are `dropped`
    dropped: Sequence[Path] = ()
    samples: Sequence[Path] = ()
    erase: Path | None = None
    previous: Path | None = None
    tokenizer: Path | None = None


def run(given: Inputs, splitting: Splitting, personal: PersonalData, weights: Mapping[str, float], outdir: Path, settings: Mapping[str, Any]) -> None:
    with receipt(STEP, settings, outdir) as written:
        written.add_input(given.records)
        written.inputs |= {f"{number}/{path.name}": sha256(path) for number, path in enumerate([*given.receipts, *given.dropped, *given.samples], 1)}
        if given.previous:
            written.inputs |= {f"previous/{file.name}": sha256(file) for file in files_of(given.previous)}
        counter = TokenCounter(given.tokenizer) if given.tokenizer else None
        if counter:
            written.inputs["tokenizer"] = counter.described["tokenizer_sha256"]
        index = read_index(given.records, splitting, read_previous(given.previous, splitting.split_seed) if given.previous else None)
        if given.previous:
            _refuse_strangers(index)
        assigned = draw(index)
        refuse_empty_splits(index, assigned)
        dataset = outdir / "dataset"
        dataset.mkdir(exist_ok=True)
        candidates = read_candidates(given.samples)
        tally, mixture = Tally(candidates), Mixture(given.records, assigned == TRAIN, index.groups, weights, splitting.max_repeats, counter)
        _write_splits(given.records, assigned, mixture.times, dataset, tally)
        summary = tally.summary()
        lost = _write_dropped(given.dropped, personal, read_subjects(given.erase), dataset / "dropped.parquet")
        made = [read_json(path) for path in given.receipts]
        names_model = public_name(parse_reference(personal.names_model).as_dict()) if personal.names_model else None
        steps = funnel(made)
        for entry in steps:  # a source of which nothing is left is listed too
            summary["sources"].setdefault(entry["source"], {**dict.fromkeys(SPLITS, 0), "license": None, "type": None})
        description = {
            **summary,
            "prompts_in_several_splits": straddling(index.groups, assigned),
            "documents": _documents(index, assigned),
            "previous": stability(index, assigned) if given.previous else None,
            "leakage": leakage(dataset),
            "benchmarks": next((entry["counts"]["benchmarks"] for entry in made if "benchmarks" in entry["counts"]), None),
            "tokenizer": public_name(counter.described) if counter else None,
            "mixture": mixture.described,
            "funnel": steps,
            "skipped_sources": skipped(made),
            "personal_data": {"action": personal.personal_data, "found": personal_data(made), "names_model": names_model},
            "settings": splitting.model_dump(exclude={"previous_dataset"}),
            "watermarks": {one["settings"]["source"]["id"]: one["counts"]["watermark"] for one in made if one["counts"].get("watermark")},
            "origins": dict(sorted((one["settings"]["source"]["id"], origin_of(one)) for one in made if one["step"] == COLLECTED)),
            "sample": {"kept": chosen(candidates[place] for place in sorted(tally.found)), "dropped": lost},
        }
        write_json(dataset / "dataset.json", description)
        write_text(dataset / "README.md", data_card(description, _parameters([settings, *(one["settings"] for one in made)], description["tokenizer"])))
        write_json(dataset / "croissant.json", croissant(dataset, described(description), description["sha256"], hub_names(description["licenses"])))
        written.add_output(dataset)
        written.counts = {"records": len(assigned), "splits": summary["splits"]}


def _documents(index: Index, assigned: Numbers) -> dict[str, int]:
    """How many there are, and how many of them are in several splits, which is said."""
    found, torn = len(np.unique(index.documents[index.documents != NOTHING])), straddling(index.documents, assigned)
    if torn:
        say(f"documents in several splits: {torn} of {found}, cut into consecutive parts, since no split could hold them whole, or they came so")
    return {"found": found, "in_several_splits": torn}


def _refuse_strangers(index: Index) -> None:
    if (index.known == NOT_GIVEN).all():
        raise DataError(
            "--previous_dataset: none of its records is among those of this run, so that nothing could stay where it was. "
            "Are system_prompt, personal_data and the cleaning as they were then? If the data are meant to be others, leave the parameter out, "
            "and give its test.parquet as --decontaminate_against: then nothing of it is trained on."
        )


def _parameters(settings: Sequence[Mapping[str, Any]], tokenizer: str | None) -> dict[str, Any]:
    """The parameters that the steps were given, without files on the user's disk and addresses of servers; who is to be erased is nobody's business."""
    given = {name: value for one in settings for group in GROUPS for name, value in one.get(group, {}).items()} | {"tokenizer": tokenizer}
    return {name: ",".join(value) if isinstance(value, list) else value for name, value in given.items() if name not in NOT_TOLD and value is not None}


def _write_splits(records: Path, assigned: Numbers, times: Numbers, dataset: Path, tally: Tally) -> None:
    position = 0
    with ExitStack() as stack:
        writers = [stack.enter_context(ParquetWriter(dataset / f"{split}.parquet")) for split in SPLITS]
        for batch in read_batches(records):
            here = slice(position, position + batch.num_rows)
            position += batch.num_rows
            for place, split in enumerate(SPLITS):
                chosen_rows = np.flatnonzero(assigned[here] == place)
                rows = batch.take(np.repeat(chosen_rows, times[here][chosen_rows]))
                writers[place].write_batch(rows)
                tally.add(split, rows)


def _write_dropped(files: Sequence[Path], personal: PersonalData, erased: frozenset[str], target: Path) -> list[dict[str, Any]]:
    """All that was dropped, of which some is returned to be shown.

    What is personal in rows that could not even be read, and in what a model wrote, goes here; the other steps saw to it themselves. Where names of
    people are to go, nothing of rows that could not be read is shown, since the model that finds names had records only.
    """
    actions = actions_of(personal.personal_data)
    masked: dict[PersonalType, Action] = {kind: "keep" if actions[kind] == "keep" else "mask" for kind in PERSONAL_TYPES}
    is_hidden = personal.names_model is not None and actions["name"] != "keep"
    sample = DroppedSample(personal.phone_regions)
    with ParquetWriter(target, DROPPED_SCHEMA) as writer:
        for file in files:
            for row in read_rows(file):
                if not erased.isdisjoint(people_of(row["subject_id"])):
                    row |= {"subject_id": None, "record": ""}
                elif is_hidden and row["step"] == COLLECTED:
                    row["record"] = ""
                elif row["step"] in (COLLECTED, GENERATED):
                    row["record"] = Redactor(masked, personal.phone_regions)(row["record"])
                writer.write(row)
                sample.offer(row)
    return sample.chosen()


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    splitting, personal = Splitting.model_validate(settings.get("splitting", {})), PersonalData.model_validate(settings.get("personal_data", {}))
    given = Inputs(args.records, args.receipts, args.dropped, args.samples, args.erase, args.previous, args.tokenizer)
    run(given, splitting, personal, settings.get("weights", {}), args.outdir, settings)


if __name__ == "__main__":
    main()
