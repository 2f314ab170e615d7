"""Attention in short rows is the same function as torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import examples
from transformers import Gemma3TextConfig, Lfm2Config, LlamaConfig, LlamaForCausalLM, MistralConfig

from llamaflow import attention
from llamaflow.batches import make_batch
from llamaflow.loss import CompletionLoss, mask_of


def gradients(model: Any, name: str, *, packing: bool) -> dict[str, torch.Tensor]:
    model.set_attn_implementation(name)
    model.zero_grad()
    made = examples(40, 9, 14, 30)
    per_token = CompletionLoss(model).per_token(make_batch(made, packing=packing))
    per_token.sum().backward()
    return {"losses": per_token.detach()} | {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_losses_and_gradients_are_those_of_the_fused_kernel(key_heads: int, packing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
        initializer_range=0.08,
    )
    model = LlamaForCausalLM(config)
    expected = gradients(model, "sdpa", packing=packing)
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *_, **__: pytest.fail("the rows are short: the kernel is not needed"))
    monkeypatch.setattr(CompletionLoss, "_compare", lambda _: True)  # without gradients it would be
    found = gradients(model, attention.NAME, packing=packing)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)


def test_blocks_are_whole_examples_and_the_first_holds_the_prefix() -> None:
    owners = torch.tensor([[0] * 30 + [1] * 10 + [2] * 50 + [3] * 40 + [4] * 30, [1] * 100 + [2] * 20 + [-1] * 40])
    mask: Any = mask_of(owners, torch.float32)
    assert [(block.row, block.start, block.end, block.prefix) for block in mask.blocks] == [(0, 0, 90, 0), (0, 90, 160, 30), (1, 0, 100, 0), (1, 100, 160, 0)]
    assert int((mask == 0).sum()) == sum(int((block.mask == 0).sum()) for block in mask.blocks), "what is left out was masked"


KINDS: list[tuple[Any, float]] = [
    (LlamaConfig(), math.inf),
    (MistralConfig(sliding_window=None), math.inf),
    (MistralConfig(sliding_window=4096), 4096),
    (Gemma3TextConfig(sliding_window=512), 512),
    (Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]), 0),
]


@pytest.mark.parametrize(("config", "tokens"), KINDS)
def test_how_far_an_architecture_sees(config: Any, tokens: float) -> None:
    assert attention.reach(config) == tokens


@pytest.mark.parametrize("asked", ["softcap", "position_bias"])
def test_what_it_does_not_compute_is_left_to_others(asked: str) -> None:
    """The kernel computes it, or refuses; nothing is left out silently."""
    query, mask = torch.randn(1, 2, 8, 4, requires_grad=True), torch.zeros(1, 1, 8, 8)
    plain, _ = attention.short_rows(torch.nn.Module(), query, query, query, mask)
    try:
        other, _ = attention.short_rows(torch.nn.Module(), query, query, query, mask, **{asked: torch.full((1, 2, 8, 8), 2.0).tril()})
    except (ValueError, TypeError):
        return
    assert not torch.allclose(plain, other)
