"""The training loop of a pack: all its trials take their steps together, each with rows of its own in one batch.

A trial that ends (all steps, out of patience, stopped by halving, diverged) leaves the pack, and the rest speeds up.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from llamaflow.attention import reach
from llamaflow.batches import IGNORED, Family, Row, balanced, families_of, rounded, rows_of, stack
from llamaflow.crew import Helper
from llamaflow.errors import TemporaryError, is_out_of_memory
from llamaflow.halving import Halving
from llamaflow.learner import Learner
from llamaflow.limits import TOKENS_AT_ONCE
from llamaflow.lora import Share
from llamaflow.loss import CompletionLoss
from llamaflow.models import device, resolve_dtype
from llamaflow.params import Training
from llamaflow.progress import Diverged, Outcome
from llamaflow.steps import say
from llamaflow.techniques import Trainable

Owned = tuple[Learner, Row]
Families = dict[Learner, list[Family]]
Rows = dict[Learner, list[Row]]

SIMILAR = 0.75  # of the longest row's length is a shorter one at least that shares a piece with it
WITHOUT_GRADIENTS = 4  # times as many tokens at once: no layer's activations are kept


@dataclass(frozen=True)
class Task:
    """Rows for one process: (number of the trial, row); labelled tokens and steps taken of each trial."""

    rows: list[tuple[int, Row]]
    labelled: dict[int, int]
    steps: dict[int, int]
    tokens_at_once: int
    training: bool


class StopRequest:
    """Remembers SIGTERM (preemption, time limit), so that the loop can save before it ends."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, *_: object) -> None:
        self.received = True


