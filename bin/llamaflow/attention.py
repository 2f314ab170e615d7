"""Attention for training on short rows on CPU: plain products of matrices.

The backward pass of torch's fused CPU kernel takes 30 ms a layer where these products take 2 (rows of 64 tokens, bfloat16 with AMX).
In long rows the scores would take more memory than they save time; there, and without gradients, the fused kernel is used. A row of
several examples, most of whose scores would be masked, is cut into blocks of whole examples instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PretrainedConfig

NAME = "short_rows"
SHORT = 1024  # tokens a row
NOT_HERE = ("softcap", "position_bias", "cache")  # what some architectures ask for besides


@dataclass(frozen=True)
class Block:
    """Tokens `start` to `end` of a row, which see its first `prefix` tokens and each other; mask [tokens, prefix + tokens] is added to their scores."""

    row: int
    start: int
    end: int
    prefix: int
    mask: torch.Tensor

    def keys(self, of: torch.Tensor) -> torch.Tensor:
        """What the block sees: [heads, prefix + tokens, width] of [rows, heads, tokens, width]."""
        return torch.cat([of[self.row, :, : self.prefix], self.own(of)], 1) if self.prefix else self.own(of)

    def own(self, of: torch.Tensor) -> torch.Tensor:
        return of[self.row, :, self.start : self.end]


def reach(config: PretrainedConfig) -> float:
    """How many tokens every layer sees at least; infinite where all see the whole text, 0 where a layer is of another kind (a convolution, a state, chunks)."""
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return 0
    window = getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None
    return math.inf if window is None else window


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
    other = dropout or not getattr(module, "is_causal", True) or any(kwargs.get(name) is not None for name in NOT_HERE) or tokens != key.shape[2]
    blocks: list[Block] = getattr(attention_mask, "blocks", [])
    if other or tokens > SHORT or not (blocks or query.requires_grad):
        fused: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        return fused
    scaling = width**-0.5 if scaling is None else scaling
    if blocks:
        with torch.autocast(query.device.type, enabled=False):  # under which rotated queries and keys come in float32
            return BlockAttention.apply(query.to(value.dtype), key.to(value.dtype), value, blocks, scaling), None
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


class BlockAttention(torch.autograd.Function):  # type: ignore[misc]
    """Attention within blocks: query [rows, heads, tokens, width], key and value [rows, key heads, tokens, width] -> [rows, tokens, heads, width]."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: list[Block], scaling: float) -> torch.Tensor:
        rows, heads, tokens, width = query.shape
        result, kept, groups = query.new_empty(rows, tokens, heads, value.shape[3]), [], key.shape[1]
        for block in blocks:
            size, keys, values = block.end - block.start, block.keys(key), block.keys(value)
            scores = (block.own(query) * scaling).reshape(groups, -1, width) @ keys.transpose(1, 2)
            scores.view(heads, size, -1).add_(block.mask)
            kept.append(scores.softmax(-1))
            result[block.row, block.start : block.end] = (kept[-1] @ values).view(heads, size, -1).transpose(0, 1)
        ctx.blocks, ctx.scaling = blocks, scaling
        ctx.save_for_backward(query, key, value, *kept)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,), (query, key, value, *kept) = gradients, ctx.saved_tensors
        to_query, to_key, to_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        of_prefix: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for block, weights in zip(ctx.blocks, kept, strict=True):
            keys, values, own = block.keys(key), block.keys(value), slice(block.start, block.end)
            queries = (block.own(query) * ctx.scaling).reshape(len(weights), -1, query.shape[-1])
            to_result = gradient[block.row, own].transpose(0, 1).reshape(*weights.shape[:2], -1)
            to_weights = to_result @ values.transpose(1, 2)
            to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            to_query[block.row, :, own] = (to_scores @ keys).mul_(ctx.scaling).view(-1, block.end - block.start, queries.shape[-1])
            to_keys, to_values = to_scores.transpose(1, 2) @ queries, weights.transpose(1, 2) @ to_result
            to_key[block.row, :, own], to_value[block.row, :, own] = to_keys[:, block.prefix :], to_values[:, block.prefix :]
            if block.prefix:
                of_prefix.setdefault(block.row, []).append((to_keys[:, : block.prefix], to_values[:, : block.prefix]))
        for row, parts in of_prefix.items():
            for into, several in zip((to_key, to_value), zip(*parts, strict=True), strict=True):
                into[row, :, : several[0].shape[1]] += torch.stack(several).sum(0)  # rounded once
        return to_query, to_key, to_value, None, None


AttentionInterface.register(NAME, short_rows)
AttentionMaskInterface.register(NAME, sdpa_mask)
