"""Parts of a frozen model as one operation each: on CPU they take less time on the way there and back, and keep less for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu


class FrozenRMSNorm(torch.autograd.Function):  # type: ignore[misc]
    """y = weight x / sqrt(mean(x^2) + eps) over the last dimension, rounded where transformers rounds; only x gets a gradient.

    "Root Mean Square Layer Normalization", Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467.
    """

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


class SwiGLU(torch.autograd.Function):  # type: ignore[misc]
    """y = silu(gate) up, elementwise; silu(gate) is computed again on the way back instead of kept.

    "GLU Variants Improve Transformer", Shazeer 2020, https://arxiv.org/abs/2002.05202.
    """

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,), (gate, up) = gradients, ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient * up, gate), silu(gate).mul_(gradient)


def quicken(model: nn.Module) -> list[nn.Module]:
    """Give frozen RMSNorms and gated layers of the usual kind the faster forward, and return them; `del module.forward` takes it away."""
    quick = []
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            weight, forward = module.weight, _norm
        elif all(hasattr(getattr(module, name, None), "weight") for name in ("gate_proj", "up_proj", "down_proj")):
            weight, forward = module.gate_proj.weight, _gated
        else:
            continue
        if not weight.requires_grad and weight.is_floating_point() and _is_the_same(module, functools.partial(forward, module), weight):
            module.forward = functools.partial(forward, module)
            quick.append(module)
    return quick


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    return FrozenRMSNorm.apply(x, module.weight, module.variance_epsilon)


def _gated(module: Any, x: torch.Tensor) -> torch.Tensor:
    return module.down_proj(SwiGLU.apply(module.gate_proj(x), module.up_proj(x)))


def _is_the_same(module: nn.Module, forward: Callable[..., torch.Tensor], weight: torch.Tensor) -> bool:
    """Some architectures add 1 to a norm's weight, round elsewhere or have another activation: only what gives the same to the last bit is replaced."""
    probe = torch.linspace(-3, 5, weight.shape[-1], dtype=weight.dtype, device=weight.device)[None, None]
    try:
        with torch.no_grad():
            return bool(torch.equal(module(probe), forward(probe)))
    except (TypeError, ValueError, RuntimeError):  # it wants something else than one tensor
        return False
