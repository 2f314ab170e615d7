"""Cross-entropy on labelled tokens only: the language-model head is not computed where nothing is to be learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from llamaflow.tokens import IGNORED, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 2048  # labelled tokens whose logits are held at once; with a vocabulary of 128,000 they take 1 GiB in float32


class CompletionLoss:
    """Losses of a causal language model on the labelled tokens of batches.

    Hidden states go through the head at labelled positions alone. Some architectures do more to their logits than that
    (soft capping, scaling): the first batch is compared with the model's own logits, and if they differ, those are used.
    """

    def __init__(self, model: Any) -> None:
        self.model: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._head_is_plain: bool | None = None

    def per_token(self, batch: Batch) -> torch.Tensor:
        """Negative log likelihoods in nats, float32 [labelled tokens], rows in order."""
        if self._head_is_plain is None:
            self._head_is_plain = self._compare(batch)
        where = batch.labels != IGNORED
        labels = batch.labels[where]
        if not self._head_is_plain:
            return cross_entropy(self._own_logits(batch)[where].float(), labels, reduction="none")
        hidden = self._hidden(batch)[where]
        if len(labels) <= CHUNK:
            return self._through_head(hidden, labels)
        pieces = zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True)
        return torch.cat([checkpoint(self._through_head, *piece, use_reentrant=False) for piece in pieces])

    def _hidden(self, batch: Batch) -> torch.Tensor:
        output = self.model.get_decoder()(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
        return output.last_hidden_state

    def _own_logits(self, batch: Batch) -> torch.Tensor:
        return self.model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits

    def _through_head(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self.model.get_output_embeddings()(hidden).float(), labels, reduction="none")

    def _compare(self, batch: Batch) -> bool:
        """Whether the head alone gives the model's own logits: the same operations, so to the last bit (soft capping hardly moves small logits)."""
        short = Batch(batch.input_ids[:1, :32], batch.labels[:1, :32], batch.position_ids[:1, :32], 32, 32)
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            plain = self.model.get_output_embeddings()(self._hidden(short))
            own = self._own_logits(short)
        self.model.train(training)
        return bool(torch.equal(plain, own))
