"""How far a table was read: the highest value of a column, in the data set of each run, for the run after it.

Only rows from that value on are asked for; what was made of the others is in that data set. Rows with the value itself come again, since
more may have been written with it, and so do rows without a value: those that are known already fall away as exact duplicates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, ColumnClause, Date, DateTime, Numeric, Select, String, bindparam, column, literal_column, or_, select, text
from sqlalchemy.sql import quoted_name

from llamaflow.errors import DataError, UsageError
from llamaflow.files import short_hash
from llamaflow.previous_files import description_of, records_of
from llamaflow.records import Record
from llamaflow.sources import Source

READERS: dict[str, Any] = {"int": int, "Decimal": Decimal, "str": str, "date": date.fromisoformat, "datetime": datetime.fromisoformat}  # by Python's types
TYPES: dict[str, Any] = {"int": BigInteger(), "Decimal": Numeric(), "str": String(), "date": Date()}
REMEDY = "Run once without --previous_dataset, or without the column watermark: then all rows are read."


class Watermark:
    """What the rows of one source are asked from, and the highest value that they bring."""

    def __init__(self, source: Source, previous: Path | None) -> None:
        self.source, self.previous, self.column = source, previous, source.watermark or ""
        # another query, or other templates, would make other records of the rows that were read
        self.asked = short_hash(source.model_dump(exclude={"secret"}, exclude_none=True), 16)
        self.since = self.highest = self._earlier()
        self.nulls = 0

    def records(self) -> Iterator[Record]:
        """What the earlier run made of the rows that are not asked for."""
        if self.previous and self.since is not None:
            yield from records_of(self.previous, self.source.id)

    def statement(self, query: str) -> Select[Any]:
        """The query's rows, or those from `since` on, whose value goes to the database beside it."""
        # on a line of its own: a query may end in a comment; and always as a part, so that what cannot be one is refused in the first run
        rows: Select[Any] = select(literal_column("*")).select_from(text(f"({query}\n) AS all_rows"))
        if self.since is None:
            return rows
        is_timestamp = isinstance(self.since, datetime)
        kind = DateTime(timezone=self.since.tzinfo is not None) if is_timestamp else TYPES[type(self.since).__name__]
        name: ColumnClause[Any] = column(quoted_name(self.column, quote=True))
        return rows.where(or_(name >= bindparam("since", self.since, kind), name.is_(None)))

    def refuse_other_columns(self, names: list[str]) -> None:
        if names.count(self.column) != 1:
            many = "two columns" if self.column in names else "no column"
            raise UsageError(f"source {self.source.id!r}: the query's result has {many} {self.column}, which watermark names. Found: {', '.join(names)}.")

    def see(self, value: Any) -> None:
        """Take the value of a row into account. Raises DataError for one that has no exact order with those before it."""
        if value is None:
            self.nulls += 1
            return
        kind = type(value).__name__
        if kind not in READERS or value != value:  # NaN
            raise DataError(
                self._fault(f"holds a {kind} ({value!s:.40}), and whole numbers, decimals, dates, timestamps or text are expected. CAST it in the query.")
            )
        try:
            # the database may have another order of text: its highest is above ours then, and rows between the two come again
            if self.highest is None or value > self.highest:
                self.highest = value
        except (TypeError, InvalidOperation) as error:
            raise DataError(self._fault(f"holds {value!s:.40} beside {self.highest!s:.40}, which cannot be compared. {REMEDY}")) from error

    @property
    def described(self) -> dict[str, Any] | None:
        """For the receipt, and from there for the data set; None if there was no value."""
        if self.highest is None:
            return None
        value = self.highest.isoformat() if isinstance(self.highest, date) else str(self.highest)
        return {"column": self.column, "type": type(self.highest).__name__, "value": value, "rows_without_it": self.nulls, "asked": self.asked}

    def _earlier(self) -> Any:
        """How far the earlier run read with the same row of the samplesheet; None if it did not."""
        if self.previous is None:
            return None
        found = description_of(self.previous).get("watermarks", {}).get(self.source.id, {})
        if found.get("asked") != self.asked:
            return None
        with contextlib.suppress(KeyError, TypeError, ValueError, InvalidOperation):
            return READERS[found["type"]](found["value"])
        raise DataError(f"--previous_dataset: dataset.json says nothing that is understood about the watermark of source {self.source.id!r}. {REMEDY}")

    def _fault(self, words: str) -> str:
        return f"source {self.source.id!r}: the column {self.column}, which watermark names, {words}"
