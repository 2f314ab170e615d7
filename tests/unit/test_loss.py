"""The loss on labelled positions is the loss: values and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import examples
from torch.nn.functional import cross_entropy

from llamaflow import loss as loss_module
from llamaflow.batches import IGNORED, Batch, make_batch
from llamaflow.loss import CompletionLoss
from llamaflow.models import load_model


def from_all_logits(model: Any, batch: Batch) -> torch.Tensor:
    """The mean loss as transformers would compute it, from the logits of every position."""
    logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("chunk", [2048, 7])
def test_equals_the_loss_from_all_logits(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Also in chunks, whose logits are computed again for the gradient."""
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    monkeypatch.setattr(loss_module, "CHUNK_WITHOUT_GRADIENTS", chunk)
    model = load_model(tiny_model, torch.float32)
    batch = make_batch(examples(30, 12, 9, 17), packing=True)
    ours, theirs = CompletionLoss(model).per_token(batch).mean(), from_all_logits(model, batch)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    with torch.no_grad():
        assert CompletionLoss(model).per_token(batch).mean().item() == pytest.approx(theirs.item(), rel=1e-6)
    expected, found = gradients(model, theirs), gradients(model, ours)
    assert found.keys() == expected.keys()
    assert len(found) == len(list(model.parameters()))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


def test_a_model_that_caps_its_logits_uses_its_own() -> None:
    """Gemma 2 squeezes its logits through a tanh."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        final_logit_softcapping=5.0,
        initializer_range=0.08,
    )
    model = Gemma2ForCausalLM(config).eval()
    batch = make_batch(examples(20, 8, 11), packing=True)
    completion = CompletionLoss(model)
    found = completion.per_token(batch).mean()
    assert completion._head_is_plain is False
    assert found.item() == pytest.approx(from_all_logits(model, batch).item(), rel=1e-6)
    completion._head_is_plain = True
    assert completion.per_token(batch).mean().item() != pytest.approx(found.item(), rel=1e-4), "the cap matters here"


def test_a_batch_without_labels(tiny_model: Path) -> None:
    ids, labelled = examples(8)[0]
    labelled[:] = False
    assert CompletionLoss(load_model(tiny_model, torch.float32)).per_token(make_batch([(ids, labelled)], packing=True)).shape == (0,)


def test_looking_at_the_head_leaves_the_mode_as_it_was(tiny_model: Path) -> None:
    model = load_model(tiny_model, torch.float32).train()
    CompletionLoss(model).per_token(make_batch(examples(8), packing=False))
    assert all(module.training for module in model.modules())
