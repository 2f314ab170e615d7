"""The training loop of a pack: all its trials take their steps together, each with rows of its own in one batch.

A trial that ends (all steps, out of patience, stopped by halving, diverged) leaves the pack, and the rest speeds up.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence

from llamaflow.errors import TemporaryError
from llamaflow.halving import Halving
from llamaflow.learner import Learner
from llamaflow.params import Training
from llamaflow.passes import Passes
from llamaflow.progress import Diverged, Outcome
from llamaflow.techniques import Trainable


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
        self.learners, self.settings, self.halving, self.stop = learners, settings, halving, stop
        self.passes = Passes(trainable, learners)

    def run(self) -> Iterator[tuple[Learner, Outcome]]:
        """Yield each trial as it ends. Raises TemporaryError on SIGTERM, after all others are saved."""
        try:
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
        finally:
            self.passes.close()

    @property
    def memory_of_helpers(self) -> int:
        """Bytes, beside what they share with this process."""
        return self.passes.crew.memory()

    def _step(self, active: Sequence[Learner]) -> None:
        """One optimiser step of every trial: the mean loss over all labelled tokens of its examples."""
        start = time.monotonic()
        examples = {learner: learner.next_examples() for learner in active}
        losses, sizes = self.passes.gradients(examples)
        seconds = (time.monotonic() - start) / sum(sizes.values())
        for learner in active:
            tokens = sum(len(ids) for ids, _ in examples[learner])
            try:
                learner.update(losses[learner], tokens, seconds * sizes[learner])
            except Diverged as diverged:
                learner.end("failed", str(diverged))

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
        loss = self.passes.loss_of(learner, learner.validation_examples())
        learner.state.validation_seconds += time.monotonic() - start
        try:
            learner.validated(loss)
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
        halving.post(learner.state.step, learner.trial.trial_id, learner.recent_validation_loss)
    for learner in at_rung:
        if reason := halving.reason_to_stop(learner.state.step, learner.trial.trial_id):
            learner.save()  # a later run without halving goes on from here
            learner.end("stopped", reason)
