"""Adapters that train alone on their base, as PEFT makes, trains and saves them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import (
    IA3Config,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PeftType,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import save_file

from llamaflow.adalora import ADAPTER, adalora_config
from llamaflow.errors import UsageError
from llamaflow.trials import Trial

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from llamaflow.lora import Share


class Adapter:
    """The adapter of one trial, whose base stays as it is."""

    autocast = False  # the frozen base fixes the precision of all products
    forks = False

    def __init__(self, base: PreTrainedModel, trial: Trial) -> None:
        """Raises ValueError if the technique does not fit the model."""
        self.on_layers = trial.traits.trains == "layers"
        if not self.on_layers:
            refuse_too_many_positions(base, trial)
        torch.manual_seed(trial.hyperparameters["seed"])
        self.model: Any = adapted(base, peft_config(trial))
        for name, parameter in self.model.named_parameters():
            if ".ranknum." in name:  # AdaLoRA's constant, which PEFT frees when it changes its precision
                parameter.requires_grad_(False)

    def parameters(self, trial: Trial) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def route(self, shares: Sequence[Share]) -> None:
        """All rows are this trial's."""

    def save(self, trial: Trial, target: Path) -> None:
        """Write target/adapter in PEFT's layout."""
        tensors = get_peft_model_state_dict(self.model, adapter_name=ADAPTER, save_embedding_layers=False)
        save_adapter(self.model.peft_config[ADAPTER], tensors, trial, target)

    def close(self) -> None:
        """Take the adapter out of the base's layers again; virtual tokens were never in them."""
        if self.on_layers:
            self.model.unload()


def save_adapter(config: Any, tensors: dict[str, torch.Tensor], trial: Trial, target: Path, **changed: Any) -> None:
    """Write target/adapter in PEFT's layout, with some values of the configuration changed."""
    directory = target / "adapter"
    directory.mkdir(parents=True)
    config = copy.copy(config)
    for name, value in vars(config).items():
        if isinstance(value, set):
            setattr(config, name, sorted(value))  # its order would change the file from run to run
    # not a path in the work directory
    for name, value in {"base_model_name_or_path": trial.model["source"], "inference_mode": True, **changed}.items():
        setattr(config, name, value)
    config.save_pretrained(directory)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, directory / "adapter_model.safetensors", metadata={"format": "pt"})


def adapted(base: PreTrainedModel, config: Any) -> Any:
    """PEFT's model. Raises ValueError if the configuration does not fit the base, in whichever way PEFT says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Invalid `oft_block_size`")  # PEFT would take another
        try:
            return get_peft_model(base, config, adapter_name=ADAPTER)
        except UserWarning as error:
            raise ValueError(f"--oft_block_size {config.oft_block_size} does not divide the inputs of all layers") from error
        except TypeError as error:
            raise ValueError(str(error)) from error


def refuse_too_many_positions(base: PreTrainedModel, trial: Trial) -> None:
    longest, tokens = trial.hyperparameters["max_length"], trial.hyperparameters["num_virtual_tokens"]
    positions = getattr(base.config, "max_position_embeddings", None)
    if positions and longest + tokens > positions:
        raise UsageError(
            f"--max_length {longest} and --num_virtual_tokens {tokens} together are more than the {positions} positions of {trial.model['id']}. Lower one of them."
        )


def has_tuned_prompt(model: Any) -> bool:
    config = getattr(model, "active_peft_config", None)
    return config is not None and config.peft_type == PeftType.PROMPT_TUNING


def behind_tuned_prompt(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs for the base model with the tuned prompt directly before each text, as in training; PEFT would have it left of the padding.

    input_ids and attention_mask [rows, tokens], padded on the left -> inputs_embeds [rows, virtual tokens + tokens, hidden] and its attention_mask.
    """
    texts = model.get_base_model().get_input_embeddings()(input_ids)
    prompt = model.get_prompt(1)[0].detach().to(texts.dtype)
    padding = (attention_mask == 0).sum(1).tolist()
    embedded = torch.stack([torch.cat([text[:start], prompt, text[start:]]) for text, start in zip(texts, padding, strict=True)])
    return {"inputs_embeds": embedded.detach(), "attention_mask": torch.cat([attention_mask, attention_mask.new_ones(len(texts), len(prompt))], 1)}


def peft_config(trial: Trial) -> Any:
    """PEFT's configuration of a trial's adapter."""
    values = trial.hyperparameters
    common: dict[str, Any] = {"task_type": "SEQ_CLS" if trial.head else "CAUSAL_LM", "revision": trial.model["revision"]}
    if trial.traits.trains == "layers":
        targets = values["target_modules"]
        common["target_modules"] = targets if targets == "all-linear" else [name.strip() for name in targets.split(",")]
    match trial.technique:
        # LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685; rsLoRA: Kalajdzievski 2023, https://arxiv.org/abs/2312.03732;
        # DoRA: Liu et al. 2024, https://arxiv.org/abs/2402.09353
        case "lora" | "rslora" | "loraplus" | "dora" | "pissa" | "olora" | "qlora":
            kind = {"use_rslora": trial.technique == "rslora", "use_dora": trial.technique == "dora"}
            return LoraConfig(r=values["lora_r"], lora_alpha=values["lora_alpha"], lora_dropout=values["lora_dropout"], **kind, **common)
        case "adalora":
            return adalora_config(trial, total_steps=1, **common)  # PEFT wants a number; RankAllocation knows the steps
        case "miss":  # Kang et al. 2024, https://arxiv.org/abs/2409.15371
            return MissConfig(r=values["miss_r"], **common)
        case "oft":  # Qiu et al. 2023, https://arxiv.org/abs/2306.07280
            return OFTConfig(oft_block_size=values["oft_block_size"], **common)
        case "vera":  # Kopiczko et al. 2023, https://arxiv.org/abs/2310.11454
            return VeraConfig(r=values["vera_r"], projection_prng_key=values["seed"], **common)
        case "ia3":  # Liu et al. 2022, https://arxiv.org/abs/2205.05638; outputs are scaled, and what enters down_proj is the output of up_proj
            return IA3Config(feedforward_modules=[], **common)
        case "prompt_tuning":  # Lester et al. 2021, https://arxiv.org/abs/2104.08691
            return PromptTuningConfig(num_virtual_tokens=values["num_virtual_tokens"], prompt_tuning_init="SAMPLE_VOCAB", **common)
        case _:  # prefix_tuning: Li and Liang 2021, https://arxiv.org/abs/2101.00190; zeros disturb the model less than random numbers
            return PrefixTuningConfig(num_virtual_tokens=values["num_virtual_tokens"], init_weights="zero", **common)
