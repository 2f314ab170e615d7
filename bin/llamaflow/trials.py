"""Trials: one fully resolved training each, and the techniques that give them their hyperparameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from llamaflow.files import short_hash
from llamaflow.params import Grid

LORA = ("lora_r", "lora_alpha", "lora_dropout")


@dataclass(frozen=True)
class TechniqueTraits:
    """What planning and training need to know of a technique."""

    own: tuple[str, ...]  # hyperparameters that only some techniques use
    learning_rate: float  # what learning_rate: auto means
    trains: Literal["base", "layers", "prompt"] = "base"  # the model itself, or beside it: an adapter of its layers, virtual tokens before every text
    shares_base: bool = False  # several trials can train on one base: LoraPack
    all_stages: bool = True  # else sft alone

    @property
    def is_adapter(self) -> bool:
        """The base stays as it is, and what is trained is kept beside it."""
        return self.trains != "base"


@dataclass(frozen=True)
class StageTraits:
    """What planning and training need to know of a stage."""

    learning_rate: float  # learning_rate: auto is so many times that of the technique for sft
    needs: tuple[str, ...]  # types of records that it learns from
    own: tuple[str, ...] = ()  # hyperparameters that only some stages use
    work: float = 1.0  # what an example takes, relative to sft


# learning rates relative to TRL's defaults for full fine-tuning: dpo and kto 1e-6, orpo 1e-6 (paper: 8e-6), grpo 1e-6, sft 2e-5
STAGES: dict[str, StageTraits] = {
    "sft": StageTraits(1.0, ("text", "chat", "preference"), ("curriculum",)),
    "dpo": StageTraits(0.05, ("preference",), ("beta",), 2.7),
    "orpo": StageTraits(0.4, ("preference",), ("beta",), 2.0),
    "kto": StageTraits(0.05, ("preference", "chat"), ("beta",), 2.0),
    "reward": StageTraits(1.0, ("preference",), (), 2.0),
    "grpo": StageTraits(0.05, ("chat",), ("num_generations", "max_completion_length", "temperature"), 3.0),
    "classification": StageTraits(1.0, ("chat",)),
    "distillation": StageTraits(0.05, ("chat",), ("max_completion_length", "temperature"), 4.0),
}
REWARD = ("reward",)  # the one output of a reward model

# LoRA wants about ten times the learning rate of full fine-tuning: "LoRA Without Regret", Schulman et al. 2025
TECHNIQUES: dict[str, TechniqueTraits] = {
    "full": TechniqueTraits((), 2e-5),
    "freeze": TechniqueTraits(("freeze_trainable_layers",), 5e-5),
    "lora": TechniqueTraits(LORA, 2e-4, "layers", shares_base=True),
    "rslora": TechniqueTraits(LORA, 1e-4, "layers", shares_base=True),
    "loraplus": TechniqueTraits((*LORA, "loraplus_lr_ratio"), 5e-5, "layers", shares_base=True, all_stages=False),
    "dora": TechniqueTraits(LORA, 2e-4, "layers", shares_base=True),
    "pissa": TechniqueTraits(LORA, 1e-4, "layers", shares_base=True, all_stages=False),
    "olora": TechniqueTraits(LORA, 1e-4, "layers", shares_base=True, all_stages=False),
    "qlora": TechniqueTraits((*LORA, "quantization_bit"), 2e-4, "layers", shares_base=True),
    # Zhang et al. 2023, https://arxiv.org/abs/2303.10512, appendix D to F: 5e-4 to 2e-3
    "adalora": TechniqueTraits(LORA, 1e-3, "layers", all_stages=False),
    # those with which PEFT compares its methods: https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA/experiments
    "miss": TechniqueTraits(("miss_r",), 1e-4, "layers"),
    "oft": TechniqueTraits(("oft_block_size",), 1e-4, "layers"),
    "vera": TechniqueTraits(("vera_r",), 1e-3, "layers"),
    "ia3": TechniqueTraits((), 5e-3, "layers"),
    "prompt_tuning": TechniqueTraits(("num_virtual_tokens",), 1e-3, "prompt", all_stages=False),
    "prefix_tuning": TechniqueTraits(("num_virtual_tokens",), 5e-3, "prompt", all_stages=False),
}
NOT_FOR_ALL = {name for traits in TECHNIQUES.values() for name in traits.own} | {name for stage in STAGES.values() for name in stage.own}
SHOWN = ("learning_rate", "lora_r", "miss_r", "oft_block_size", "vera_r", "num_virtual_tokens", "freeze_trainable_layers")
DEFAULTS = {name: values[0] for name, values in Grid()}
COMMON = tuple(name for name in Grid.model_fields if name != "techniques" and name not in NOT_FOR_ALL)


def names_of(stage: str, technique: str) -> tuple[str, ...]:
    """The hyperparameters of a trial, without what one value for the run decides."""
    return (*COMMON, *STAGES[stage].own, *TECHNIQUES[technique].own)


def usual_learning_rate(stage: str, technique: str) -> float:
    """What learning_rate: auto means."""
    return float(f"{TECHNIQUES[technique].learning_rate * STAGES[stage].learning_rate:.3g}")


class Trial(BaseModel):
    """Everything that decides a trial's result; trial_id is a readable slug and a hash of the rest.

    Names are those of transformers, TRL and PEFT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial_id: str = ""
    model: dict[str, Any]  # id, source, revision, sha256
    data: dict[str, Any]  # sha256 and, for the stage classification, labels
    technique: str
    hyperparameters: dict[str, Any]

    @property
    def traits(self) -> TechniqueTraits:
        return TECHNIQUES[self.technique]

    @property
    def stage(self) -> str:
        return str(self.hyperparameters.get("stage", "sft"))

    @property
    def head(self) -> tuple[str, ...] | None:
        """What the outputs of a head in the place of the language model's stand for; None: the model writes text."""
        if self.stage == "classification":
            return tuple(self.data["labels"])
        return REWARD if self.stage == "reward" else None

    @property
    def quantization_bit(self) -> int | None:
        """Bits of a frozen weight; None: the base is not quantised."""
        return self.hyperparameters.get("quantization_bit")

    def named(self) -> Trial:
        """The same trial with its id, which shows the hyperparameters that most depends on, and those that are not the default.

        What else is in the grid plays no part: a trial keeps its id, and with it its stored result, when the grid grows.
        """
        shown = [short_setting(name, value) for name, value in self.hyperparameters.items() if name in SHOWN or value != DEFAULTS.get(name, value)]
        slug = "-".join([self.model["id"], self.technique, *shown])
        content = self.model_dump(exclude={"trial_id"})
        return self.model_copy(update={"trial_id": f"{re.sub(r'[^A-Za-z0-9._-]+', '-', slug)}-{short_hash(content)}"})

    @property
    def pack(self) -> str:
        """Trials with an equal pack can train in one task on one loaded base."""
        shared = {"model": self.model, "data": self.data, "quantization_bit": self.quantization_bit}
        shared |= {name: self.hyperparameters[name] for name in ("max_length", "dtype", "packing", "target_modules") if name in self.hyperparameters}
        return short_hash(shared if self.traits.shares_base and self.stage == "sft" else {"alone": self.trial_id})


def short_setting(name: str, value: Any) -> str:
    """A hyperparameter and its value as trials are named after them: lr2e-5, r16, cosine."""
    return f"{_abbreviation(name)}{_number(value)}"


def _abbreviation(name: str) -> str:
    known = {"learning_rate": "lr", "num_train_epochs": "ep", "per_device_train_batch_size": "bs", "gradient_accumulation_steps": "ga", "max_length": "len"}
    known |= {
        "lora_r": "r",
        "lora_alpha": "a",
        "lora_dropout": "drop",
        "freeze_trainable_layers": "last",
        "lr_scheduler_type": "",
        "curriculum": "",
        "stage": "",
        "warmup_steps": "warm",
    }
    known |= {"weight_decay": "wd", "max_grad_norm": "clip", "quantization_bit": "bit", "num_virtual_tokens": "tokens"}
    return (known | {"miss_r": "r", "oft_block_size": "block", "vera_r": "r"}).get(name, name)


def _number(value: Any) -> str:
    """2e-05 as 2e-5, 16.0 as 16."""
    if not isinstance(value, float):
        return str(value)
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].replace("+", ""), f"{value:g}")
