"""Trials: one fully resolved training each, and the techniques that give them their hyperparameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from llamaflow.files import short_hash
from llamaflow.params import Grid

LORA = ("lora_r", "lora_alpha", "lora_dropout")


@dataclass(frozen=True)
class TechniqueTraits:
    """What planning and training need to know of a technique."""

    own: tuple[str, ...]  # hyperparameters that only some techniques use
    learning_rate: float  # what learning_rate: auto means
    is_lora: bool = False  # leaves the base frozen and whole, so that trials can share it
    four_bit: bool = False


# LoRA wants about ten times the learning rate of full fine-tuning: "LoRA Without Regret", Schulman et al. 2025
TECHNIQUES: dict[str, TechniqueTraits] = {
    "full": TechniqueTraits((), 2e-5),
    "freeze": TechniqueTraits(("freeze_trainable_layers",), 5e-5),
    "lora": TechniqueTraits(LORA, 2e-4, is_lora=True),
    "rslora": TechniqueTraits(LORA, 1e-4, is_lora=True),
    "dora": TechniqueTraits(LORA, 2e-4, is_lora=True),
    "qlora": TechniqueTraits(LORA, 2e-4, is_lora=True, four_bit=True),
}
NOT_FOR_ALL = {name for traits in TECHNIQUES.values() for name in traits.own}
SHOWN = ("learning_rate", "lora_r", "freeze_trainable_layers")
DEFAULTS = {name: values[0] for name, values in Grid()}
COMMON = tuple(name for name in Grid.model_fields if name != "techniques" and name not in NOT_FOR_ALL)


class Trial(BaseModel):
    """Everything that decides a trial's result; trial_id is a readable slug and a hash of the rest.

    Names are those of transformers, TRL and PEFT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial_id: str = ""
    model: dict[str, Any]  # id, source, revision, sha256
    data: dict[str, Any]  # sha256
    technique: str
    hyperparameters: dict[str, Any]

    @property
    def traits(self) -> TechniqueTraits:
        return TECHNIQUES[self.technique]

    def named(self) -> Trial:
        """The same trial with its id, which shows the hyperparameters that most depends on, and those that are not the default.

        What else is in the grid plays no part: a trial keeps its id, and with it its stored result, when the grid grows.
        """
        shown = [
            f"{_abbreviation(name)}{_number(value)}" for name, value in self.hyperparameters.items() if name in SHOWN or value != DEFAULTS.get(name, value)
        ]
        slug = "-".join([self.model["id"], self.technique, *shown])
        content = self.model_dump(exclude={"trial_id"})
        return self.model_copy(update={"trial_id": f"{re.sub(r'[^A-Za-z0-9._-]+', '-', slug)}-{short_hash(content)}"})

    @property
    def pack(self) -> str:
        """Trials with an equal pack can train in one task on one loaded base; only LoRA leaves the base as it was."""
        shared = {"model": self.model, "data": self.data, "four_bit": self.traits.four_bit}
        shared |= {name: self.hyperparameters[name] for name in ("max_length", "dtype")}
        return short_hash(shared if self.traits.is_lora else {"alone": self.trial_id})


def _abbreviation(name: str) -> str:
    known = {"learning_rate": "lr", "num_train_epochs": "ep", "per_device_train_batch_size": "bs", "gradient_accumulation_steps": "ga", "max_length": "len"}
    known |= {"lora_r": "r", "lora_alpha": "a", "lora_dropout": "drop", "freeze_trainable_layers": "last", "lr_scheduler_type": "", "warmup_steps": "warm"}
    return (known | {"weight_decay": "wd", "max_grad_norm": "clip"}).get(name, name)


def _number(value: Any) -> str:
    """2e-05 as 2e-5, 16.0 as 16."""
    if not isinstance(value, float):
        return str(value)
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].replace("+", ""), f"{value:g}")
