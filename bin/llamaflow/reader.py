"""Rows of one file or query as records, by what the first row whose columns are understood says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llamaflow.conversations import message_shape
from llamaflow.errors import DataError
from llamaflow.faults import refuse_too_many
from llamaflow.formats import Row
from llamaflow.records import DroppedWriter
from llamaflow.rows import Shape, expected, shape_for, to_record
from llamaflow.sources import Source
from llamaflow.templates import folded
from llamaflow.textfiles import Unusable

NO_SHAPE = "columns not understood"
ROWS_BEFORE_GIVING_UP = 1000
COLUMNS_LISTED = 100


class Reader:
    """Turn the rows of one file or query into records; rows that cannot be used go to `dropped`."""

    def __init__(self, source: Source, name: str, dropped: DroppedWriter, *, is_document: bool = False) -> None:
        self.source, self.name, self.dropped = source, name, dropped
        self.same = {"document_id": name} if is_document else {}  # of all rows
        self.shape: Shape | None = None
        self.columns: set[str] = set()
        self.rows = 0

    @property
    def ignored(self) -> set[str]:
        """Columns that mean nothing here."""
        return self.columns - (self.shape.columns if self.shape else set())

    @property
    def _found(self) -> str:
        return ", ".join(sorted(map(str, self.columns)))

    def records(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        for number, row in rows:
            self.rows += 1
            location = f"{self.name}:{number}"
            try:
                if isinstance(row, Unusable):
                    raise row
                yield self._record({folded(name): value for name, value in row.items()}, location)
            except Unusable as problem:
                self.dropped.drop(self.source.id, location, problem.reason, problem.given or row, problem.detail, by_choice=problem.by_choice)
            if self.shape is None and self.rows >= ROWS_BEFORE_GIVING_UP:
                self.check(kept=0)

    def _record(self, row: dict[str, Any], location: str) -> dict[str, Any]:
        if not self.columns.issuperset(row) and len(self.columns) <= COLUMNS_LISTED:
            self.columns.update(row)
        self.shape = self.shape or (message_shape if self.source.has_messages else shape_for)(row, self.source)
        if self.shape is None:
            raise Unusable(NO_SHAPE, f"found {', '.join(row)}")
        return to_record(row | self.same, self.shape, self.source, location)

    def check(self, kept: int) -> None:
        """Raise DataError if there is nothing, or nothing that is understood."""
        if self.rows == 0:
            raise DataError(f"source {self.source.id!r}: {self.name} has no rows.")
        if self.shape is None and self.columns:
            wanted = f" for records of type {self.source.type}" if self.source.type else ""
            raise DataError(
                f"source {self.source.id!r}: the columns of {self.name} are not understood{wanted}. "
                f"Found: {self._found}. Expected {expected(self.source)}. "
                "Rename the columns in the file's first line (CSV, TSV) or in its objects."
            )
        if self.shape and self.source.labels and "label" not in self.columns:
            raise DataError(f"source {self.source.id!r}: labels has words for the column label, and {self.name} has none. Found: {self._found}.")
        if kept == 0:
            refuse_too_many(self.dropped.faults, {self.source.id: {"kept": 0, "dropped": self.dropped.reasons}}, 0.0)
