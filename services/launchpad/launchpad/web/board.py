"""The leaderboard that a run leaves, with the columns that tell its rows apart."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from launchpad.web.chart import short_names

NAME = "leaderboard.csv"
MOST_ROWS = 200
ALWAYS = ("rank", "id")
DETAILS = ("_ci_low", "_ci_high", "_p_value", "_p_holm", "_n", "reason", "min_detectable")  # for the file


@dataclass(frozen=True)
class Board:
    """names are the ids of the rows, those of trials without what all have in common; numbers the columns that hold numbers."""

    columns: list[str]
    rows: list[dict[str, str]]
    names: list[str]
    numbers: set[str]


def read_board(directory: Path) -> Board | None:
    """None if there is none that can be read."""
    try:
        with (directory / NAME).open(encoding="utf-8", newline="") as file:
            rows = [{name: value or "" for name, value in row.items() if name} for row, _ in zip(csv.DictReader(file), range(MOST_ROWS), strict=False)]
    except (OSError, ValueError, csv.Error):
        return None
    names = [name for name in rows[0] if name in ALWAYS or not name.endswith(DETAILS)] if rows else []
    columns = [name for name in names if name in ALWAYS or len({row[name] for row in rows if row.get(name)}) > 1]
    if "id" not in columns:
        return None
    trials = [row["id"] for row in rows if row.get("kind") == "trial"]
    short = dict(zip(trials, short_names(trials), strict=True))
    numbers = {name for name in columns if all(_is_number(row.get(name, "")) for row in rows)}
    return Board(columns, rows, [short.get(row["id"], row["id"]) for row in rows], numbers)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
