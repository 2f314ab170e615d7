"""AdaLoRA: layers begin with more ranks than they keep, and those that matter least for the loss go, step by step.

Zhang et al. 2023, https://arxiv.org/abs/2303.10512.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import RankAllocator

if TYPE_CHECKING:
    from llamaflow.trials import Trial

ADAPTER = "default"
INITIAL_RANKS = 1.5  # times those that are kept: section 4 of the paper
FIRST, LAST = 0.04, 0.1  # shares of the steps that keep all ranks, and that keep the final ones: PEFT's method comparison


def adalora_config(trial: Trial, total_steps: int, **others: Any) -> AdaLoraConfig:
    values = trial.hyperparameters
    return AdaLoraConfig(
        target_r=values["lora_r"],
        init_r=math.ceil(INITIAL_RANKS * values["lora_r"]),
        lora_alpha=values["lora_alpha"],
        lora_dropout=values["lora_dropout"],
        total_step=total_steps,
        tinit=round(FIRST * total_steps),
        tfinal=round(LAST * total_steps),
        **others,
    )


class RankAllocation:
    """What a training with AdaLoRA does beside its steps. Parameters are lora_A, lora_E (one number a rank) and lora_B by PEFT's names."""

    def __init__(self, trial: Trial, parameters: Mapping[str, torch.nn.Parameter], total_steps: int) -> None:
        self.parameters, self.config = parameters, adalora_config(trial, total_steps)
        self.last_change = total_steps - self.config.tfinal
        self.allocator = RankAllocator(self, self.config, ADAPTER)
        self.kept: dict[str, list[bool]] = {}

    def named_parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        """All that PEFT's allocator asks of a model."""
        return self.parameters.items()

    def regularise(self) -> None:
        """Add to the gradients those of how far A and B are from orthogonal."""
        products = [p @ p.T if "lora_A" in name else p.T @ p for name, p in self.parameters.items() if "lora_E" not in name]
        distances = [torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)) for product in products]
        (self.config.orth_reg_weight * torch.stack(distances).mean()).backward()

    def allocate(self, step: int) -> None:
        """Mask ranks after so many steps, while the gradients of the last are still there. A training of a step or two keeps all."""
        last = step == self.last_change
        if step < self.last_change or (last and self.allocator.exp_avg_ipt):
            _, kept = self.allocator.update_and_allocate(self, step, force_mask=last)
            self.kept = kept or self.kept
        elif self.kept:
            self.allocator.mask_using_rank_pattern(self, self.kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a checkpoint: how much each weight has mattered so far, and which ranks are kept."""
        tensors = {f"importance/{name}": value for name, value in self.allocator.exp_avg_ipt.items()}
        tensors |= {f"uncertainty/{name}": value for name, value in self.allocator.exp_avg_unc.items()}
        return tensors | {f"kept/{name}": torch.tensor(value) for name, value in self.kept.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for place, value in tensors.items():
            kind, _, name = place.partition("/")
            if kind == "kept":
                self.kept[name] = value.tolist()
            else:
                averages = self.allocator.exp_avg_ipt if kind == "importance" else self.allocator.exp_avg_unc
                averages[name] = value.to(self.parameters[name].device)
                self.allocator.ipt[name] = averages[name]  # made anew at each step; without it PEFT would begin again
