"""Making a base model trainable as a technique wants it, and saving what was trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llamaflow.errors import UsageError
from llamaflow.models import load_model, load_tokenizer, resolve_dtype, saved_dtype
from llamaflow.trials import Trial
from llamaflow.validation import nearest

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from llamaflow.lora import Share


class Trainable(Protocol):
    """A model and what the trials of a pack train of it."""

    model: Any
    autocast: bool  # whether trained float32 weights meet activations of lower precision
    forks: bool  # whether several processes may share the work of a step

    def parameters(self, trial: Trial) -> dict[str, nn.Parameter]: ...
    def route(self, shares: Sequence[Share]) -> None: ...
    def save(self, trial: Trial, target: Path) -> None: ...
    def close(self) -> None: ...


def load_base(directory: Path, trial: Trial, *, attn_implementation: str = "auto", trust_remote_code: bool = False) -> PreTrainedModel:
    """Load the base as the trial trains it: frozen weights in the working precision, trained ones in float32. A new head depends on torch's seed.

    bfloat16 has 8 bits of mantissa: an update of 2e-5 to a bfloat16 weight is mostly rounded away.
    """
    import torch

    dtype = torch.float32 if trial.technique == "full" else resolve_dtype(trial.hyperparameters["dtype"])
    options: dict[str, Any] = {"quantization_bit": trial.quantization_bit, "head": trial.head, "attn_implementation": attn_implementation}
    model = load_model(directory, dtype, trust_remote_code=trust_remote_code, **options)
    for module in model.modules():
        # bitsandbytes would repack 4-bit weights on CPU the first time they are evaluated, and no gradient passes through them after that
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


@contextmanager
def prepared(base: PreTrainedModel, directory: Path, trials: Sequence[Trial], *, trust_remote_code: bool = False) -> Iterator[Trainable]:
    """Yield the base made trainable for the trials of a pack; adapters are taken out again at the end."""
    base.requires_grad_(False)
    with quiet_peft():
        trainable = _trainable(base, directory, trials, trust_remote_code)
        try:
            yield trainable
        finally:
            trainable.close()


def _trainable(base: PreTrainedModel, directory: Path, trials: Sequence[Trial], trust_remote_code: bool) -> Trainable:
    first = trials[0]
    if not first.traits.is_adapter:
        return WholeModel(base, directory, first, trust_remote_code)
    from llamaflow.adapters import Adapter
    from llamaflow.lora import LoraPack

    refuse_unknown_layers(base, first)
    try:
        return LoraPack(base, trials) if first.traits.shares_base else Adapter(base, first)
    except ValueError as error:
        raise UsageError(f"{first.technique} does not fit {first.model['id']}: {error}") from error


def refuse_unknown_layers(base: PreTrainedModel, trial: Trial) -> None:
    """Raise UsageError if the model lacks one of --target_modules; PEFT is content with any that it has."""
    targets = trial.hyperparameters.get("target_modules", "all-linear")
    names = [] if targets == "all-linear" else [name.strip() for name in targets.split(",")]
    unknown = [name for name in names if not any(f".{module}".endswith(f".{name}") for module, _ in base.named_modules())]
    if unknown:
        known = sorted({place.rpartition(".")[2] for place, module in base.named_modules() if getattr(getattr(module, "weight", None), "ndim", 0) == 2})
        raise UsageError(
            f"--target_modules {', '.join(unknown)} does not fit {trial.model['id']}: it has no such layer{nearest(unknown[0], known)}, but {', '.join(known)}."
        )


class WholeModel:
    """Full fine-tuning, or that of the last layers: one trial, which changes the base itself."""

    autocast = True
    forks = False

    def __init__(self, base: PreTrainedModel, directory: Path, trial: Trial, trust_remote_code: bool) -> None:
        self.model: Any = base
        self.directory, self.trust_remote_code = directory, trust_remote_code
        for module in [base] if trial.technique == "full" else last_layers(base, trial.hyperparameters["freeze_trainable_layers"]):
            module.float().requires_grad_(True)
        if trial.head:
            new_head(base).float().requires_grad_(True)

    def parameters(self, trial: Trial) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def route(self, shares: Sequence[Share]) -> None:
        """All rows are this trial's."""

    def save(self, trial: Trial, target: Path) -> None:
        """Write target/model as a whole Hugging Face directory in the base's own precision."""
        save_model(self.model, self.directory, target, trust_remote_code=self.trust_remote_code)

    def close(self) -> None:
        """Nothing was added to the base."""


def save_model(model: PreTrainedModel, base: Path, target: Path, *, trust_remote_code: bool, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write target/model as a whole Hugging Face directory in the base's own precision; weights: where the model does not hold them all itself."""
    dtype = saved_dtype(base, trust_remote_code=trust_remote_code)
    if weights is None:
        model.to(dtype).save_pretrained(target / "model")
    else:
        model.save_pretrained(target / "model", state_dict={name: weight.to(dtype) for name, weight in weights.items()})
    load_tokenizer(base, trust_remote_code=trust_remote_code).save_pretrained(target / "model")


@contextmanager
def quiet_peft() -> Iterator[None]:
    """PEFT 0.21, and TRL 1.16 too, use names that transformers 5 has replaced, which warns on every model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated", FutureWarning)
        yield


def new_head(model: PreTrainedModel) -> nn.Module:
    """What a sequence classification model has in the place of the language model's head."""
    return next(module for name, module in model.named_children() if name in ("score", "classifier"))


def last_layers(model: PreTrainedModel, count: int) -> list[nn.Module]:
    layers: Any = getattr(model.get_decoder(), "layers", None)
    if layers is None or len(layers) < count:
        raise UsageError(f"--freeze_trainable_layers {count}: {model.config.model_type} has {len(layers or [])} layers that can be trained on their own")
    return list(layers[-count:])


def load_trained(base: Path, trained: Path | None, dtype: str, *, head: Sequence[str] | None = None, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a base model, or what a trial made of it, for inference; head is the trial's."""
    precision = resolve_dtype(dtype)
    if trained is None or not (trained / "adapter").exists():
        whole = base if trained is None else trained / "model"
        return load_model(whole, precision, head=head, trust_remote_code=trust_remote_code)
    from peft import PeftModel

    model: Any = load_model(base, precision, head=head, trust_remote_code=trust_remote_code)
    with quiet_peft():
        return PeftModel.from_pretrained(model, trained / "adapter").eval()
