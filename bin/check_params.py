#!/usr/bin/env python3
"""Check all parameters and the samplesheet before anything heavy runs, and say what every step is to be given.

check_params.py [--input FILE] [--trials FILE] [--chat-template FILE] < {flat parameters}  ->  params.json  check_params.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamaflow.code import digest
from llamaflow.data_params import Generation
from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.files import write_json
from llamaflow.grid import cells_of
from llamaflow.params import Params
from llamaflow.references import parse_reference, parse_references
from llamaflow.schemas import validator_of
from llamaflow.sources import OF_THE_MIXTURE, WILDCARDS, Source, format_of, is_archive, is_samplesheet, is_stored, read_samplesheet
from llamaflow.steps import read_settings, receipt
from llamaflow.validation import describe, faults_from_scratch, resolve

# The groups of parameters that each step receives: a change to any other group leaves the step's result cached.
GROUPS_OF_STEPS: dict[str, tuple[str, ...]] = {
    "collect_source": ("collection",),
    "find_names": (),
    "clean_records": ("cleaning", "personal_data"),
    "generate_records": ("generation", "cleaning", "personal_data"),
    "deduplicate_records": ("deduplication", "collection"),
    "split_dataset": ("splitting", "personal_data"),
    "fetch_model": ("models",),
    "initialise_model": ("models", "scratch"),
    "plan_trials": ("grid", "planning", "training", "answers", "compute", "cost"),
    "tokenize_dataset": ("models",),
    "train_trials": ("training", "compute", "models"),
    "evaluate_model": ("evaluation", "answers", "compute", "models"),
    "rank_trials": ("gate", "evaluation"),
    "merge_model": ("export", "models"),
    "write_model_card": ("export",),
    "write_report": ("generic",),
    "publish_model": ("export",),
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="the local copy of --input, if it is a table")
    parser.add_argument("--trials", type=Path, help="the trials sheet")
    parser.add_argument("--chat-template", type=Path)
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(values: dict[str, Any], table: Path | None, trials: Path | None, template: Path | None) -> dict[str, Any]:
    """Everything the workflow needs to know. Raises UsageError with all faults of all parts at once."""
    faults: list[str] = []
    params: Params | None = _gather(faults, lambda: resolve(values), None)
    sources = _gather(faults, lambda: sources_of(str(values["input"]), table), []) if values.get("input") else []
    models = _gather(faults, lambda: parse_references(params.models.models), []) if params else []
    others = _other_models(params) if params else {}
    references = {name: _gather(faults, partial(parse_reference, text, name), None) for name, text in others.items() if text}
    if params and models:
        cells = _gather(faults, lambda: cells_of(params.grid, params.planning, [model.id for model in models], trials), [])
        if trials and params.scratch.from_scratch:
            faults += [f"--trials: {fault}" for fault in faults_from_scratch([cell["technique"] for cell in cells], [cell["stage"] for cell in cells])]
    if params and params.answers.answer_schema is not None:
        _gather(faults, lambda: validator_of(params.answers.answer_schema), None)
    if params:
        faults += _faults_of_generation(sources, params.generation)
    if faults or params is None:
        raise UsageError("\n".join(faults))
    return {
        "sources": [source.model_dump(exclude_none=True, exclude={*OF_THE_MIXTURE, "generate"}) for source in sources],
        "models": [model.as_dict() for model in models],
        **{name: reference.as_dict() for name, reference in references.items()},
        "settings": _settings(params, sources, template),
    }


def _other_models(params: Params) -> dict[str, str | None]:
    """Models that are asked for elsewhere than in --models, by the parameter."""
    return {"teacher_model": params.models.teacher_model, "names_model": params.personal_data.names_model, "tokenizer": params.cleaning.tokenizer}


def _settings(params: Params, sources: Sequence[Source], template: Path | None) -> dict[str, Any]:
    settings = {step: settings_of(step, params) for step in GROUPS_OF_STEPS}
    if pairs := {source.id: source.generate for source in sources if source.generate}:
        settings["generate_records"] |= {"pairs_of": pairs, "checkpoint_dir": params.compute.checkpoint_dir}
    if limits := {source.id: source.max_records for source in sources if source.max_records}:
        settings["deduplicate_records"]["max_records_of"] = limits
    if weights := {source.id: source.weight for source in sources if source.weight is not None}:
        settings["split_dataset"]["weights"] = weights
    if params.input_output.source_cache:
        settings["collect_source"]["source_cache"] = params.input_output.source_cache
    if template is not None:
        settings["fetch_model"]["chat_template_text"] = template.read_text(encoding="utf-8")
    return settings


def _gather(faults: list[str], part: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return part()
    except UsageError as error:
        faults.append(str(error))
        return otherwise


def _faults_of_generation(sources: Sequence[Source], generation: Generation) -> list[str]:
    wanting = ", ".join(source.id for source in sources if source.generate)
    missing = [name for name in ("generation_endpoint", "generation_model") if getattr(generation, name) is None]
    return [f"--{name} is needed: questions are to be written from source {wanting} (column generate of the samplesheet)" for name in missing if wanting]


def sources_of(given: str, table: Path | None) -> list[Source]:
    """The rows of the samplesheet, or the one data file that was given directly."""
    if table is not None and is_samplesheet(table):
        return read_samplesheet(table)
    if format_of(given) is None and not (is_archive(given) or is_stored(given) or given.endswith("/") or WILDCARDS.search(given) or Path(given).is_dir()):
        raise UsageError(
            f"--input: {given} is neither a samplesheet (CSV with the columns id and path) nor a data file this pipeline knows by its ending (.jsonl .json .csv .tsv .parquet .txt .md, plain or .gz or .zst; .html .pdf .docx .xlsx .epub .arrow .mbox .eml), an archive of such files (.zip .tar .tar.gz), a directory/ or a pattern (docs/**/*.pdf)"
        )
    try:
        return [Source(id=_id_of(given), path=given)]
    except ValidationError as error:
        raise UsageError("\n".join(f"--input: {fault}" for fault in describe(error, prefix=""))) from error


def _id_of(path: str) -> str:
    stem = Path(path.split("?")[0]).name.split(".")[0]
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in stem).strip("_") or "data"


def settings_of(step: str, params: Params) -> dict[str, Any]:
    # not the list of models: a step works on one of them, and a model more must not run the others again; nor what counts tokens, an input of those that count
    groups = {name: getattr(params, name).model_dump(mode="json", exclude={"models", "teacher_model", "tokenizer"}) for name in GROUPS_OF_STEPS[step]}
    return {"code": digest(step), **groups}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    values = read_settings()
    with receipt("check_params", values, args.outdir) as written:
        resolved = run(values, args.input, args.trials, args.chat_template)
        write_json(args.outdir / "params.json", resolved)
        written.counts = {"sources": len(resolved["sources"]), "models": len(resolved["models"])}


if __name__ == "__main__":
    main()
