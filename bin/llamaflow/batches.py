"""How examples are laid out in rows for a model: several a row, and what many begin with only once a row.

A row is [shared prefix] [rest of example] [rest of example] ... [padding]. Positions restart for every example (after the prefix,
if there is one), and each token sees the prefix and its own example alone: the same losses and gradients as one row an example.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Example = tuple[Array, Array]  # input_ids, labelled

IGNORED = -100  # torch's cross-entropy leaves out this label
PREFIX, PADDING = 0, -1  # owners of tokens that are no example's own; examples count from 1
MULTIPLE = 16  # row lengths recur, so that kernels compiled for a shape are used again: 40 % more tokens a second on CPU
SHORTEST_PREFIX = 16  # tokens that examples must share before it pays to share their computation
LONG = 1024  # rows are not made longer than this for the sake of sharing
ATTENTION = 2048  # in a row of so many tokens, attention costs about as much as all the rest


@dataclass(frozen=True)
class Row:
    """One row without padding: int64 [tokens] each; members: (number among the family's examples, tokens) of each example in it."""

    input_ids: Array
    labels: Array
    position_ids: Array
    owners: Array
    members: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Family:
    """Examples that begin with the same `prefix` tokens, none of which is learnt."""

    prefix: int
    examples: list[Example]

    @functools.cached_property
    def rests(self) -> list[int]:
        return [len(ids) - self.prefix for ids, _ in self.examples]


@dataclass(frozen=True)
class Batch:
    """Rows of equal length: input_ids, labels, position_ids and owners, each int64 [rows, tokens].

    Labels are already shifted: labels[:, t] is the token that follows input_ids[:, t].
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    owners: torch.Tensor

    def to(self, device: str) -> Batch:
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))

    @property
    def shares_prefixes(self) -> bool:
        return bool((self.owners == PREFIX).any())

    @property
    def labelled(self) -> int:
        return int((self.labels != IGNORED).sum())


def make_batch(examples: Sequence[Example], *, packing: bool, sharing: bool = False) -> Batch:
    """All examples in one batch."""
    return stack(rows_of(families_of(examples, sharing=sharing), packing=packing))


def families_of(examples: Sequence[Example], *, sharing: bool) -> list[Family]:
    """Group examples by what they begin with; without sharing all are one family without a prefix."""
    if not sharing:
        return [Family(0, list(examples))]
    groups: dict[bytes, list[Example]] = {}
    for example in examples:
        groups.setdefault(example[0][:SHORTEST_PREFIX].tobytes(), []).append(example)
    prefixes = [_common_prefix(group) if len(group) > 1 else 0 for group in groups.values()]
    shared = [Family(prefix, group) for prefix, group in zip(prefixes, groups.values(), strict=True) if prefix >= SHORTEST_PREFIX]
    alone = [example for prefix, group in zip(prefixes, groups.values(), strict=True) if prefix < SHORTEST_PREFIX for example in group]
    return shared + ([Family(0, alone)] if alone else [])


def _common_prefix(examples: Sequence[Example]) -> int:
    """Tokens that all examples begin with; the last of them must not foretell a learnt token, which differs between examples."""
    first = examples[0][0]
    length = max(0, min(min(len(ids), int(labelled.argmax()) if labelled.any() else len(ids)) for ids, labelled in examples) - 1)
    for ids, _ in examples[1:]:
        different = np.flatnonzero(ids[:length] != first[:length])
        length = int(different[0]) if len(different) else length
    return length


def rows_of(families: Iterable[Family], *, packing: bool, multiple: int = 1, longest: int = LONG) -> list[Row]:
    """Lay examples out in the rows that cost least; without packing every example has its own row, in order."""
    rows = []
    for family in families:
        shared = cheapest(family, multiple, longest) if packing else [[index] for index in range(len(family.examples))]
        rows += [_row(family, row) for row in shared]
    return rows


def cheapest(family: Family, multiple: int = 1, longest: int = LONG) -> list[list[int]]:
    """Which examples share a row: few tokens of padding and of repeated prefixes, short attention; so many rows at a time cost as much as one."""
    examples, whole = len(family.rests), sum(family.rests)

    def cost(rows: int, rest: float) -> float:
        length = rounded(family.prefix + rest)
        return math.ceil(rows / multiple) * length * (1 + length / ATTENTION) if length <= longest or rows == examples else math.inf

    best, least = [list(range(examples))], math.inf
    for bound, count in sorted((cost(count, whole / count), count) for count in range(1, examples + 1)):
        if bound >= least:
            break
        rows = balanced(family.rests, count)
        if (found := cost(count, max(sum(family.rests[index] for index in row) for row in rows))) < least:
            best, least = rows, found
    return best


def balanced(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Examples in so many rows of about equal length: the longest first, each into the row that is shortest by then.

    "Bounds on Multiprocessing Timing Anomalies", Graham 1969, https://doi.org/10.1137/0117039.
    """
    members: list[list[int]] = [[] for _ in range(rows)]
    shortest = [(0, row) for row in range(rows)]
    for index in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        length, row = shortest[0]
        members[row].append(index)
        heapq.heapreplace(shortest, (length + lengths[index], row))
    return members


def rounded(length: float) -> int:
    return math.ceil(length / MULTIPLE) * MULTIPLE


def _row(family: Family, indices: Sequence[int]) -> Row:
    prefix = family.prefix if len(indices) > 1 else 0
    examples = [family.examples[index] for index in indices]
    parts = [(ids[prefix:], labelled[prefix:]) for ids, labelled in examples]
    ids = [examples[0][0][:prefix], *(part for part, _ in parts)]
    labels = [np.append(np.where(labelled[1:], part[1:], IGNORED), IGNORED) for part, labelled in parts]
    places = [np.arange(prefix, prefix + len(part)) for part, _ in parts]
    owners = [np.full(len(part), number) for number, (part, _) in enumerate(parts, start=1)]
    columns = (ids, [np.full(prefix, IGNORED), *labels], [np.arange(prefix), *places], [np.full(prefix, PREFIX), *owners])
    members = tuple((index, len(part)) for index, (part, _) in zip(indices, parts, strict=True))
    input_ids, learnt, positions, owned = (np.concatenate(column).astype(np.int64) for column in columns)
    return Row(input_ids, learnt, positions, owned, members)


def stack(rows: Sequence[Row]) -> Batch:
    """Rows as one batch of the longest one's length; padding is one more example at the end of a row, which carries no labels."""
    import torch

    length = rounded(max(len(row) for row in rows))

    def column(name: str, fill: int) -> torch.Tensor:
        parts = [np.pad(getattr(row, name), (0, length - len(row)), constant_values=fill) for row in rows]
        return torch.from_numpy(np.stack(parts))

    places = [np.concatenate([row.position_ids, np.arange(length - len(row))]) for row in rows]
    return Batch(column("input_ids", 0), column("labels", IGNORED), torch.from_numpy(np.stack(places)), column("owners", PADDING))
