"""How far a trial's training is, and how it ends: what every way of training has in common."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from llamaflow.files import write_text
from llamaflow.steps import say
from llamaflow.tracking import Tracker
from llamaflow.trials import Trial


class Diverged(Exception):  # noqa: N818 - an outcome of a trial, not an error of the program
    """A loss or a gradient became infinite or not a number."""


@dataclass
class State:
    """How far a training is; small enough for JSON. Tensors are kept beside it."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of training steps: this trial's share of those of its pack
    validation_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_validation_loss: float = math.inf
    evaluations_without_gain: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    status: str  # finished | early_stopped | stopped | failed
    reason: str | None
    steps: int
    tokens: int
    validation_loss: float | None
    tokens_per_second: float
    trainable_parameters: int


class Progress:
    """A trial, the parameters that it trains, and how far it is."""

    def __init__(self, trial: Trial, parameters: Mapping[str, torch.nn.Parameter], examples: int, tracker: Tracker) -> None:
        self.trial, self.parameters, self.tracker, self.values = trial, parameters, tracker, trial.hyperparameters
        self.examples_per_step = self.values["per_device_train_batch_size"] * self.values["gradient_accumulation_steps"]
        self.steps_per_epoch = math.ceil(examples / self.examples_per_step)
        self.total_steps = max(1, round(self.values["num_train_epochs"] * self.steps_per_epoch))
        self.state, self.best_weights = State(), dict[str, torch.Tensor]()
        self.outcome: Outcome | None = None

    @property
    def warmup_steps(self) -> int:
        given = self.values["warmup_steps"]
        return round(given * self.total_steps) if given < 1 else int(given)

    def stepped(self, loss: float, learning_rate: float, **more: float) -> None:
        """Note the step that state.step and state.tokens count already."""
        epoch = round(self.state.step / self.steps_per_epoch, 4)
        row = {"step": self.state.step, "epoch": epoch, "tokens": self.state.tokens, "loss": loss, "learning_rate": learning_rate}
        self.state.history.append(row | more)

    def refuse_infinite(self, step: int, **values: float) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                rate = self.values["learning_rate"]
                raise Diverged(f"diverged: the {name.replace('_', ' ')} was {value} at step {step}; try a smaller learning_rate than {rate:g}")

    def validated(self, loss: float) -> None:
        """Note the validation loss after the last step. Raises Diverged.

        A measurement that only halving asked for leaves patience and the best weights alone: they depend on the trial, not on who else trains.
        """
        self.refuse_infinite(self.state.step, validation_loss=loss)
        self.state.history[-1]["validation_loss"] = loss
        if not self.validation_due:
            return
        if loss < self.state.best_validation_loss:
            self.state.best_validation_loss, self.state.evaluations_without_gain = loss, 0
            if self.values["early_stopping_patience"]:
                self.best_weights = {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}
        else:
            self.state.evaluations_without_gain += 1

    @property
    def validation_due(self) -> bool:
        return bool(self.state.step == self.total_steps or self.state.step % self.values["eval_steps"] == 0)

    def end_if_done(self) -> None:
        """Settle the outcome once all steps are taken or patience is out; of a trial that stops early the best weights are kept."""
        patience = self.values["early_stopping_patience"]
        out_of_patience = patience is not None and self.state.evaluations_without_gain >= patience
        if self.state.step < self.total_steps and not out_of_patience:
            return
        if self.best_weights:
            assign(self.parameters, self.best_weights)
        self.end("early_stopped" if self.state.step < self.total_steps else "finished")

    def end(self, status: str, reason: str | None = None) -> None:
        loss = self.state.best_validation_loss if self.best_weights else self.last_validation_loss  # of the weights that are kept
        trainable = sum(parameter.numel() for parameter in self.parameters.values())
        speed = round(self.state.tokens / max(self.state.seconds, 1e-9), 1)
        self.outcome = Outcome(status, reason, self.state.step, self.state.tokens, loss, speed, trainable)

    @property
    def last_validation_loss(self) -> float | None:
        return next((row["validation_loss"] for row in reversed(self.state.history) if "validation_loss" in row), None)

    @property
    def recent_validation_loss(self) -> float:
        """The lower of the last two, by which halving judges: with a high learning rate, one may stand in a swing."""
        return min([row["validation_loss"] for row in self.state.history if "validation_loss" in row][-2:])

    def log(self) -> None:
        validation, seconds = self.last_validation_loss, self.state.seconds
        shown = f"  validation {validation:.4f}" if validation is not None else ""
        left = seconds / self.state.step * (self.total_steps - self.state.step)
        steps, loss = f"step {self.state.step}/{self.total_steps}", self.state.history[-1]["loss"]
        say(f"{self.trial.trial_id}  {steps}  loss {loss:.4f}{shown}  {self.state.tokens / seconds:.0f} tokens/s  {left:.0f} s left")
        self.tracker.log(self.state.history)

    def write_history(self, path: Path) -> None:
        """One JSON object a step: step, epoch, tokens, loss, learning_rate and, where measured, validation_loss."""
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.state.history))


def assign(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)
