"""Successive halving: at each rung, only the best 1/eta of the trials that reached it go on.

"A System for Massively Parallel Hyperparameter Tuning" (ASHA), Li et al. 2020, https://arxiv.org/abs/1810.05934: a trial is compared
with those that have reached the rung so far, so that no task waits for another. Each is judged by the lower of its last two validation losses.
"""

from __future__ import annotations

import math
from pathlib import Path

from llamaflow.files import read_json, write_json


class Halving:
    """The losses that the trials of a grid had at each rung; in a directory, if tasks are to know of each other."""

    def __init__(self, eta: int, min_steps: int, board: Path | None) -> None:
        self.eta, self.min_steps, self.board = eta, min_steps, board
        self._own: dict[int, dict[str, float]] = {}

    def is_rung(self, step: int) -> bool:
        """Rungs are at min_steps, min_steps * eta, min_steps * eta^2 ..."""
        rung = self.min_steps
        while rung < step:
            rung *= self.eta
        return rung == step

    def post(self, step: int, trial_id: str, loss: float) -> None:
        self._own.setdefault(step, {})[trial_id] = loss
        if self.board:
            (self.board / str(step)).mkdir(parents=True, exist_ok=True)
            write_json(self.board / str(step) / f"{trial_id}.json", {"loss": loss})

    def losses(self, step: int) -> dict[str, float]:
        """What all trials of the grid that have reached the rung had there."""
        others = (self.board / str(step)).glob("*.json") if self.board else ()
        return {path.stem: read_json(path)["loss"] for path in others} | self._own.get(step, {})

    def reason_to_stop(self, step: int, trial_id: str) -> str | None:
        """Why a trial that posted its loss does not go on; None if it does."""
        losses = self.losses(step)
        place = places(losses)[trial_id]
        survivors = math.ceil(len(losses) / self.eta)
        if place <= survivors:
            return None
        return f"successive halving: place {place} of {len(losses)} by validation loss at step {step}, where {survivors} go on"


def places(losses: dict[str, float]) -> dict[str, int]:
    """The place of each trial, 1 the best; of equals, the first by name."""
    return {trial_id: place for place, trial_id in enumerate(sorted(losses, key=lambda name: (losses[name], name)), start=1)}
