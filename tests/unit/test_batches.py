"""Rows: nothing is lost, examples do not see each other, and a shared prefix is the same computation."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import examples

from llamaflow.batches import IGNORED, MULTIPLE, PREFIX, SHORTEST_PREFIX, Batch, Example, balanced, families_of, make_batch, rows_of
from llamaflow.loss import CompletionLoss
from llamaflow.models import load_model


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(1, 40))
def test_rows_hold_every_example_once_and_are_about_equally_long(lengths: list[int], count: int) -> None:
    rows = balanced(lengths, count)
    assert len(rows) == count
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    sizes = [sum(lengths[index] for index in row) for row in rows]
    assert max(sizes) - min(sizes) <= max(lengths)


@given(st.lists(st.integers(2, 20), min_size=1, max_size=12), st.booleans())
def test_a_batch_holds_the_examples_and_nothing_else(lengths: list[int], packing: bool) -> None:
    made = examples(*lengths)
    batch = make_batch(made, packing=packing)
    assert batch.input_ids.shape == batch.labels.shape == batch.position_ids.shape == batch.owners.shape
    assert batch.input_ids.shape[1] % MULTIPLE == 0
    assert packing or batch.input_ids.shape[1] - max(lengths) < MULTIPLE
    assert batch.labelled == sum(int(labelled[1:].sum()) for _, labelled in made)
    found = []
    for ids, labels, places in zip(batch.input_ids.tolist(), batch.labels.tolist(), batch.position_ids.tolist(), strict=True):
        starts = [at for at, place in enumerate(places) if place == 0] + [len(places)]
        for start, end in pairwise(starts):
            assert places[start:end] == list(range(end - start))
            found.append((tuple(ids[start:end]), tuple(labels[start:end])))
    expected = [(tuple(ids.tolist()), tuple(shifted(ids, labelled))) for ids, labelled in made]
    padding = [item for item in found if item not in expected]
    assert sorted(item for item in found if item in expected) == sorted(expected)
    assert all(set(ids) == {0} and set(labels) == {IGNORED} for ids, labels in padding)


def shifted(ids: Any, labelled: Any) -> list[int]:
    return [*(int(token) if label else IGNORED for token, label in zip(ids[1:], labelled[1:], strict=True)), IGNORED]


def with_prefix(prefix: int, *rests: int, seed: int = 0) -> list[Example]:
    """Examples that begin alike and learn nothing in that part."""
    common = np.random.default_rng(99 + seed).integers(3, 500, prefix).astype(np.int32)
    made = []
    for number, (ids, labelled) in enumerate(examples(*rests, seed=seed)):
        ids[0] = 3 + number  # they differ at once
        made.append((np.concatenate([common, ids]), np.concatenate([np.zeros(prefix, bool), labelled])))
        made[-1][1][prefix] = False  # what the prefix's last token foretells is not learnt
    return made


def test_texts_that_begin_alike_share_nothing() -> None:
    """Every token of theirs is learnt, the first ones too."""
    made = [(ids, np.ones(len(ids), np.bool_)) for ids, _ in with_prefix(20, 5, 9, 30)]
    assert [(family.prefix, len(family.examples)) for family in families_of(made, sharing=True)] == [(0, 3)]


@given(st.integers(0, 40), st.lists(st.integers(2, 30), min_size=2, max_size=12))
def test_shared_rows_hold_every_label_once(prefix: int, rests: list[int]) -> None:
    made = with_prefix(prefix, *rests)
    families = families_of(made, sharing=True)
    rows = rows_of(families, packing=True)
    labels = sorted(int(label) for row in rows for label in row.labels if label != IGNORED)
    assert labels == sorted(label for ids, labelled in made for label in shifted(ids, labelled) if label != IGNORED)
    saved = sum(len(ids) for ids, _ in made) - sum(len(row.input_ids) for row in rows)
    assert (saved > 0) == (prefix >= SHORTEST_PREFIX)


def test_only_what_is_alike_is_shared() -> None:
    one, other, alone = with_prefix(20, 5, 6, 7), with_prefix(30, 8, 9, seed=1), examples(12, 40, seed=2)
    families = families_of([*one, *other, *alone], sharing=True)
    assert [(family.prefix, len(family.examples)) for family in families] == [(20, 3), (30, 2), (0, 2)]


def test_a_prefix_does_not_reach_into_what_is_learnt() -> None:
    """Its last token would have to foretell several continuations."""
    ids = np.arange(3, 43, dtype=np.int32)
    made = [(np.append(ids, end), np.arange(41) >= 25) for end in (50, 51)]
    assert [family.prefix for family in families_of(made, sharing=True)] == [24]


def losses(model: Any, batch: Batch) -> list[float]:
    with torch.no_grad():
        return [float(value) for value in CompletionLoss(model).per_token(batch)]


@pytest.mark.parametrize("lengths", [(40, 30, 9, 1, 20, 2), (9, 4, 5, 5, 4), (64,), (33, 32, 31, 1, 1)])
def test_packed_examples_do_not_see_each_other(tiny_model: Path, lengths: tuple[int, ...]) -> None:
    """The same losses, token by token, as in rows of their own."""
    model = load_model(tiny_model, torch.float32)
    made = examples(*lengths)
    batch = make_batch(made, packing=True)
    assert len(batch.input_ids) < len(lengths) or len(lengths) == 1
    alone = {index: losses(model, make_batch([made[index]], packing=False)) for index in range(len(made)) if made[index][1][1:].any()}
    order = [index for row in rows_of(families_of(made, sharing=False), packing=True) for index, _ in row.members if index in alone]
    assert losses(model, batch) == pytest.approx([value for index in order for value in alone[index]], rel=1e-5, abs=1e-5)
    padded = losses(model, make_batch(made, packing=False))
    assert padded == pytest.approx([value for values in alone.values() for value in values], rel=1e-5, abs=1e-5)


def test_the_test_above_can_fail(tiny_model: Path) -> None:
    """As one example they do see each other."""
    model = load_model(tiny_model, torch.float32)
    batch = make_batch(examples(40, 20, 20), packing=True)
    merged = Batch(batch.input_ids, batch.labels, torch.arange(batch.input_ids.shape[1]).expand_as(batch.input_ids), torch.ones_like(batch.owners))
    assert losses(model, batch) != pytest.approx(losses(model, merged), rel=1e-3)


@pytest.fixture(scope="module")
def qwen2() -> Any:
    """Another architecture, with biases and a mask of its own."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.08
    )
    return Qwen2ForCausalLM(config)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_shared_prefix_gives_the_same_losses_and_gradients(tiny_model: Path, qwen2: Any, architecture: str) -> None:
    model = load_model(tiny_model, torch.float32) if architecture == "llama" else qwen2
    made = [*with_prefix(30, 12, 7, 20, 3, 5, 9), *with_prefix(18, 6, 11, seed=1), *examples(25)]
    shared, alone = make_batch(made, packing=True, sharing=True), make_batch(made, packing=False)
    assert shared.shares_prefixes
    assert not alone.shares_prefixes
    assert shared.input_ids.numel() < 0.6 * alone.input_ids.numel()
    found, expected = gradients(model, shared), gradients(model, alone)
    assert sorted(found.pop("losses").tolist()) == pytest.approx(sorted(expected.pop("losses").tolist()), rel=1e-4)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


