"""Attention for training on short rows on CPU: plain products of matrices.

The backward pass of torch's fused CPU kernel takes 30 ms a layer where these products take 2 (rows of 64 tokens, bfloat16 with AMX).
In long rows the scores would take more memory than they save time; there, and without gradients, the fused kernel is used.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "short_rows"
SHORT = 1024  # tokens a row
NOT_HERE = ("softcap", "position_bias", "cache")  # what some architectures ask for besides


def short_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of query [rows, heads, tokens, width] over key and value [rows, key heads, tokens, width]."""
    rows, heads, tokens, width = query.shape
    other = dropout or not getattr(module, "is_causal", True) or any(kwargs.get(name) is not None for name in NOT_HERE)
    if other or not query.requires_grad or tokens > SHORT or tokens != key.shape[2]:
        fused: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        return fused
    scaling = width**-0.5 if scaling is None else scaling
    groups = key.shape[1]
    scores = (query * scaling).reshape(rows, groups, -1, width) @ key.transpose(2, 3)
    # a new tensor: on the way back, a change of a view in place costs two copies
    scores = scores.view(rows, heads, tokens, tokens) + _as_summand(attention_mask, tokens, scores)
    weights = scores.softmax(-1).view(rows, groups, -1, tokens)
    return (weights @ value).view(rows, heads, tokens, -1).transpose(1, 2).contiguous(), None


def _as_summand(mask: torch.Tensor | None, tokens: int, scores: torch.Tensor) -> torch.Tensor:
    if mask is None:
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=scores.device).tril()
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device).masked_fill_(~mask, torch.finfo(scores.dtype).min)


AttentionInterface.register(NAME, short_rows)
AttentionMaskInterface.register(NAME, sdpa_mask)
