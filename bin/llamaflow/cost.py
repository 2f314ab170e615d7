"""What the trainings of a grid will take, before they run: tokens, FLOPs, memory and time.

Rough on purpose: a plan must be quick, and is there to tell an hour from a week. Evaluation, merging and the rest of the run are
not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llamaflow import machines
from llamaflow.limits import TOKENS_AT_ONCE, TOKENS_TOGETHER, VALIDATION_EXAMPLES
from llamaflow.params import Cost
from llamaflow.store import TRAINED, Store
from llamaflow.trials import STAGES, Trial
from llamaflow.units import amount

TRAINED_BYTES = 16  # a trained weight, its gradient and AdamW's two moments, each in float32
QUANTISED_BYTES = {4: 0.52, 8: 1.0}  # NF4 with double quantisation has 4.127 bits a weight: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314
ACTIVATIONS = 17  # numbers a token, layer and hidden dimension: 34 bytes in Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, eq. 2
PROCESS_BYTES = 1.5e9  # Python, torch, and its kernels, of which rows of each new length need others: measured with SmolLM2 on CPU


@dataclass(frozen=True)
class Estimate:
    """What one trial will take at most: early stopping and halving make it less."""

    trial_id: str
    steps: int
    tokens: int  # trained on, over all epochs, without padding
    flops: float
    peak_memory_bytes: int  # of the task, which trains the trial's whole pack
    seconds: float  # this trial's share of the task
    finished: bool  # its result is in the checkpoint store, and is taken from there


class Planner:
    """Estimates trials on the models and the data set of a run."""

    def __init__(self, models: Mapping[str, Mapping[str, Any]], dataset: Mapping[str, Any], cost: Cost, store: Store, code: str) -> None:
        self.models, self.dataset, self.cost, self.store = models, dataset, cost, store
        self.code = code  # the key under which the store keeps finished trials
        self.machine = machines.this_one() if cost.machine == "auto" else cost.machine
        self._measured = measured_speeds(store, models)

    def estimate(self, pack: Sequence[Trial]) -> list[Estimate]:
        """Estimates of the trials of a task."""
        memory = self.memory(pack)
        return [self._estimate(trial, memory) for trial in pack]

    def speeds(self, packs: Iterable[Sequence[Trial]]) -> list[str]:
        """The speeds that were assumed, in words."""
        found = {self.speed(trial) for pack in packs for trial in pack}
        return [f"{amount(speed, 'FLOP/s')} ({origin})" for speed, origin in sorted(found)]

    def _estimate(self, trial: Trial, memory: int) -> Estimate:
        values, model = trial.hyperparameters, self.models[trial.model["id"]]
        examples, mean = self._examples("train", trial)
        steps = max(1, round(values["num_train_epochs"] * math.ceil(examples / examples_a_step(trial))))
        tokens = mean * examples * values["num_train_epochs"]
        validation_examples, validation_mean = self._examples("validation", trial)
        measurements = math.ceil(steps / values["eval_steps"])
        validated = measurements * min(VALIDATION_EXAMPLES, validation_examples) * validation_mean
        work = STAGES[trial.stage].work * values.get("num_generations", 1)
        flops = work * tokens * flops_a_token(trial, model, mean) + validated * (flops_in_layers(model, validation_mean) + flops_in_head(model))
        seconds = max(flops / self.speed(trial)[0], steps * machines.shortest_step(self.machine, model["layers"]))
        finished = self.store.find(trial.trial_id, TRAINED, self.code) is not None
        return Estimate(trial.trial_id, steps, round(tokens), flops, memory, seconds, finished)

    def _examples(self, split: str, trial: Trial) -> tuple[float, float]:
        """How many examples there will be, and their mean tokens: long texts become several, long conversations are cut."""
        records, longest = self.dataset["splits"][split], trial.hyperparameters["max_length"]
        tokens = tokens_in(self.models[trial.model["id"]]["lengths"], self.dataset["texts"][split])
        if self.dataset["texts"][split]["conversations"]:
            return records, min(tokens / records, longest)
        examples = max(records, tokens / longest)
        return examples, tokens / examples

    def speed(self, trial: Trial) -> tuple[float, str]:
        """FLOPs a second, and where that figure is from."""
        if self.cost.flops_per_second is not None:
            return self.cost.flops_per_second, "as given"
        known = self._measured.get((trial.model["sha256"], trial.technique))
        if known is not None:
            return known, "as earlier trials of the model"
        return machines.speed(self.machine, trial.hyperparameters["dtype"]), f"as usual on {machines.name(self.machine)}"

    def memory(self, pack: Sequence[Trial]) -> int:
        """Bytes that a task needs for its trials: the base once, what each trains, and the activations of the rows that go through at once."""
        model, first = self.models[pack[0].model["id"]], pack[0]
        size = machines.bytes_a_number(self.machine, first.hyperparameters["dtype"])
        trained = sum(trained_parameters(trial, model) for trial in pack)
        frozen = model["parameters"] if first.traits.is_adapter else model["parameters"] - trained
        base = frozen * size
        if first.quantization_bit:
            base -= sum(parameters for parameters, _ in model["linear"].values()) * (size - QUANTISED_BYTES[first.quantization_bit])
        return int(PROCESS_BYTES + base + trained * TRAINED_BYTES + self._activations(pack, model, size))

    def _activations(self, pack: Sequence[Trial], model: Mapping[str, Any], size: int) -> float:
        _, mean = self._examples("train", pack[0])
        row, device = min(pack[0].hyperparameters["max_length"], 2 * mean), machines.device(self.machine)  # examples differ in length: the longest decides
        may_be_shared = device == "cpu" and pack[0].traits.shares_base and not pack[0].quantization_bit and 2 * row <= TOKENS_TOGETHER  # see passes.py
        at_once = TOKENS_TOGETHER if may_be_shared else TOKENS_AT_ONCE[device]
        tokens = max(row, min(at_once, sum(examples_a_step(trial) * mean for trial in pack)))
        logits = model["vocabulary"] * (size + 4)
        return float(tokens * (ACTIVATIONS * size * model["hidden_size"] * model["layers"] * depth(pack[0], model) + logits))


def tokens_in(lengths: Mapping[str, Any], texts: Mapping[str, Any]) -> float:
    """Tokens of a split: `lengths` of model.json, `texts` of dataset.json (characters, bytes, conversations, messages, system_messages)."""
    content = texts["characters"] * tokens_per_character(lengths["tokens_per_character"], texts["bytes"] / max(1, texts["characters"]))
    without_system = max(0, texts["conversations"] - texts["system_messages"])
    return float(content + texts["messages"] * lengths["message"] + without_system * lengths["no_system"])


def tokens_per_character(curve: list[list[float]], bytes_per_character: float) -> float:
    """Between the measured points in a straight line, beyond them as at the nearest."""
    if bytes_per_character <= curve[0][0]:
        return curve[0][1]
    for (low, before), (high, after) in pairwise(curve):
        if bytes_per_character <= high:
            return before + (after - before) * (bytes_per_character - low) / (high - low)
    return curve[-1][1]


def examples_a_step(trial: Trial) -> int:
    return int(trial.hyperparameters["per_device_train_batch_size"] * trial.hyperparameters["gradient_accumulation_steps"])


def trained_parameters(trial: Trial, model: Mapping[str, Any]) -> int:
    """All, those of the last layers, or r x (inputs + outputs) of every adapted layer."""
    if trial.technique == "full":
        return int(model["parameters"])
    if trial.technique == "freeze":
        return int(model["parameters_in_layers"] * depth(trial, model))
    targets = trial.hyperparameters.get("target_modules", "all-linear")
    adapted = model["linear"] if targets == "all-linear" else {name.strip() for name in targets.split(",")} & set(model["linear"])
    return int(rank(trial) * sum(model["linear"][name][1] for name in adapted))


def rank(trial: Trial) -> float:
    """The rank of a LoRA that trains about as many parameters: those with vectors only, and virtual tokens, are as rank 1 at most."""
    values = trial.hyperparameters
    return float(values.get("lora_r") or values.get("miss_r", 0) / 2 or values.get("oft_block_size", 0) / 4 or 1)


def depth(trial: Trial, model: Mapping[str, Any]) -> float:
    """The share of the layers that gradients go back through."""
    return float(min(1.0, trial.hyperparameters.get("freeze_trainable_layers", math.inf) / model["layers"]))


def flops_in_layers(model: Mapping[str, Any], length: float) -> float:
    """FLOPs of the layers for a token of an example of so many tokens, forward: Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, eq. 2.2."""
    return float(2 * model["parameters_in_layers"] + 2 * model["layers"] * length * model["hidden_size"])


def flops_in_head(model: Mapping[str, Any]) -> float:
    return float(2 * model["vocabulary"] * model["hidden_size"])


def flops_a_token(trial: Trial, model: Mapping[str, Any], length: float) -> float:
    """FLOPs to train on a token: forward, back to the activations as far as something is trained, and to the trained weights.

    Two for each weight and direction; adapters are passed forward and back besides.
    """
    through = flops_in_layers(model, length) * (1 + depth(trial, model)) + flops_in_head(model) * 2
    return through + trained_parameters(trial, model) * (6 if trial.traits.is_adapter else 2)


def measured_speeds(store: Store, models: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """FLOPs a second of trials in the store, by the hash of their model and technique: the median."""
    by_hash = {model["sha256"]: model for model in models.values()}
    found: dict[tuple[str, str], list[float]] = {}
    for trial, counts in store.trained():
        model = by_hash.get(trial.model["sha256"])
        if model and counts.get("tokens"):
            mean = counts["tokens"] / (counts["steps"] * examples_a_step(trial))
            flops = flops_a_token(trial, model, mean) * counts["tokens_per_second"]
            found.setdefault((trial.model["sha256"], trial.technique), []).append(flops)
    return {key: sorted(speeds)[len(speeds) // 2] for key, speeds in found.items()}
