"""Several LoRA adapters on one frozen base: the base sees the rows of all trials at once, each adapter only its own.

PEFT makes, initialises and describes the adapters (and computes DoRA); it cannot train several at once, so the forward pass of its
layers is replaced while a pack trains. What is saved is PEFT's plain layout.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model, get_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from torch.nn.functional import linear

from llamaflow.adapters import peft_config, save_adapter
from llamaflow.batches import Row
from llamaflow.crew import share_with_forks
from llamaflow.fused import quicken
from llamaflow.models import device
from llamaflow.trials import Trial

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INITIAL = {"pissa": "pissa_niter_16", "olora": "olora"}  # techniques that start from parts of the base's own weights


@dataclass(frozen=True)
class Share:
    """The rows of one trial in a batch; the batch holds the shares one after the other."""

    trial_id: str
    step: int
    rows: Sequence[Row]


class LoraPack:
    """The adapters of several trials on one base model."""

    autocast = False  # the frozen base fixes the precision of all products

    def __init__(self, base: PreTrainedModel, trials: Sequence[Trial]) -> None:
        """Raises ValueError if a trial's target modules do not exist in the model."""
        self.names = {trial.trial_id: f"trial{number}" for number, trial in enumerate(trials)}
        self.shares: Sequence[Share] = ()
        self.model: Any = base
        self.forks = device() == "cpu" and not trials[0].quantization_bit  # bitsandbytes has threads of its own, which a fork lacks
        self.starts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        # before there are adapters: their dropout would make every probe another
        self.fused = quicken(base) if device() == "cpu" else []
        for trial in trials:
            self._add(base, trial)
        self.model.set_requires_grad(list(self.names.values()))
        self.layers = self._adapted_layers()
        self.dropouts = {trial.trial_id: (trial.hyperparameters["lora_dropout"], trial.hyperparameters["seed"]) for trial in trials}
        for number, layer in enumerate(self.layers):
            layer.lora_dropout.update({name: nn.Identity() for name in self.names.values()})  # its own is drawn in _dropped_out
            layer.forward = functools.partial(self._forward, layer, number)

    def _add(self, base: PreTrainedModel, trial: Trial) -> None:
        name, config, seed = self.names[trial.trial_id], peft_config(trial), trial.hyperparameters["seed"]
        torch.manual_seed(seed)
        if self.model is base:
            self.model = get_peft_model(base, config, adapter_name=name)
        else:
            self.model.add_adapter(name, config)
        if trial.technique in INITIAL:
            torch.manual_seed(seed)
            self.starts[trial.trial_id] = [start_from_base(layer, name, INITIAL[trial.technique]) for layer in self._adapted_layers()]
        if self.forks:
            # one trial after the other: the next one takes the memory that this one leaves
            share_with_forks(list(self.parameters(trial).values()))

    def _adapted_layers(self) -> list[LoraLayer]:
        return [module for module in self.model.modules() if isinstance(module, LoraLayer)]

    def parameters(self, trial: Trial) -> dict[str, nn.Parameter]:
        """The trained matrices by names that do not depend on the pack."""
        mark = f".{self.names[trial.trial_id]}."
        return {name.replace(mark, "."): parameter for name, parameter in self.model.named_parameters() if mark in name}

    def route(self, shares: Sequence[Share]) -> None:
        """Say whose rows the next batch holds."""
        self.shares = shares

    def _forward(self, layer: Any, number: int, x: torch.Tensor) -> torch.Tensor:
        base, sizes = layer.base_layer, [len(share.rows) for share in self.shares]
        if not sizes:
            return base(x)
        if type(base) is nn.Linear and all(self._is_plain(layer, share) for share in self.shares):
            weights = [weight for share in self.shares for weight in self._matrices(layer, number, share)]
            scales = [layer.scaling[self.names[share.trial_id]] for share in self.shares]
            return LinearWithAdapters.apply(x, base.weight, base.bias, sizes, scales, *weights)
        parts = zip(self.shares, x.split(sizes), base(x).split(sizes), strict=True)
        return torch.cat([self._adapted(layer, number, *part) for part in parts])

    def _is_plain(self, layer: Any, share: Share) -> bool:
        dropout, _ = self.dropouts[share.trial_id]
        return self.names[share.trial_id] not in layer.lora_variant and not (dropout and layer.training)

    def _matrices(self, layer: Any, number: int, share: Share) -> tuple[torch.Tensor, torch.Tensor]:
        """A [rank, in] and B [out, rank]; adapters that start from the base's weights subtract their start, so that the base stays whole."""
        name = self.names[share.trial_id]
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        if share.trial_id not in self.starts:
            return a, b
        first_a, first_b = self.starts[share.trial_id][number]
        return torch.cat([a, first_a]), torch.cat([b, -first_b], 1)

    def _adapted(self, layer: Any, number: int, share: Share, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        name = self.names[share.trial_id]
        if layer.training:
            x = self._dropped_out(number, share, x)
        if name in layer.lora_variant:
            return layer.lora_variant[name].forward(layer, active_adapter=name, x=x.to(layer.lora_A[name].weight.dtype), result=base).to(base.dtype)
        a, b = self._matrices(layer, number, share)
        return base + linear(linear(x, a.to(x.dtype)), b.to(x.dtype)) * layer.scaling[name]

    def _dropped_out(self, number: int, share: Share, x: torch.Tensor) -> torch.Tensor:
        """Dropout whose random numbers follow from seed, step, layer and example: not from who else is in the pack, nor from the layout."""
        rate, seed = self.dropouts[share.trial_id]
        if not rate:
            return x
        kept = torch.ones(x.shape, dtype=x.dtype)
        generator = torch.Generator()
        for row, members in enumerate(share_row.members for share_row in share.rows):
            start = 0
            for example, length in members:
                generator.manual_seed(hash((seed, share.step, number, example)) & (2**63 - 1))
                kept[row, start : start + length] = (torch.rand(length, x.shape[-1], generator=generator) >= rate) / (1 - rate)
                start += length
        return x * kept.to(x.device)

    def save(self, trial: Trial, target: Path) -> None:
        """Write target/adapter in PEFT's layout."""
        name = self.names[trial.trial_id]
        config, tensors = self.model.peft_config[name], get_peft_model_state_dict(self.model, adapter_name=name, save_embedding_layers=False)
        changed = self._add_start(trial, config, tensors) if trial.trial_id in self.starts else {}
        save_adapter(config, tensors, trial, target, **changed)

    def _add_start(self, trial: Trial, config: Any, tensors: dict[str, torch.Tensor]) -> dict[str, float]:
        """A trained PiSSA or OLoRA as a plain LoRA of twice the rank on the unchanged base: what was learnt minus the start."""
        for layer_name, (first_a, first_b) in zip(_layer_names(tensors), self.starts[trial.trial_id], strict=True):
            a, b = f"{layer_name}.lora_A.weight", f"{layer_name}.lora_B.weight"
            tensors[a], tensors[b] = torch.cat([tensors[a], first_a]), torch.cat([tensors[b], -first_b], 1)
        return {"r": 2 * config.r, "lora_alpha": 2 * config.lora_alpha}

    def close(self) -> None:
        """Take the adapters out of the base again."""
        for module in (*self.layers, *self.fused):
            del module.forward
        self.model.unload()


def _layer_names(tensors: dict[str, torch.Tensor]) -> list[str]:
    return [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]


def start_from_base(layer: Any, name: str, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Initialise an adapter from its layer's weight, which stays as it is; returns the adapter's matrices A and B at the start.

    PiSSA, Meng et al. 2024, https://arxiv.org/abs/2404.02948; OLoRA, Buyukakyuz 2024, https://arxiv.org/abs/2406.01775.
    """
    base = layer.get_base_layer()
    whole = base.weight.data
    base.weight.data = whole.clone()
    if kind == "olora":
        layer.olora_init(name)
    else:
        layer.pissa_init(name, kind)
    base.weight.data = whole
    matrices = layer.lora_A[name].weight, layer.lora_B[name].weight
    for matrix in matrices:
        matrix.data = matrix.data.float().contiguous()
    return matrices[0].detach().clone(), matrices[1].detach().clone()


class LinearWithAdapters(torch.autograd.Function):  # type: ignore[misc]
    """y = x W' + bias, and for each adapter's rows + scale x A' B'; only the adapters' matrices get gradients.

    x [rows, tokens, in], W [out, in], sizes: rows of each adapter, then A [rank, in] and B [out, rank] in turn. As one operation no
    product is copied, scaled or added on its own, which on CPU takes as long as the products themselves.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, sizes: list[int], scales: list[float], *matrices: torch.Tensor
    ) -> torch.Tensor:
        result = linear(x, weight, bias)
        ins = [a.to(x.dtype) for a in matrices[::2]]
        outs = [(b * scale).to(x.dtype) for b, scale in zip(matrices[1::2], scales, strict=True)]
        lows = [own @ a.T for own, a in zip(_flat(x, sizes), ins, strict=True)]
        for out, low, b in zip(_flat(result, sizes), lows, outs, strict=True):
            out.addmm_(low, b.T)
        ctx.sizes, ctx.scales, ctx.dtype = sizes, scales, matrices[0].dtype
        ctx.save_for_backward(x, weight, *lows, *ins, *outs)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        x, weight, *kept = ctx.saved_tensors
        lows, ins, outs = (kept[start : start + len(ctx.sizes)] for start in range(0, len(kept), len(ctx.sizes)))
        to_x = gradient @ weight if ctx.needs_input_grad[0] else None
        into_x = _flat(to_x, ctx.sizes) if to_x is not None else [None] * len(lows)
        to_matrices = []
        for own, into, to_y, low, a, b, scale in zip(_flat(x, ctx.sizes), into_x, _flat(gradient, ctx.sizes), lows, ins, outs, ctx.scales, strict=True):
            to_low = to_y @ b
            if into is not None:
                into.addmm_(to_low, a)
            # oneDNN is a third faster where the narrow matrix is the one that is copied
            to_matrices += [(to_low.T.contiguous() @ own).to(ctx.dtype), (low.T.contiguous() @ to_y).T.to(ctx.dtype).mul_(scale)]
        return to_x, None, None, None, None, *to_matrices


def _flat(tensor: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    """[rows, tokens, width] as one [rows * tokens, width] an adapter."""
    return [part.reshape(-1, tensor.shape[-1]) for part in tensor.split(sizes)]
