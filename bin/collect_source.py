#!/usr/bin/env python3
"""Read one data source into records.

    collect_source.py --path faq.csv < settings.json

The settings hold {"cleaning": {...}, "source": {a row of the samplesheet}}; without --path the source's address is downloaded.
Writes collected.parquet, collect_source.dropped.parquet (rows that cannot become records, with the reason) and the receipt collect_source.json.
The first row whose columns are understood decides how the whole source is read (see llamaflow/rows.py).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from llamaflow.download import download
from llamaflow.errors import DataError, UsageError, exits_cleanly
from llamaflow.formats import rows_of
from llamaflow.params import Cleaning
from llamaflow.records import DroppedWriter, ParquetWriter
from llamaflow.rows import Shape, expected, shape_of, to_record
from llamaflow.sources import FORMATS, Source, format_of
from llamaflow.steps import read_settings, receipt
from llamaflow.textfiles import Unusable

STEP = "collect_source"
NO_SHAPE = "columns not understood"
ROWS_BEFORE_GIVING_UP = 1000
COLUMNS_LISTED = 100


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--path", type=Path, help="the source's file; without it, its address is downloaded")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(source: Source, cleaning: Cleaning, path: Path | None, outdir: Path, settings: Mapping[str, Any]) -> None:
    file_format = source.format or format_of(source.path) or format_of(str(path or ""))
    if file_format is None:
        raise UsageError(
            f"the format of {source.path} cannot be told from its ending. Name it in the column format: {', '.join(dict.fromkeys(FORMATS.values()))}."
        )
    collected, rejected = outdir / "collected.parquet", outdir / f"{STEP}.dropped.parquet"
    with receipt(STEP, settings, outdir) as written, _local(source, path, outdir) as file:
        written.add_input(file)
        with ParquetWriter(collected) as kept, DroppedWriter(rejected, STEP) as dropped:
            reader = Reader(source, file, dropped)
            for record in reader.records(file_format):
                kept.write(record)
            reader.check(kept.count)
            dropped.refuse_too_many({source.id: kept.count}, cleaning.max_dropped_fraction)
        written.add_output(collected)
        written.add_output(rejected)
        written.counts = {
            "records": kept.count,
            "dropped": dropped.reasons,
            "sources": {source.id: {"kept": kept.count, "dropped": dropped.reasons}},
            "format": file_format,
            "ignored_columns": sorted(reader.ignored)[:COLUMNS_LISTED],
            "bytes": file.stat().st_size,
            "sha256": written.inputs[file.name],
        }


@contextmanager
def _local(source: Source, path: Path | None, outdir: Path) -> Iterator[Path]:
    """The source's file: the given one, or one downloaded for the time being."""
    if path is None and source.is_url:
        # beside the results, since the system's temporary directory may be small
        with tempfile.TemporaryDirectory(dir=outdir, prefix=".download-") as directory:
            yield download(source.path, Path(directory))
        return
    file = path or Path(source.path)
    if not file.is_file():
        raise UsageError(
            f"source {source.id!r}: {file} is {'a directory, not a file' if file.is_dir() else 'not there'}. Check the column path of the samplesheet."
        )
    yield file


class Reader:
    """Turn the rows of one file into records; rows that cannot be used go to `dropped`."""

    def __init__(self, source: Source, file: Path, dropped: DroppedWriter) -> None:
        self.source, self.file, self.dropped = source, file, dropped
        self.shape: Shape | None = None
        self.columns: set[str] = set()
        self.rows = 0

    @property
    def ignored(self) -> set[str]:
        return self.columns - (self.shape.columns if self.shape else set())

    def records(self, file_format: str) -> Iterator[dict[str, Any]]:
        for number, row in rows_of(self.file, file_format):
            self.rows += 1
            location = f"{self.file.name}:{number}"
            try:
                if isinstance(row, Unusable):
                    raise row
                yield self._record({_folded(name): value for name, value in row.items()}, location)
            except Unusable as problem:
                self.dropped.drop(self.source.id, location, problem.reason, problem.given or row, problem.detail)
            if self.shape is None and self.rows >= ROWS_BEFORE_GIVING_UP:
                self.check(kept=0)

    def _record(self, row: dict[str, Any], location: str) -> dict[str, Any]:
        if not self.columns.issuperset(row) and len(self.columns) <= COLUMNS_LISTED:
            self.columns.update(row)
        self.shape = self.shape or shape_of(row, self.source.type)
        if self.shape is None:
            raise Unusable(NO_SHAPE, f"found {', '.join(row)}")
        return to_record(row, self.shape, self.source, location)

    def check(self, kept: int) -> None:
        """Raise DataError if there is nothing, or nothing that is understood."""
        if self.rows == 0:
            raise DataError(f"source {self.source.id!r}: {self.file.name} has no rows.")
        if self.shape is None and self.columns:
            wanted = f" for records of type {self.source.type}" if self.source.type else ""
            raise DataError(
                f"source {self.source.id!r}: the columns of {self.file.name} are not understood{wanted}. "
                f"Found: {', '.join(sorted(map(str, self.columns)))}. Expected one of: {expected(self.source.type)}. "
                "Rename the columns in the file's first line (CSV, TSV) or in its objects."
            )
        if kept == 0:
            self.dropped.refuse_too_many({}, 0.0)


@lru_cache(maxsize=4096)
def _folded(name: object) -> str:
    """Column names are compared without case and outer white space."""
    return str(name).strip().lower()


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    source, cleaning = Source.model_validate(settings.get("source", {})), Cleaning.model_validate(settings.get("cleaning", {}))
    run(source, cleaning, args.path, args.outdir, settings)


if __name__ == "__main__":
    main()
