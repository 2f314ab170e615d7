"""From the parameters of the grid to its cells: one mapping of model, technique and hyperparameters each."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamaflow.errors import UsageError
from llamaflow.params import Grid, Planning, describe, nearest
from llamaflow.trials import COMMON, TECHNIQUES


def cells_of(grid: Grid, planning: Planning, models: list[str], sheet: Path | None) -> list[dict[str, Any]]:
    """The cells of the trials sheet if there is one, else of the product. Raises UsageError with every fault."""
    if sheet is not None:
        return read_sheet(sheet, grid, models)
    refuse_too_many(grid, len(models), planning)
    return product_of(grid, models)


def product_of(grid: Grid, models: Iterable[str]) -> list[dict[str, Any]]:
    """Every combination of model, technique and the technique's hyperparameters."""
    cells: list[dict[str, Any]] = []
    for model, technique in itertools.product(models, grid.techniques):
        names = (*COMMON, *TECHNIQUES[technique].own)
        cells += [
            {"model": model, "technique": technique, **dict(zip(names, values, strict=True))}
            for values in itertools.product(*(getattr(grid, name) for name in names))
        ]
    return cells


def refuse_too_many(grid: Grid, models: int, planning: Planning) -> None:
    """Raise UsageError with the count and the factors before a grid is built that nobody meant."""
    count = models * sum(math.prod(len(getattr(grid, name)) for name in (*COMMON, *TECHNIQUES[technique].own)) for technique in grid.techniques)
    if count > planning.max_trials:
        factors = [f"{models} models"] * (models > 1) + [f"{len(values)} {name}" for name, values in grid if len(values) > 1]
        raise UsageError(
            f"the grid has {count} trials ({' x '.join(factors)}), more than --max_trials {planning.max_trials}. Give fewer values, or raise --max_trials."
        )


def read_sheet(path: Path, grid: Grid, models: list[str]) -> list[dict[str, Any]]:
    """Cells from a CSV with one row a trial; empty fields take the grid's first value. Raises UsageError with every fault."""
    fallback = {name: values[0] for name, values in grid}
    fallback["technique"] = fallback.pop("techniques")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        known = ["model", *fallback]
        problems = [f"there is no column {name!r} in a trials sheet{nearest(name, known)}" for name in reader.fieldnames or () if name not in known]
        cells = []
        for row in reader if not problems else ():
            given = {name: value.strip() for name, value in row.items() if value and value.strip()}
            model = given.pop("model", models[0])
            if model not in models:
                problems.append(f"line {reader.line_num}: model {model!r} is none of the run's models ({', '.join(models)})")
            try:
                parsed = Grid.model_validate({("techniques" if name == "technique" else name): value for name, value in given.items()})
            except ValidationError as error:
                problems += [f"line {reader.line_num}: {fault}" for fault in describe(error, prefix="")]
                continue
            cells.append(
                fallback | {("technique" if name == "techniques" else name): getattr(parsed, name)[0] for name in parsed.model_fields_set} | {"model": model}
            )
    if problems or not cells:
        raise UsageError(f"the trials sheet {path.name} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems or ["it has no rows"]))
    return cells
