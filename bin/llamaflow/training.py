"""The training loop of one trial.

Everything that decides the next step is in the state (weights, optimiser, schedule, step, random numbers) or follows from
the step's number (which examples), so that a training that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import get_scheduler

from llamaflow.errors import TemporaryError
from llamaflow.files import write_json, write_text
from llamaflow.loss import CompletionLoss
from llamaflow.models import device, resolve_dtype
from llamaflow.params import Training
from llamaflow.store import Store
from llamaflow.tokens import Batch, Tokens
from llamaflow.trials import Trial

CHECKPOINT = "checkpoint"
VALIDATION_EXAMPLES = 256  # the validation loss is measured on the first so many: enough to see its course


class Diverged(Exception):  # noqa: N818 - an outcome of a trial, not an error of the program
    """A loss or a gradient became infinite or not a number."""


class StopRequest:
    """Remembers SIGTERM (preemption, time limit), so that the loop can save before it ends."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, *_: object) -> None:
        self.received = True


@dataclass
class State:
    """How far a training is; small enough for JSON. Tensors are kept beside it."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_validation_loss: float = math.inf
    evaluations_without_gain: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    status: str  # finished | early_stopped | failed
    reason: str | None
    steps: int
    tokens: int
    validation_loss: float | None
    tokens_per_second: float
    trainable_parameters: int


class TrialTraining:
    """Train one prepared model as its trial says."""

    def __init__(self, model: Any, trial: Trial, data: tuple[Tokens, Tokens], settings: Training, store: Store, code: str, stop: StopRequest) -> None:
        self.model, self.trial, self.settings, self.store, self.code, self.stop = model, trial, settings, store, code, stop
        self.train, self.validation = data
        self.values = trial.hyperparameters
        self.examples_per_step = self.values["per_device_train_batch_size"] * self.values["gradient_accumulation_steps"]
        self.steps_per_epoch = math.ceil(len(self.train) / self.examples_per_step)
        self.total_steps = max(1, round(self.values["num_train_epochs"] * self.steps_per_epoch))
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.loss = CompletionLoss(model)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=self.values["learning_rate"], weight_decay=self.values["weight_decay"])
        warmup = self.values["warmup_steps"]
        warmup = round(warmup * self.total_steps) if warmup < 1 else int(warmup)
        scheduler = get_scheduler(self.values["lr_scheduler_type"], self.optimizer, num_warmup_steps=warmup, num_training_steps=self.total_steps)
        self.share_of_peak_rate = scheduler.lr_lambdas[0]  # a function of the step alone
        self.state, self.best_weights = State(), dict[str, torch.Tensor]()

    def run(self) -> Outcome:
        """Train to the end, from the last checkpoint if there is one. Raises TemporaryError on SIGTERM, after saving."""
        self._resume()
        try:
            while self.state.step < self.total_steps and not self._out_of_patience():
                self._step()
                self._after_step()
        except Diverged as diverged:
            return self._outcome("failed", str(diverged))
        if self.best_weights:
            _assign(self.parameters, self.best_weights)
        return self._outcome("early_stopped" if self.state.step < self.total_steps else "finished", None)

    def _step(self) -> None:
        """One optimiser step: the mean loss over all labelled tokens of its examples."""
        start = time.monotonic()
        batches = self._batches()
        labelled = sum(batch.labelled for batch in batches)
        self.model.train()
        total = 0.0
        for batch in batches:
            with self._precision():
                loss = self.loss.per_token(batch.to(device())).sum() / labelled
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.values["max_grad_norm"]).item()
        self._refuse_infinite(loss=total, gradient=norm)
        rate = self.values["learning_rate"] * self.share_of_peak_rate(self.state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.step += 1
        self.state.tokens += sum(batch.tokens for batch in batches)
        self.state.seconds += time.monotonic() - start
        self.state.history.append(
            {
                "step": self.state.step,
                "epoch": round(self.state.step / self.steps_per_epoch, 4),
                "tokens": self.state.tokens,
                "loss": total,
                "learning_rate": rate,
            }
        )

    def _refuse_infinite(self, **values: float) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                rate = self.values["learning_rate"]
                raise Diverged(f"diverged: the {name.replace('_', ' ')} was {value} at step {self.state.step + 1}; try a smaller learning_rate than {rate:g}")

    def _after_step(self) -> None:
        state, last = self.state, self.state.step == self.total_steps
        if last or state.step % self.values["eval_steps"] == 0:
            self._validate()
        if last or state.step % self.settings.logging_steps == 0:
            self._log()
        if self.stop.received and not last:
            self._save()
            kept = (
                "what was learnt is saved, and the next attempt goes on from there"
                if self.store.root
                else "without --checkpoint_dir the next attempt starts anew"
            )
            raise TemporaryError(f"stopped by the system at step {state.step} of {self.total_steps}; {kept}")
        if not last and state.step % self.settings.save_steps == 0:
            self._save()

    def _batches(self) -> list[Batch]:
        """The micro-batches of the next step; the order follows from seed, epoch and step alone."""
        epoch, place = divmod(self.state.step, self.steps_per_epoch)
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(self.values["seed"] * 1_000_003 + epoch)).tolist()
        taken = order[place * self.examples_per_step : (place + 1) * self.examples_per_step]
        return [self.train.batch(part, self.values["packing"]) for part in _parts(taken, self.values["per_device_train_batch_size"])]

    def _validate(self) -> None:
        self.model.eval()
        total, labelled = 0.0, 0
        for part in _parts(list(range(min(len(self.validation), VALIDATION_EXAMPLES))), self.values["per_device_train_batch_size"]):
            batch = self.validation.batch(part, self.values["packing"])
            with torch.no_grad(), self._precision():
                total += self.loss.per_token(batch.to(device())).sum().item()
            labelled += batch.labelled
        loss = total / labelled
        self._refuse_infinite(validation_loss=loss)
        self.state.history[-1]["validation_loss"] = loss
        if loss < self.state.best_validation_loss:
            self.state.best_validation_loss, self.state.evaluations_without_gain = loss, 0
            if self.values["early_stopping_patience"]:
                self.best_weights = {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}
        else:
            self.state.evaluations_without_gain += 1

    def _out_of_patience(self) -> bool:
        patience = self.values["early_stopping_patience"]
        return patience is not None and self.state.evaluations_without_gain >= patience

    def _precision(self) -> AbstractContextManager[Any]:
        """bfloat16 products on float32 trained weights."""
        dtype = resolve_dtype(self.values["dtype"])
        autocast: AbstractContextManager[Any] = torch.autocast(device(), dtype=dtype, enabled=dtype != torch.float32)
        return autocast

    def _last_validation_loss(self) -> float | None:
        return next((row["validation_loss"] for row in reversed(self.state.history) if "validation_loss" in row), None)

    def _log(self) -> None:
        last, validation = self.state.history[-1], self._last_validation_loss()
        shown = f"  validation {validation:.4f}" if validation is not None else ""
        speed = self.state.tokens / self.state.seconds
        left = self.state.seconds / self.state.step * (self.total_steps - self.state.step)
        print(
            f"{self.trial.trial_id}  step {self.state.step}/{self.total_steps}  loss {last['loss']:.4f}{shown}  {speed:.0f} tokens/s  {left:.0f} s left",
            flush=True,
        )

    def _outcome(self, status: str, reason: str | None) -> Outcome:
        loss = self.state.best_validation_loss if self.best_weights else self._last_validation_loss()  # of the weights that are kept
        trainable = sum(parameter.numel() for parameter in self.parameters.values())
        speed = round(self.state.tokens / max(self.state.seconds, 1e-9), 1)
        return Outcome(status, reason, self.state.step, self.state.tokens, loss, speed, trainable)

    def write_history(self, path: Path) -> None:
        """One JSON object a step: step, epoch, tokens, loss, learning_rate and, where measured, validation_loss."""
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.state.history))

    def _save(self) -> None:
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
        tensors["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        return tensors

    def _resume(self) -> None:
        found = self.store.find(self.trial.trial_id, CHECKPOINT, self.code)
        if found is None:
            return
        tensors = load_file(found / "tensors.safetensors")
        self.state = State(**json.loads((found / "state.json").read_text()))
        _assign(self.parameters, _under("weight/", tensors))
        self.best_weights = _under("best/", tensors)
        for name, parameter in self.parameters.items():
            saved = {key: tensors.get(f"optimizer/{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            # a weight that no example reached has no optimiser state
            self.optimizer.state[parameter] = {key: _beside(parameter, key, value) for key, value in saved.items() if value is not None}
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random/cuda"])
        print(f"{self.trial.trial_id}  goes on from the checkpoint at step {self.state.step}", flush=True)


def _parts(items: list[int], size: int) -> Iterator[list[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _beside(parameter: torch.Tensor, key: str, value: torch.Tensor) -> torch.Tensor:
    return value if key == "step" else value.to(parameter.device)


def _assign(parameters: dict[str, torch.nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)
