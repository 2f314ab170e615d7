"""Tables that people write by hand: the samplesheet and the trials sheet."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from llamaflow.validation import nearest

Line = tuple[int, dict[str, str]]


def read_sheet(path: Path, kind: str, columns: Collection[str]) -> tuple[list[Line], list[str]]:
    """The rows of a CSV as (line, filled-in fields by column), and its faults: what makes it no sheet of this kind."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        return [], [f"it is not a CSV file in UTF-8 ({error}); save it as 'CSV UTF-8'"]
    problems = [f"there is no column {name!r} in a {kind}{nearest(name, columns)}" for name in header if name not in columns]
    problems += [f"line {line}: it has more fields than the header; a field with a comma needs quotes" for line, row in rows if None in row]
    if not rows and not problems:
        problems = ["it has no rows"]
    if problems:
        return [], problems
    return [(line, {name.strip(): value.strip() for name, value in row.items() if value and value.strip()}) for line, row in rows], []


def refusal(path: Path, kind: str, problems: list[str]) -> str:
    return f"the {kind} {path.name} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems)