class PackTraining:
    """Train the trials of a pack on one model."""

    def __init__(self, trainable: Trainable, learners: Sequence[Learner], settings: Training, halving: Halving | None, stop: StopRequest) -> None:
        self.trainable, self.learners, self.settings, self.halving, self.stop = trainable, learners, settings, halving, stop
        self.dtype = resolve_dtype(learners[0].values["dtype"])
        trainable.route(())
        with self._precision():
            self.loss = CompletionLoss(trainable.model)
        self.tokens_at_once = TOKENS_AT_ONCE[device()]
        config, first = trainable.model.config.get_text_config(), learners[0].values
        self.packing = bool(first["packing"]) and reach(config) > 0
        if first["packing"] and not self.packing:
            say("packing is off: layers of this architecture that are neither full nor sliding attention could let examples in a row see each other")
        # FlashAttention knows no mask like that of a shared prefix
        self.sharing = self.packing and config._attn_implementation != "flash_attention_2" and reach(config) >= first["max_length"]

        self.helpers: list[Helper] = []
        if trainable.side_by_side and device() == "cpu":
            self._fork(torch.get_num_threads() - 1)

    def _fork(self, helpers: int) -> None:
        groups = [list(learner.parameters.values()) for learner in self.learners]
        for group in groups:
            for parameter in group:
                parameter.share_memory_()
        for _ in range(helpers):
            self.helpers.append(Helper(self._compute, groups, self.helpers))
        if helpers:
            torch.set_num_threads(1)

    def run(self) -> Iterator[tuple[Learner, Outcome]]:
        """Yield each trial as it ends. Raises TemporaryError on SIGTERM, after all others are saved."""
        for learner in self.learners:
            learner.resume()
            learner.end_if_done()
        self._halve([learner for learner in self.learners if not learner.outcome])
        yield from _ended(self.learners)
        while active := [learner for learner in self.learners if not learner.outcome]:
            self._step(active)
            self._look_at(active)
            yield from _ended(active)
            self._save([learner for learner in active if not learner.outcome])

    def _step(self, active: Sequence[Learner]) -> None:
        """One optimiser step of every trial: the mean loss over all labelled tokens of its examples."""
        start = time.monotonic()
        families = {learner: families_of(learner.next_examples(), sharing=learner.sharing and self.sharing) for learner in active}
        losses, sizes = self._gradients(families)
        seconds = (time.monotonic() - start) / sum(sizes.values())
        for learner in active:
            tokens = sum(len(ids) for family in families[learner] for ids, _ in family.examples)
            try:
                learner.update(losses[learner], tokens, seconds * sizes[learner])
            except Diverged as diverged:
                learner.end("failed", str(diverged))

    def _gradients(self, families: Families) -> tuple[dict[Learner, float], dict[Learner, int]]:
        """The loss of each trial, and the tokens of its rows. Out of memory, everything is done again in smaller pieces."""
        first, rows = next(iter(families)), self._laid_out(families)
        while True:
            try:
                self.trainable.model.train()
                torch.manual_seed(first.values["seed"] + first.state.step)  # for models with dropout of their own
                return self._pass(rows), {learner: sum(map(len, own)) for learner, own in rows.items()}
            except Exception as error:
                if not is_out_of_memory(error) or not self._can_do_with_less(rows):
                    raise
            for learner in families:
                learner.optimizer.zero_grad()

    def _laid_out(self, families: Families) -> Rows:
        spread = (1 + len(self.helpers)) / len(families)
        return {learner: rows_of(own, packing=self.packing, processes=max(1, math.ceil(spread))) for learner, own in families.items()}

    def _can_do_with_less(self, rows: Rows) -> bool:
        """Half the rows at once or, if it is one already, the activations computed again on the way back: Chen et al. 2016, https://arxiv.org/abs/1604.06174."""
        longest, model = rounded(max(len(row) for own in rows.values() for row in own)), self.trainable.model
        if (at_once := self.tokens_at_once // longest) > 1:
            self.tokens_at_once = at_once // 2 * longest
            say(f"out of memory: goes on with at most {self.tokens_at_once} tokens at once")
        elif model.supports_gradient_checkpointing and not model.is_activation_checkpointing:
            model.activation_checkpointing_enable()
            say("out of memory: goes on with activation checkpointing, which is slower")
        else:
            return False
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True

    def _pass(self, rows: Rows) -> dict[Learner, float]:
        """The loss of each trial: its rows go through the model, in pieces, and each piece's gradients back if the model is in training mode."""
        numbers = {learner: number for number, learner in enumerate(self.learners)}
        labelled = {numbers[learner]: max(1, sum(int((row.labels != IGNORED).sum()) for row in own)) for learner, own in rows.items()}
        steps = {numbers[learner]: learner.state.step for learner in rows}
        owned = [(numbers[learner], row) for learner, own in rows.items() for row in own]
        at_once = self.tokens_at_once // (1 + len(self.helpers)) * (1 if self.trainable.model.training else WITHOUT_GRADIENTS)
        shares = balanced([rounded(len(row)) for _, row in owned], min(len(owned), 1 + len(self.helpers)))
        tasks = [Task([owned[place] for place in sorted(share)], labelled, steps, at_once, self.trainable.model.training) for share in shares]
        busy = list(zip(self.helpers, tasks[1:], strict=False))
        for helper, task in busy:
            helper.begin(task, sorted({number for number, _ in task.rows}))
        total = dict.fromkeys(rows, 0.0)
        for number, loss in self._compute(tasks[0]).items():
            total[self.learners[number]] += loss
        for helper, _ in busy:
            for number, loss in helper.end().items():
                total[self.learners[number]] += loss
            helper.add_gradients()
        return total

    def _compute(self, task: Task) -> dict[int, float]:
        """The losses of some rows, by the number of their trial; their gradients are left with the parameters."""
        for number, step in task.steps.items():
            self.learners[number].state.step = step
        self.trainable.model.train(task.training)
        total = dict.fromkeys(task.steps, 0.0)
        labelled = {self.learners[number]: count for number, count in task.labelled.items()}
        with torch.set_grad_enabled(task.training):
            for piece in pieces([(self.learners[number], row) for number, row in task.rows], task.tokens_at_once):
                for learner, loss in self._piece(piece, labelled).items():
                    total[self.learners.index(learner)] += loss
        return total

    def _piece(self, piece: Sequence[Owned], labelled: dict[Learner, int]) -> dict[Learner, float]:
        learners = list(dict.fromkeys(learner for learner, _ in piece))
        self.trainable.route([Share(learner.trial.trial_id, learner.state.step, [row for owner, row in piece if owner is learner]) for learner in learners])
        batch = stack([row for _, row in piece]).to(device())
        with self._precision():
            per_token = self.loss.per_token(batch)
        owner = torch.tensor([learners.index(learner) for learner, _ in piece], device=batch.labels.device)
        owner = owner[:, None].expand_as(batch.labels)[batch.labels != IGNORED]
        shares = torch.tensor([1 / labelled[learner] for learner in learners], device=owner.device)[owner]
        if self.trainable.model.training:
            (per_token * shares).sum().backward()
        sums = torch.zeros(len(learners), device=owner.device).index_add_(0, owner, per_token.detach() * shares)
        return dict(zip(learners, sums.tolist(), strict=True))

    def _precision(self) -> AbstractContextManager[Any]:
        """Products in bfloat16 on trained float32 weights."""
        autocast: AbstractContextManager[Any] = torch.autocast(device(), dtype=self.dtype, enabled=self.trainable.autocast and self.dtype != torch.float32)
        return autocast

    def _look_at(self, active: Sequence[Learner]) -> None:
        """Measure and log what is due, and settle who has ended."""
        going = [learner for learner in active if not learner.outcome]
        for learner in going:
            if learner.validation_due:
                self._validate(learner)
        for learner in going:
            if not learner.outcome:
                learner.end_if_done()
        self._halve([learner for learner in going if not learner.outcome])
        for learner in going:
            if learner.outcome or learner.state.step % self.settings.logging_steps == 0:
                learner.log()

    def _at_rung(self, learners: Sequence[Learner]) -> list[Learner]:
        return [learner for learner in learners if self.halving and self.halving.is_rung(learner.state.step) and learner.state.step < learner.total_steps]

    def _halve(self, going: Sequence[Learner]) -> None:
        """Stop the worst of those at a rung; a checkpoint of a run without halving may stand there unmeasured."""
        at_rung = self._at_rung(going)
        for learner in at_rung:
            if "validation_loss" not in learner.state.history[-1]:
                self._validate(learner)
        if self.halving:
            halve(self.halving, [learner for learner in at_rung if not learner.outcome])

    def _validate(self, learner: Learner) -> None:
        start = time.monotonic()
        self.trainable.model.eval()
        with torch.no_grad():
            families = {learner: families_of(learner.validation_examples(), sharing=self.sharing)}
            losses = self._pass(self._laid_out(families))
        learner.state.validation_seconds += time.monotonic() - start
        try:
            learner.validated(losses[learner])
        except Diverged as diverged:
            learner.end("failed", str(diverged))

    def _save(self, going: Sequence[Learner]) -> None:
        for learner in going:
            if self.stop.received or learner.state.step % self.settings.save_steps == 0:
                learner.save()
        if self.stop.received and going:
            steps = ", ".join(f"{learner.state.step} of {learner.total_steps}" for learner in going)
            kept = "what was learnt is saved, and the next attempt goes on from there"
            if not going[0].store.root:
                kept = "without --checkpoint_dir the next attempt starts anew"
            raise TemporaryError(f"stopped by the system at step {steps}; {kept}")


def _ended(learners: Sequence[Learner]) -> Iterator[tuple[Learner, Outcome]]:
    return ((learner, learner.outcome) for learner in learners if learner.outcome)


def halve(halving: Halving, at_rung: Sequence[Learner]) -> None:
    for learner in at_rung:
        halving.post(learner.state.step, learner.trial.trial_id, learner.state.history[-1]["validation_loss"])
    for learner in at_rung:
        if reason := halving.reason_to_stop(learner.state.step, learner.trial.trial_id):
            learner.save()  # a later run without halving goes on from here
            learner.end("stopped", reason)


def pieces(rows: Sequence[Owned], tokens: int) -> Iterator[list[Owned]]:
    """Rows of about equal length in pieces of at most so many tokens, padding included, in which those of a trial are neighbours."""
    place = {learner: number for number, (learner, _) in enumerate(rows)}
    piece: list[Owned] = []
    for owned in sorted(rows, key=lambda owned: len(owned[1]), reverse=True):
        longest = rounded(len(piece[0][1])) if piece else 0
        if piece and ((len(piece) + 1) * longest > tokens or len(owned[1]) < SIMILAR * longest):
            yield sorted(piece, key=lambda owned: place[owned[0]])
            piece = []
        piece.append(owned)
    yield sorted(piece, key=lambda owned: place[owned[0]])