def gradients(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    per_token = CompletionLoss(model).per_token(batch)
    per_token.sum().backward()
    return {"losses": per_token.detach()} | {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_without_its_mask_a_shared_row_is_another_computation(tiny_model: Path) -> None:
    model = load_model(tiny_model, torch.float32)
    batch = make_batch(with_prefix(30, 12, 7, 20), packing=True, sharing=True)
    unmasked = Batch(batch.input_ids, batch.labels, batch.position_ids, batch.owners.masked_fill(batch.owners == PREFIX, 1))
    assert losses(model, batch) != pytest.approx(losses(model, unmasked), rel=1e-3)


def longest_row(made: list[Example], *, packing: bool = True) -> int:
    return max(len(row) for row in rows_of(families_of(made, sharing=packing), packing=packing))


def test_rows_are_as_long_as_pays() -> None:
    """Long rows save repetitions of a long prefix, and are no use without one."""
    assert longest_row(with_prefix(45, *[28] * 32)) > 250
    assert longest_row(examples(*[30] * 32)) < 150
    assert longest_row(examples(5, 300), packing=False) == 300


def test_rows_have_little_padding() -> None:
    """The first rows that have room for an example (140, 122, 135 and 34 tokens) would be a quarter padding."""
    assert make_batch(examples(90, 61, 58, 56, 50, 45, 40, 31), packing=True).input_ids.numel() <= 448
