"""One trial of a pack in training: which examples come next, its optimiser and schedule, and its checkpoints.

Everything that decides the next step is in the state (weights, optimiser, step) or follows from the step's number (which
examples, which random numbers), so that a training that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import torch
from safetensors.torch import load_file, save_file
from transformers import get_scheduler

from llamaflow.adalora import RankAllocation
from llamaflow.batches import Example
from llamaflow.files import write_json
from llamaflow.limits import VALIDATION_EXAMPLES
from llamaflow.progress import Progress, State, assign
from llamaflow.steps import say
from llamaflow.store import Store
from llamaflow.tokens import Tokens
from llamaflow.tracking import Tracker
from llamaflow.trials import Trial

CHECKPOINT = "checkpoint"


class Learner(Progress):
    """A trial of a pack: which examples come next, its optimiser and schedule, and its checkpoints."""

    def __init__(self, trial: Trial, parameters: dict[str, torch.nn.Parameter], data: tuple[Tokens, Tokens], store: Store, code: str, tracker: Tracker) -> None:
        self.train, self.validation = data
        super().__init__(trial, parameters, len(self.train), tracker)
        self.store, self.code = store, code
        self.optimizer = torch.optim.AdamW(self._groups(), lr=self.values["learning_rate"], weight_decay=self.values["weight_decay"], fused=True)
        scheduler = get_scheduler(self.values["lr_scheduler_type"], self.optimizer, num_warmup_steps=self.warmup_steps, num_training_steps=self.total_steps)
        self.share_of_peak_rate = scheduler.lr_lambdas[0]  # a function of the step alone
        self.ranks = RankAllocation(trial, parameters, self.total_steps) if trial.technique == "adalora" else None
        self._order: tuple[int, torch.Tensor] | None = None  # of the current epoch

    def _groups(self) -> list[dict[str, object]]:
        """LoRA+ trains the matrices B faster: Hayou et al. 2024, https://arxiv.org/abs/2402.12354."""
        ratio = self.values.get("loraplus_lr_ratio", 1.0)
        faster = [parameter for name, parameter in self.parameters.items() if "lora_B" in name]
        others = [parameter for name, parameter in self.parameters.items() if "lora_B" not in name]
        return [{"params": group, "factor": factor} for group, factor in ((others, 1.0), (faster, ratio)) if group]

    @property
    def sharing(self) -> bool:
        """Whether examples may share the computation of what they begin with: not if each must drop out other inputs."""
        return bool(self.values["packing"]) and not self.values.get("lora_dropout")

    def next_examples(self) -> list[Example]:
        """The examples of the next step; their order follows from seed, epoch and step alone."""
        epoch, place = divmod(self.state.step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._drawn(epoch)
        _, order = self._order
        return [self.train[index] for index in order[place * self.examples_per_step : (place + 1) * self.examples_per_step].tolist()]

    def _drawn(self, epoch: int) -> torch.Tensor:
        """The order of an epoch: by chance, but for the first one with a curriculum, which orders as many examples as the training takes.

        The shortest first, then by chance: SortaGrad, Amodei et al. 2016, https://arxiv.org/abs/1512.02595, section 3.3.
        """
        generator = torch.Generator().manual_seed(self.values["seed"] * 1_000_003 + epoch)
        order = torch.randperm(len(self.train), generator=generator)
        if epoch or self.values["curriculum"] == "none":
            return order
        taken = order[: self.total_steps * self.examples_per_step]
        keys = torch.from_numpy(self.train.lengths)[taken] if self.values["curriculum"] == "length" else taken
        return taken[torch.argsort(keys, stable=True)]

    def validation_examples(self) -> list[Example]:
        return [self.validation[index] for index in range(min(len(self.validation), VALIDATION_EXAMPLES))]

    def update(self, loss: float, tokens: int, seconds: float) -> None:
        """Take the step for which the gradients are there. Raises Diverged."""
        if self.ranks:
            self.ranks.regularise()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.values["max_grad_norm"]).item()
        self.refuse_infinite(self.state.step + 1, loss=loss, gradient=norm)
        rate = self.values["learning_rate"] * self.share_of_peak_rate(self.state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.step()
        if self.ranks:
            self.ranks.allocate(self.state.step + 1)
        self.optimizer.zero_grad()
        self.state.step += 1
        self.state.tokens += tokens
        self.state.seconds += seconds
        self.stepped(loss, rate)

    def save(self) -> None:
        """Keep a checkpoint in the store, if there is one."""
        if self.store.root is None:
            return
        staging = self.store.root / f".{self.trial.trial_id}.saving"
        staging.mkdir(parents=True, exist_ok=True)
        try:
            save_file({name: tensor.contiguous() for name, tensor in self._tensors().items()}, staging / "tensors.safetensors")
            write_json(staging / "state.json", asdict(self.state))
            self.store.keep(self.trial.trial_id, CHECKPOINT, self.code, staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Everything that decides the next step and is too large for JSON."""
        tensors = {f"weight/{name}": parameter.detach() for name, parameter in self.parameters.items()}
        tensors |= {f"best/{name}": value for name, value in self.best_weights.items()}
        for name, parameter in self.parameters.items():
            tensors |= {f"optimizer/{key}/{name}": value for key, value in self.optimizer.state[parameter].items()}
        if self.ranks:
            tensors |= {f"ranks/{place}": value for place, value in self.ranks.tensors().items()}
        return tensors

    def resume(self) -> None:
        """Go on from the checkpoint in the store, if there is one."""
        found = self.store.find(self.trial.trial_id, CHECKPOINT, self.code)
        if found is None:
            return
        tensors = load_file(found / "tensors.safetensors")
        self.state = State(**json.loads((found / "state.json").read_text()))
        assign(self.parameters, _under("weight/", tensors))
        self.best_weights = _under("best/", tensors)
        for name, parameter in self.parameters.items():
            saved = {key: tensors.get(f"optimizer/{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            # a weight that no example reached has no optimiser state
            self.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in saved.items() if value is not None}
        if self.ranks:
            self.ranks.load(_under("ranks/", tensors))
        say(f"{self.trial.trial_id}  goes on from the checkpoint at step {self.state.step}")


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
