"""Preparing a base model for a technique, and saving what was trained."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.errors import UsageError
from llamaflow.models import load_model, load_tokenizer, resolve_dtype, saved_dtype
from llamaflow.trials import Trial

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn
    from transformers import PreTrainedModel

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on import it advises to install a package that it can do without


def load_base(directory: Path, trial: Trial, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load the base as the trial trains it: frozen weights in the working precision, trained ones in float32.

    bfloat16 has 8 bits of mantissa: an update of 2e-5 to a bfloat16 weight is mostly rounded away.
    """
    import torch

    dtype = torch.float32 if trial.technique == "full" else resolve_dtype(trial.hyperparameters["dtype"])
    model = load_model(directory, dtype, four_bit=trial.traits.four_bit, trust_remote_code=trust_remote_code)
    for module in model.modules():
        # bitsandbytes would repack 4-bit weights on CPU the first time they are evaluated, and no gradient passes through them after that
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


@contextmanager
def prepared(base: PreTrainedModel, trial: Trial) -> Iterator[nn.Module]:
    """Yield the base made trainable for the trial; LoRA's matrices are taken out again at the end."""
    base.requires_grad_(False)
    if trial.traits.is_lora:
        yield from _with_lora(base, trial)
    else:
        for module in [base] if trial.technique == "full" else last_layers(base, trial.hyperparameters["freeze_trainable_layers"]):
            module.float().requires_grad_(True)
        yield base


def _with_lora(base: PreTrainedModel, trial: Trial) -> Iterator[nn.Module]:
    from peft import get_peft_model

    base.name_or_path = trial.model["source"]  # what the adapter's configuration will name: not a path in the work directory
    try:
        with _quiet_peft():
            adapted = get_peft_model(base, lora_config(trial))
    except ValueError as error:
        raise UsageError(f"--target_modules {trial.hyperparameters['target_modules']} does not fit {trial.model['id']}: {error}") from error
    try:
        yield adapted
    finally:
        adapted.unload()


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5 for an attribute by its old name, which warns on every model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def lora_config(trial: Trial) -> LoraConfig:
    """LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685), rsLoRA (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732)
    or DoRA (Liu et al. 2024, https://arxiv.org/abs/2402.09353)."""
    from peft import LoraConfig

    values = trial.hyperparameters
    targets = values["target_modules"]
    return LoraConfig(
        r=values["lora_r"],
        lora_alpha=values["lora_alpha"],
        lora_dropout=values["lora_dropout"],
        use_rslora=trial.technique == "rslora",
        use_dora=trial.technique == "dora",
        target_modules=targets if targets == "all-linear" else [name.strip() for name in targets.split(",")],
        task_type="CAUSAL_LM",
        revision=trial.model["revision"],
    )


def last_layers(model: PreTrainedModel, count: int) -> list[nn.Module]:
    layers: Any = getattr(model.get_decoder(), "layers", None)
    if layers is None or len(layers) < count:
        raise UsageError(f"--freeze_trainable_layers {count}: {model.config.model_type} has {len(layers or [])} layers that can be trained on their own")
    return list(layers[-count:])


def save_trained(model: Any, trial: Trial, base: Path, target: Path, *, trust_remote_code: bool = False) -> None:
    """Write adapter/ in PEFT's layout, or model/ as a whole Hugging Face directory in the base's own precision."""
    if trial.traits.is_lora:
        adapter = model.peft_config["default"]
        adapter.target_modules = sorted(adapter.target_modules)  # a set: its order would change the file from run to run
        model.save_pretrained(target / "adapter", save_embedding_layers=False)  # they are never trained; "auto" would ask the hub
        (target / "adapter" / "README.md").unlink(missing_ok=True)
        return
    model.to(saved_dtype(base, trust_remote_code=trust_remote_code)).save_pretrained(target / "model")
    load_tokenizer(base, trust_remote_code=trust_remote_code).save_pretrained(target / "model")


def load_trained(base: Path, trained: Path | None, dtype: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a base model, or what a trial made of it, for inference."""
    precision = resolve_dtype(dtype)
    if trained is None or not (trained / "adapter").exists():
        whole = base if trained is None else trained / "model"
        return load_model(whole, precision, trust_remote_code=trust_remote_code)
    from peft import PeftModel

    model: Any = load_model(base, precision, trust_remote_code=trust_remote_code)
    with _quiet_peft():
        return PeftModel.from_pretrained(model, trained / "adapter").eval()
