#!/usr/bin/env python3
"""Turn a training configuration of axolotl or LLaMA-Factory into a params file, and say what of it has no counterpart.

import_config.py config.yaml [--sweep sweep.yaml] [--output params.yaml]
    ->  params.yaml and, where needed, params.samplesheet.csv and params.trials.csv beside it

Not a step of the pipeline: people call it as `llamaflow import-config`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.files import write_text
from llamaflow.grid import cells_of
from llamaflow.importers import convert, convert_sweep
from llamaflow.importers.conversion import Conversion
from llamaflow.importers.writing import params_file, report_on, samplesheet, trials_sheet
from llamaflow.params import Planning
from llamaflow.references import parse_references
from llamaflow.sources import read_samplesheet
from llamaflow.validation import resolve

LARGEST_FILE = 1_000_000  # bytes; a configuration has a few thousand


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="llamaflow import-config", description="Turn a training configuration of axolotl or LLaMA-Factory into a params file."
    )
    parser.add_argument("config", type=Path, help="the configuration: YAML or JSON")
    parser.add_argument("--sweep", type=Path, help="axolotl's sweep file: lists of values, and under _ values that go together")
    parser.add_argument("--output", type=Path, default=Path("params.yaml"), help="the params file to write (default: %(default)s)")
    return parser.parse_args(argv)


def run(path: Path, sweep: Path | None, output: Path) -> list[str]:
    """Write the files, and return the report. Raises UsageError if the configuration cannot be used, or if a file is there already."""
    config = read_mapping(path)
    conversion, rows = convert_sweep(config, read_mapping(sweep), path.parent) if sweep else (convert(config, path.parent), [])
    sheets = {}
    if rows:
        sheets[output.with_suffix(".trials.csv")] = trials_sheet(rows)
        conversion.values["trials"], conversion.origins["trials"] = str(output.with_suffix(".trials.csv")), "the sweep"
    conversion.values["input"], conversion.origins["input"] = conversion.sources[0]["path"], "the data"
    if len(conversion.sources) > 1 or conversion.sources[0].keys() > {"id", "path"}:
        sheets[output.with_suffix(".samplesheet.csv")] = samplesheet(conversion)
        conversion.values["input"] = str(output.with_suffix(".samplesheet.csv"))
    raise_limit(conversion)
    report = report_on(conversion)
    files = sheets | {output: params_file(conversion, f"From the {conversion.tool} configuration {path.name}, by llamaflow import-config", report)}
    check(conversion.values, sheets)
    write_new(files)
    return [f"{conversion.tool} configuration {path}: {len(conversion.values)} parameters in {', '.join(map(str, reversed(files)))}", *report]


def raise_limit(conversion: Conversion) -> None:
    """A sweep is meant: max_trials does not stop it."""
    trials = math.prod(len(value) for value in conversion.values.values() if isinstance(value, list | tuple))
    if trials > Planning().max_trials:
        conversion.values["max_trials"], conversion.origins["max_trials"] = trials, "the sweep"


def check(values: dict[str, Any], sheets: dict[Path, str]) -> None:
    """Read everything as a run would, before it is written. Raises UsageError with what a run would say."""
    params = resolve(values)
    models = [model.id for model in parse_references(params.models.models)]
    with TemporaryDirectory() as scratch:
        copies = {kind: Path(scratch) / path.name for path in sheets for kind in ("samplesheet", "trials") if path.name.endswith(f".{kind}.csv")}
        for path, text in sheets.items():
            write_text(Path(scratch) / path.name, text)
        if "samplesheet" in copies:
            read_samplesheet(copies["samplesheet"])
        cells_of(params.grid, params.planning, models, copies.get("trials"))


def write_new(files: dict[Path, str]) -> None:
    for path in files:
        if path.exists():
            raise UsageError(f"{path} is there already. Choose another --output, or move it away.")
        path.parent.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_text(path, text)


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file with names and values at its top. Raises UsageError for anything else."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}. Check the spelling.")
    if path.stat().st_size > LARGEST_FILE:
        raise UsageError(f"{path} has more than {LARGEST_FILE} bytes, which no configuration has.")
    try:
        found = yaml.safe_load(path.read_bytes())  # every JSON file is YAML too
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected names with values, as in 'base_model: owner/name'.")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    print(*run(args.config, args.sweep, args.output), sep="\n")


if __name__ == "__main__":
    exits_cleanly(main)()
