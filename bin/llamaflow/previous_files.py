"""The data set of an earlier run, as the files that its directory data/ holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llamaflow.errors import DataError
from llamaflow.files import read_json
from llamaflow.identities import COLUMNS
from llamaflow.records import SPLITS, Record, read_batches

REMEDY = "Give the directory data/ of an earlier run's results."


def files_of(directory: Path) -> list[Path]:
    """The file of each split. Raises DataError for one that is no such file."""
    files = [directory / f"{split}.parquet" for split in SPLITS]
    for file in files:
        try:
            names = pq.read_schema(file).names
        except (pa.ArrowException, FileNotFoundError) as error:
            raise DataError(f"--previous_dataset: {file.name} is missing or damaged ({error}). {REMEDY}") from error
        if missing := {*COLUMNS, "text"} - {*names}:
            raise DataError(f"--previous_dataset: {file.name} has no column {', '.join(sorted(missing))}: LlamaFlow did not write it. {REMEDY}")
    return files


def records_of(directory: Path, source: str) -> Iterator[Record]:
    """The records of a source, of all splits, a batch in memory at a time."""
    for file in files_of(directory):
        for batch in read_batches(file):
            yield from batch.filter(pc.equal(batch["source"], pa.scalar(source))).to_pylist()


def description_of(directory: Path) -> dict[str, Any]:
    """What dataset.json says. Raises DataError if it is missing or damaged."""
    try:
        found: dict[str, Any] = read_json(directory / "dataset.json")
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"--previous_dataset: dataset.json is missing or damaged ({error}). {REMEDY}") from error
    return found
