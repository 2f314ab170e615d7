"""From the parameters of the grid to its cells: one mapping of model, technique and hyperparameters each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamaflow.choices import MARK, Range
from llamaflow.errors import UsageError
from llamaflow.params import Grid, Planning
from llamaflow.sheets import read_sheet, refusal
from llamaflow.trials import TECHNIQUES, names_of
from llamaflow.validation import describe

SHEET = "trials sheet"
COLUMNS = {("technique" if name == "techniques" else name): name for name in Grid.model_fields}  # of the sheet, beside model


def cells_of(grid: Grid, planning: Planning, models: list[str], sheet: Path | None) -> list[dict[str, Any]]:
    """The cells of the trials sheet if there is one, else of the product. Raises UsageError with every fault.

    None yet if a sampler is to draw them (llamaflow.samplers), which needs to know more than the parameters.
    """
    if planning.sampler == "grid":
        refuse_ranges(grid)
    if sheet is not None:
        return refuse_unfit(cells_in(sheet, grid, models))
    refuse_too_many(grid, len(models), planning)
    return refuse_unfit(product_of(grid, models)) if planning.sampler == "grid" else []


def refuse_unfit(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells. Raises UsageError if a technique cannot train what a stage needs."""
    unfit = {(cell["technique"], cell["stage"]) for cell in cells if cell["stage"] != "sft" and not TECHNIQUES[cell["technique"]].all_stages}
    if unfit:
        others = ", ".join(name for name, traits in TECHNIQUES.items() if traits.all_stages)
        raise UsageError("\n".join(f"--techniques: {technique} does not train the stage {stage}, only {others}" for technique, stage in sorted(unfit)))
    return cells


def product_of(grid: Grid, models: Iterable[str]) -> list[dict[str, Any]]:
    """Every combination of model, stage, technique and their hyperparameters."""
    cells: list[dict[str, Any]] = []
    for model, stage, technique in itertools.product(models, grid.stage, grid.techniques):
        cells += [{"model": model, "technique": technique, **values} for values in combinations(grid, stage, technique)]
    return cells


def combinations(grid: Grid, stage: str, technique: str) -> Iterator[dict[str, Any]]:
    names = names_of(stage, technique)
    values = ((stage,) if name == "stage" else getattr(grid, name) for name in names)
    return (dict(zip(names, combination, strict=True)) for combination in itertools.product(*values))


def refuse_ranges(grid: Grid) -> None:
    ranges = [f"--{name}: {values[0]} is a range" for name, values in grid if isinstance(values[0], Range)]
    if ranges:
        raise UsageError(
            "\n".join(ranges) + "\nA grid is a product of single values: list them (1e-4,2e-4), or let --sampler random or --sampler optuna draw from ranges."
        )


def refuse_too_many(grid: Grid, models: int, planning: Planning) -> None:
    """Raise UsageError with the count and the factors before a grid is built that nobody meant."""
    if planning.sampler != "grid":
        if models * planning.samples > planning.max_trials:
            raise UsageError(
                f"--samples {planning.samples} for each of {models} models is more than --max_trials {planning.max_trials}. Lower one, or raise the other."
            )
        return
    count = models * sum(
        math.prod(len(getattr(grid, name)) for name in names_of(stage, technique) if name != "stage")
        for stage, technique in itertools.product(grid.stage, grid.techniques)
    )
    if count > planning.max_trials:
        factors = [f"{models} models"] * (models > 1) + [f"{len(values)} {name}" for name, values in grid if len(values) > 1]
        raise UsageError(
            f"the grid has {count} trials ({' x '.join(factors)}), more than --max_trials {planning.max_trials}. Give fewer values, or raise --max_trials."
        )


def cells_in(path: Path, grid: Grid, models: list[str]) -> list[dict[str, Any]]:
    """Cells from a CSV with one row a trial; empty fields take the grid's first value. Raises UsageError with every fault."""
    rows, problems = read_sheet(path, SHEET, ["model", *COLUMNS])
    cells = []
    for line, row in rows:
        try:
            cells.append(_cell(row, grid, models))
        except UsageError as error:
            problems += [f"line {line}: {fault}" for fault in str(error).splitlines()]
    if problems:
        raise UsageError(refusal(path, SHEET, problems))
    return cells


def _cell(row: dict[str, str], grid: Grid, models: list[str]) -> dict[str, Any]:
    faults = [f"{column}: {value!r} is several values, and a row is one trial" for column, value in row.items() if "," in value or MARK in value]
    model = row.get("model") or (models[0] if len(models) == 1 else None)
    if model not in models:
        faults.append(f"model: {f'{model!r} is none of the' if model else 'is required, since the run has several'} models ({', '.join(models)})")
    try:
        given = Grid.model_validate({COLUMNS[column]: value for column, value in row.items() if column != "model"})
    except ValidationError as error:
        faults += [fault.replace("techniques: ", "technique: ") for fault in describe(error, prefix="")]
    if faults:
        raise UsageError("\n".join(faults))
    return {"model": model} | {column: getattr(given if name in given.model_fields_set else grid, name)[0] for column, name in COLUMNS.items()}
