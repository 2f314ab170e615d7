"""Tokenised data: flat files that are memory-mapped, so that they may be larger than memory.

<split>.input_ids.npy   int32 [tokens]     all examples, one after the other
<split>.labelled.npy    bool  [tokens]     which tokens the model learns to write
<split>.examples.npy    int64 [examples+1] where each example starts
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ARRAYS = {"input_ids": np.int32, "labelled": np.bool_, "examples": np.int64}


class Tokens:
    """One split of a tokenised dataset, read from its memory-mapped files."""

    def __init__(self, directory: Path, split: str) -> None:
        self._input_ids, self._labelled, self._examples = (np.load(directory / f"{split}.{name}.npy", mmap_mode="r") for name in ARRAYS)

    def __len__(self) -> int:
        return len(self._examples) - 1

    @property
    def lengths(self) -> Array:
        """int64 [examples]: tokens of each."""
        return np.diff(self._examples)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """input_ids and labelled of one example."""
        part = slice(self._examples[index], self._examples[index + 1])
        return self._input_ids[part], self._labelled[part]


class TokensWriter:
    """Append tokenised examples of one split to flat files; the split is complete when the context ends."""

    def __init__(self, directory: Path, split: str) -> None:
        self.directory, self.split, self._starts = directory, split, [0]
        self._raw = {name: (directory / f"{split}.{name}.part").open("wb") for name in ("input_ids", "labelled")}

    def add(self, input_ids: Sequence[int], labelled: Sequence[bool]) -> None:
        self._raw["input_ids"].write(np.asarray(input_ids, np.int32).tobytes())
        self._raw["labelled"].write(np.asarray(labelled, np.bool_).tobytes())
        self._starts.append(self._starts[-1] + len(input_ids))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for name, raw in self._raw.items():
            raw.close()
            if self._starts[-1]:
                np.save(self.directory / f"{self.split}.{name}.npy", np.memmap(raw.name, ARRAYS[name], "r"))
            Path(raw.name).unlink()
        np.save(self.directory / f"{self.split}.examples.npy", np.array(self._starts, np.int64))
