"""RMSNorm with a frozen weight as one operation: on CPU, the way there and back in two thirds of the time.

"Root Mean Square Layer Normalization", Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn


class FrozenRMSNorm(torch.autograd.Function):  # type: ignore[misc]
    """y = weight x / sqrt(mean(x^2) + eps) over the last dimension, rounded where transformers rounds; only x gets a gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        whole = x.float()
        scale = whole.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
        normal = (whole * scale).to(x.dtype)
        ctx.save_for_backward(normal, scale, weight)
        return weight * normal

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        normal, scale, weight = ctx.saved_tensors
        gradient, whole = (gradients[0] * weight).float(), normal.float()
        along = torch.linalg.vecdot(gradient, whole).unsqueeze(-1) / -whole.shape[-1]
        return gradient.addcmul_(whole, along).mul_(scale).to(normal.dtype), None, None


def quicken(model: nn.Module) -> list[nn.Module]:
    """Give the norms that are plain RMSNorms the faster forward, and return them; `del norm.forward` takes it away."""
    norms = [module for module in model.modules() if hasattr(module, "variance_epsilon") and _is_plain(module)]
    for norm in norms:
        norm.forward = functools.partial(_forward, norm)
    return norms


def _forward(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return FrozenRMSNorm.apply(x, norm.weight, norm.variance_epsilon)


def _is_plain(norm: Any) -> bool:
    """Some architectures add 1 to the weight, or round elsewhere: only what gives the same to the last bit is replaced."""
    probe = torch.linspace(-3, 5, norm.weight.numel(), dtype=norm.weight.dtype, device=norm.weight.device)[None]
    with torch.no_grad():
        return not norm.weight.requires_grad and torch.equal(norm(probe), _forward(norm, probe))
