"""The losses of a pack's rows and their gradients: rows go through the model in pieces that fit in memory, by several processes on CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from llamaflow.attention import reach
from llamaflow.batches import IGNORED, LONG, Example, Family, Row, families_of, rounded, rows_of, stack
from llamaflow.crew import Crew
from llamaflow.errors import is_out_of_memory
from llamaflow.learner import Learner
from llamaflow.limits import TOKENS_AT_ONCE, TOKENS_TOGETHER
from llamaflow.lora import Share
from llamaflow.loss import CompletionLoss
from llamaflow.models import device, resolve_dtype
from llamaflow.steps import say
from llamaflow.techniques import Trainable

Owned = tuple[int, Row]  # the number of a trial, and a row of its examples
Losses = dict[Learner, float]

SIMILAR = 0.75  # of the longest row's length is a shorter one at least that shares a piece with it
WITHOUT_GRADIENTS = 4  # times as many tokens at once: no layer's activations are kept
EACH = 128  # tokens of a step that a process has at least: with fewer, calling the products takes longer than the products


@dataclass(frozen=True)
class Task:
    """Rows for one process, and all that it must know for them which is not the same in every step."""

    rows: list[Owned]
    shares: list[float]  # of a labelled token in the loss of its trial
    steps: list[int]
    training: bool
    tokens_at_once: int
    checkpointing: bool
    seed: int


class Passes:
    """Passes of examples through the model of a pack, forward and, in training, back."""

    def __init__(self, trainable: Trainable, learners: Sequence[Learner]) -> None:
        self.trainable, self.model, self.learners = trainable, trainable.model, learners
        first = learners[0].values
        self.dtype = resolve_dtype(first["dtype"])
        trainable.route(())
        with self._precision():
            self.loss = CompletionLoss(self.model)
        self.tokens_at_once, self.checkpointing = TOKENS_AT_ONCE[device()], False
        config = self.model.config.get_text_config()
        self.packing = bool(first["packing"]) and reach(config) > 0
        if first["packing"] and not self.packing:
            say("packing is off: layers of this architecture that are neither full nor sliding attention could let examples in a row see each other")
        # FlashAttention knows no mask like that of a shared prefix
        self.sharing = self.packing and config._attn_implementation != "flash_attention_2" and reach(config) >= first["max_length"]
        parameters = [parameter for learner in learners for parameter in learner.parameters.values()]
        self.crew = Crew(self._losses, parameters, processes_for(trainable, learners))

    def gradients(self, examples: Mapping[Learner, Sequence[Example]]) -> tuple[Losses, dict[Learner, int]]:
        """The loss of each trial, whose gradients are left with its parameters, and the tokens of its rows.

        Out of memory, everything is done again in smaller pieces.
        """
        rows = self._laid_out({learner: families_of(own, sharing=learner.sharing and self.sharing) for learner, own in examples.items()})
        while True:
            try:
                return self._pass(rows, training=True), {learner: sum(map(len, own)) for learner, own in rows.items()}
            except Exception as error:
                if not is_out_of_memory(error) or not self._can_do_with_less(rows):
                    raise
            for learner in examples:
                learner.optimizer.zero_grad()

    def loss_of(self, learner: Learner, examples: Sequence[Example]) -> float:
        """Without gradients."""
        return self._pass(self._laid_out({learner: families_of(examples, sharing=self.sharing)}), training=False)[learner]

    def close(self) -> None:
        self.crew.close()

    def _laid_out(self, families: Mapping[Learner, list[Family]]) -> dict[Learner, list[Row]]:
        processes = self.crew.processes
        each, longest = -(-processes // len(families)), min(LONG, TOKENS_TOGETHER // processes)
        return {learner: rows_of(own, packing=self.packing, multiple=each, longest=longest) for learner, own in families.items()}

    def _pass(self, rows: dict[Learner, list[Row]], *, training: bool) -> Losses:
        numbers = {learner: number for number, learner in enumerate(self.learners)}
        owned = [(numbers[learner], row) for learner, own in rows.items() for row in own]
        losses = [sum(of_trial) for of_trial in zip(*self.crew.do(list(self._tasks(owned, training))), strict=True)]
        return {learner: losses[numbers[learner]] for learner in rows}

    def _tasks(self, owned: Sequence[Owned], training: bool) -> Iterator[Task]:
        labelled = [0] * len(self.learners)
        for number, row in owned:
            labelled[number] += int((row.labels != IGNORED).sum())
        shares, steps = [1 / max(1, count) for count in labelled], [learner.state.step for learner in self.learners]
        at_once = self.tokens_at_once // self.crew.processes * (1 if training else WITHOUT_GRADIENTS)
        first = self.learners[owned[0][0]]
        seed = first.values["seed"] + first.state.step  # for models with dropout of their own
        for process, rows in enumerate(divided(owned, self.crew.processes)):
            yield Task(rows, shares, steps, training, at_once, self.checkpointing, seed + (process << 32))

    def _losses(self, task: Task) -> list[float]:
        """The part of these rows in the loss of each trial; in training their gradients are left with the parameters."""
        torch.manual_seed(task.seed)
        self.model.train(task.training)
        if task.checkpointing and not self.model.is_activation_checkpointing:
            self.model.activation_checkpointing_enable()
        total = [0.0] * len(self.learners)
        with torch.set_grad_enabled(task.training):
            for piece in pieces(task.rows, task.tokens_at_once):
                for number, loss in self._piece(piece, task).items():
                    total[number] += loss
        return total

    def _piece(self, piece: Sequence[Owned], task: Task) -> dict[int, float]:
        numbers = list(dict.fromkeys(number for number, _ in piece))
        trials = [(self.learners[number].trial.trial_id, task.steps[number]) for number in numbers]
        self.trainable.route([Share(*trial, [row for owner, row in piece if owner == number]) for trial, number in zip(trials, numbers, strict=True)])
        batch = stack([row for _, row in piece]).to(device())
        with self._precision():
            per_token = self.loss.per_token(batch)
        owner = torch.tensor([numbers.index(number) for number, _ in piece], device=batch.labels.device)
        owner = owner[:, None].expand_as(batch.labels)[batch.labels != IGNORED]
        weighted = per_token * torch.tensor([task.shares[number] for number in numbers], device=owner.device)[owner]
        if task.training:
            weighted.sum().backward()
        sums = torch.zeros(len(numbers), device=owner.device).index_add_(0, owner, weighted.detach())
        return dict(zip(numbers, sums.tolist(), strict=True))

    def _precision(self) -> AbstractContextManager[Any]:
        """Products in bfloat16 on trained float32 weights."""
        autocast: AbstractContextManager[Any] = torch.autocast(device(), dtype=self.dtype, enabled=self.trainable.autocast and self.dtype != torch.float32)
        return autocast

    def _can_do_with_less(self, rows: dict[Learner, list[Row]]) -> bool:
        """Half the rows at once or, if it is one already, the activations computed again on the way back: Chen et al. 2016, https://arxiv.org/abs/1604.06174."""
        longest = rounded(max(len(row) for own in rows.values() for row in own)) * self.crew.processes
        if (at_once := self.tokens_at_once // longest) > 1:
            self.tokens_at_once = at_once // 2 * longest
            say(f"out of memory: goes on with at most {self.tokens_at_once} tokens at once")
        elif self.model.supports_gradient_checkpointing and not self.checkpointing:
            self.checkpointing = True
            say("out of memory: goes on with activation checkpointing, which is slower")
        else:
            return False
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True


def processes_for(trainable: Trainable, learners: Sequence[Learner]) -> int:
    """How many processes share a step: as many as there are threads if each has enough to do, and if all their rows fit in memory at once."""
    threads, lengths = torch.get_num_threads(), learners[0].train.lengths
    tokens = sum(learner.examples_per_step for learner in learners) * lengths.mean()
    fits = tokens >= threads * EACH and lengths.max() * threads <= TOKENS_TOGETHER
    return threads if trainable.forks and fits and sys.platform == "linux" else 1


def divided(owned: Sequence[Owned], shares: int) -> list[list[Owned]]:
    """Rows in shares of about as many tokens; those of a trial stay together, so that few of its gradients must be added up."""
    whole, before = sum(rounded(len(row)) for _, row in owned), 0
    divided: list[list[Owned]] = [[] for _ in range(shares)]
    for one in owned:
        length = rounded(len(one[1]))
        divided[int((before + length / 2) / whole * shares)].append(one)
        before += length
    return [share for share in divided if share]


def pieces(rows: Sequence[Owned], tokens: int) -> Iterator[list[Owned]]:
    """Rows of about equal length in pieces of at most so many tokens, padding included, in which those of a trial are neighbours."""
    place = {number: place for place, (number, _) in enumerate(rows)}
    piece: list[Owned] = []
    for owned in sorted(rows, key=lambda owned: len(owned[1]), reverse=True):
        longest = rounded(len(piece[0][1])) if piece else 0
        if piece and ((len(piece) + 1) * longest > tokens or len(owned[1]) < SIMILAR * longest):
            yield sorted(piece, key=lambda owned: place[owned[0]])
            piece = []
        piece.append(owned)
    yield sorted(piece, key=lambda owned: place[owned[0]])
