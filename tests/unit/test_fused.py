import pytest
import torch
from torch import nn
from transformers import GemmaConfig, LlamaConfig, PreTrainedConfig
from transformers.models.gemma.modeling_gemma import GemmaMLP, GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from llamaflow.fused import quicken


def norm_of(kind: type[nn.Module], dtype: torch.dtype) -> nn.Module:
    norm = kind(48, eps=1e-5)
    norm.weight.data = torch.rand(48, generator=torch.Generator().manual_seed(1)).add(0.5)
    return norm.to(dtype).requires_grad_(False)


def gated_of(kind: type[nn.Module], config: type[PreTrainedConfig], dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    return kind(config(hidden_size=48, intermediate_size=96, num_attention_heads=2)).to(dtype).requires_grad_(False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_the_same_numbers_and_gradients_as_transformers(dtype: torch.dtype, tolerance: float) -> None:
    for module in (norm_of(LlamaRMSNorm, dtype), gated_of(LlamaMLP, LlamaConfig, dtype)):
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(2, 7, 48, generator=generator).to(dtype).requires_grad_()
        gradient = torch.randn(2, 7, 48, generator=generator).to(dtype)
        theirs = module(x)
        (their_gradient,) = torch.autograd.grad(theirs, x, gradient)
        assert quicken(module) == [module]
        ours = module(x)
        (our_gradient,) = torch.autograd.grad(ours, x, gradient)
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(our_gradient, their_gradient, rtol=tolerance, atol=tolerance)


def test_other_kinds_and_trained_norms_are_left_alone() -> None:
    trained = norm_of(LlamaRMSNorm, torch.float32).requires_grad_(True)
    others = (norm_of(GemmaRMSNorm, torch.float32), trained, nn.LayerNorm(48), gated_of(GemmaMLP, GemmaConfig, torch.float32))
    assert not quicken(nn.ModuleList(others))


class Routed(LlamaMLP):
    """As experts are, which want to be told their tokens."""

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(x[tokens])


def test_what_is_called_otherwise_is_left_alone() -> None:
    assert not quicken(gated_of(Routed, LlamaConfig, torch.float32))
    clipped = gated_of(LlamaMLP, LlamaConfig, torch.float32)
    clipped.gate_proj = nn.Sequential(clipped.gate_proj, nn.Hardtanh())  # no weight of its own
    assert not quicken(clipped)


def test_a_gated_layer_keeps_three_tensors_of_its_width() -> None:
    """Those that its own products need, not the activation that can be computed again."""
    layer, kept = gated_of(LlamaMLP, LlamaConfig, torch.float32), set[int]()
    layer.down_proj.weight.requires_grad_(True)  # as an adapter's: its input is kept
    quicken(layer)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() == 2 * 7 * 96:
            kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = layer(torch.ones(2, 7, 48).requires_grad_())
    assert result.requires_grad
    assert len(kept) == 3
