"""Cross-entropy on labelled tokens only: the language-model head is not computed where nothing is to be learnt."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from llamaflow.attention import NAME, Block, reach
from llamaflow.batches import IGNORED, PADDING, PREFIX, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = 64  # tokens that a block of attention has at least: with fewer, calling the products takes longer than the products
CHUNK = 2048  # labelled tokens whose logits are held at once; with a vocabulary of 128,000 they take 1 GiB in float32
CHUNK_WITHOUT_GRADIENTS = 256  # fewer, since nothing must be computed twice for it


class CompletionLoss:
    """Losses of a causal language model on the labelled tokens of batches.

    Hidden states go through the head at labelled positions alone. Some architectures do more to their logits than that
    (soft capping, scaling): both ways are compared once, and if they differ, the model's own logits are used. So are PEFT's
    where it puts virtual tokens before every text, which must then be one example a row.
    """

    def __init__(self, model: Any) -> None:
        self._after_virtual_tokens = virtual_tokens(model) > 0
        self.model: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") and not self._after_virtual_tokens else model
        self._head_is_plain = not self._after_virtual_tokens and self._compare()

    def per_token(self, batch: Batch) -> torch.Tensor:
        """Negative log likelihoods in nats, float32 [labelled tokens], rows in order."""
        where = batch.labels != IGNORED
        labels = batch.labels[where]
        if not self._head_is_plain:
            return cross_entropy(self._own_logits(batch)[where].float(), labels, reduction="none")
        hidden = self._hidden(batch)[where]
        size = CHUNK if torch.is_grad_enabled() else CHUNK_WITHOUT_GRADIENTS
        if len(labels) <= size:
            return self._through_head(hidden, labels)
        pieces = zip(hidden.split(size), labels.split(size), strict=True)
        return torch.cat([checkpoint(self._through_head, *piece, use_reentrant=False) for piece in pieces])

    def _hidden(self, batch: Batch) -> torch.Tensor:
        return self.model.get_decoder()(**self._inputs(batch)).last_hidden_state

    def _own_logits(self, batch: Batch) -> torch.Tensor:
        return self.model(**self._inputs(batch)).logits[:, -batch.input_ids.shape[1] :]

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """Where positions restart, transformers itself keeps examples from seeing each other; a shared prefix needs a mask."""
        if self._after_virtual_tokens:
            return {"input_ids": batch.input_ids, "attention_mask": (batch.owners != PADDING).long(), "use_cache": False}
        mask = mask_of(batch.owners, self.model.dtype) if batch.shares_prefixes or self._masks(batch) else None
        return {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": mask, "use_cache": False}

    def _masks(self, batch: Batch) -> bool:
        """Whether examples that share a row have a mask of ours without a prefix too, which is faster where the attention is ours."""
        config = self.model.config.get_text_config()
        return config._attn_implementation == NAME and int(batch.owners.max()) > 1 and reach(config) > int(batch.position_ids.max())

    def _through_head(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self.model.get_output_embeddings()(hidden).float(), labels, reduction="none")

    def _compare(self) -> bool:
        """Whether the head alone gives the model's own logits: the same operations, so to the last bit (soft capping hardly moves small logits)."""
        tokens = torch.arange(8, device=self.model.device)[None]
        short = Batch(tokens, tokens, tokens, torch.ones_like(tokens))
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            plain = self.model.get_output_embeddings()(self._hidden(short))
            own = self._own_logits(short)
        self.model.train(training)
        return bool(torch.equal(plain, own))


def virtual_tokens(model: Any) -> int:
    """How many trained tokens stand before every text: with prompt and prefix tuning, else 0."""
    config = getattr(model, "active_peft_config", None)
    return config.num_virtual_tokens if config is not None and config.is_prompt_learning else 0


def mask_of(owners: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What to add to attention scores [rows, 1, tokens, tokens]: 0 where a token sees another, else the most negative number.

    A token sees what stands before it in its own example and in the prefix. The mask carries its rows' blocks to short_rows.
    """
    tokens = owners.shape[1]
    before = torch.ones(tokens, tokens, dtype=torch.bool, device=owners.device).tril()
    seen = before & ((owners[:, None, :] == owners[:, :, None]) | (owners[:, None, :] == PREFIX))
    mask: Any = torch.zeros(seen.shape, dtype=dtype, device=owners.device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
    if not owners.is_cuda:
        mask.blocks = [block for row, owned in enumerate(owners.tolist()) for block in _blocks(row, owned, mask[row, 0])]
    return mask


def _blocks(row: int, owners: list[int], mask: torch.Tensor) -> Iterator[Block]:
    """The first block of a row holds its prefix."""
    ends = [place for place, (one, other) in enumerate(pairwise(owners), start=1) if one != other and one != PREFIX]
    start, prefix = 0, 0
    for end in [*ends, len(owners)]:
        if end - start < BLOCK and end < len(owners):
            continue
        yield Block(row, start, end, prefix, torch.cat([mask[start:end, :prefix], mask[start:end, start:end]], 1))
        start, prefix = end, owners.count(PREFIX)
