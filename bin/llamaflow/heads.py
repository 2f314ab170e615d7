"""Models with a head in the place of the language model's: an output for each label, or one, the reward of an answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.chat import Message, conversation_of, render
from llamaflow.files import read_json
from llamaflow.models import device, load_tokenizer
from llamaflow.trials import REWARD, Trial

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def trial_in(trained: Path) -> Trial:
    return Trial.model_validate(read_json(trained / "trial.json"))


def head_tokenizer(base: Path, trial: Trial, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The base's tokenizer, which keeps the last max_length tokens of a longer text: those that the head reads its answer from."""
    longest = trial.hyperparameters["max_length"]
    return padded_tokenizer(base, trust_remote_code=trust_remote_code, model_max_length=longest, truncation_side="left", padding_side="right")


def padded_tokenizer(base: Path, *, trust_remote_code: bool = False, **options: Any) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(base, trust_remote_code=trust_remote_code, **options)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def texts_for(head: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, record: dict[str, Any]) -> list[str]:
    """What the head reads of a record: the conversation up to the answer, or of a preference the chosen and the rejected one; of plain text nothing."""
    if head == REWARD:
        return [whole(tokenizer, record["prompt"], record[answer]) for answer in ("chosen", "rejected")] if record["type"] == "preference" else []
    conversation = conversation_of(record)
    return [render(tokenizer, conversation[:-1], answer_next=True)] if conversation else []


def whole(tokenizer: PreTrainedTokenizerBase, prompt: list[Message] | None, answer: list[Message]) -> str:
    return render(tokenizer, [*(prompt or []), *answer])


def outputs(model: Any, tokenizer: PreTrainedTokenizerBase, texts: list[str], size: int) -> torch.Tensor:
    """The head's outputs on the CPU, float32 [texts, outputs]; `size` texts of similar length go through the model at once."""
    import torch

    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found = torch.empty(len(texts), model.config.num_labels)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        encoded = tokenizer([texts[place] for place in part], return_tensors="pt", padding=True, truncation=True, add_special_tokens=False).to(device())
        with torch.inference_mode():
            found[part] = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits.float().cpu()
    return found
