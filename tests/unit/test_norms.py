import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from llamaflow.norms import quicken


def norm_of(kind: type[nn.Module], dtype: torch.dtype) -> nn.Module:
    norm = kind(48, eps=1e-5)
    norm.weight.data = torch.rand(48, generator=torch.Generator().manual_seed(1)).add(0.5)
    return norm.to(dtype).requires_grad_(False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_the_same_numbers_and_gradients_as_transformers(dtype: torch.dtype, tolerance: float) -> None:
    norm, generator = norm_of(LlamaRMSNorm, dtype), torch.Generator().manual_seed(2)
    x = torch.randn(2, 7, 48, generator=generator).to(dtype).requires_grad_()
    gradient = torch.randn(2, 7, 48, generator=generator).to(dtype)
    theirs = norm(x)
    (their_gradient,) = torch.autograd.grad(theirs, x, gradient)
    assert quicken(norm) == [norm]
    ours = norm(x)
    (our_gradient,) = torch.autograd.grad(ours, x, gradient)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=tolerance, atol=tolerance)


def test_other_norms_and_trained_ones_are_left_alone() -> None:
    trained = norm_of(LlamaRMSNorm, torch.float32).requires_grad_(True)
    assert not quicken(nn.ModuleList([norm_of(GemmaRMSNorm, torch.float32), trained, nn.LayerNorm(48)]))
