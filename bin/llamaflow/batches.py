"""How examples are laid out in rows for a model: several a row, and what many begin with only once a row.

A row is [shared prefix] [rest of example] [rest of example] ... [padding]. Positions restart for every example (after the prefix,
if there is one), and each token sees the prefix and its own example alone: the same losses and gradients as one row an example.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Family:
    """Examples that begin with the same `prefix` tokens, none of which is learnt."""

    prefix: int
    examples: list[Example]

    @property
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
    """All examples in one batch of the length that costs least."""
    families = families_of(examples, sharing=sharing)
    length = row_length(families, packing=packing)
    return stack(rows_of(families, length, packing=packing), length)


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


def row_length(families: Iterable[Family], *, packing: bool) -> int:
    """The row length, a multiple of MULTIPLE, whose rows cost least: few tokens of padding and of repeated prefixes, short attention."""
    families = list(families)
    longest = _rounded(max(family.prefix + rest for family in families for rest in family.rests))
    if not packing or longest >= LONG:
        return longest
    whole = _rounded(max(family.prefix + sum(family.rests) for family in families))
    return min(range(longest, min(whole, LONG) + 1, MULTIPLE), key=lambda length: _cost(families, length))


def _cost(families: Iterable[Family], length: int) -> float:
    rows = sum(_rows_needed(family, length - family.prefix) for family in families)
    return rows * length * (1 + length / ATTENTION)


def _rows_needed(family: Family, room: int) -> int:
    """What the best packing could reach: a row cannot hold two rests that are longer than half of it."""
    rests = family.rests
    return max(math.ceil(sum(rests) / room), sum(2 * rest > room for rest in rests))


def _rounded(length: int) -> int:
    return math.ceil(length / MULTIPLE) * MULTIPLE


def rows_of(families: Iterable[Family], length: int, *, packing: bool) -> list[Row]:
    """Lay examples out in rows of at most `length` tokens; without packing every example has its own row, in order."""
    rows = []
    for family in families:
        shared = pack(family.rests, length - family.prefix) if packing else [[index] for index in range(len(family.examples))]
        rows += [_row(family, row) for row in shared]
    return rows


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


def stack(rows: Sequence[Row], length: int) -> Batch:
    """Rows as one batch; padding is one more example at the end of a row, which carries no labels."""
    import torch

    def column(name: str, fill: int) -> torch.Tensor:
        parts = [np.pad(getattr(row, name), (0, length - len(row.input_ids)), constant_values=fill) for row in rows]
        return torch.from_numpy(np.stack(parts))

    places = [np.concatenate([row.position_ids, np.arange(length - len(row.input_ids))]) for row in rows]
    return Batch(column("input_ids", 0), column("labels", IGNORED), torch.from_numpy(np.stack(places)), column("owners", PADDING))


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Best-fit decreasing bin packing: which examples share a row of at most row_length tokens.

    "Fewer Truncations Improve Language Modeling", Ding et al. 2024, https://arxiv.org/abs/2404.10830.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [row for row, free in enumerate(room) if free >= lengths[index]]
        if fitting:
            best = min(fitting, key=room.__getitem__)
        else:
            best = len(rows)
            rows.append([])
            room.append(row_length)
        rows[best].append(index)
        room[best] -= lengths[index]
    return rows
