"""Successive halving: the decisions on a recorded history, in one task and across tasks."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from tiny import TRIAL_FILES, Child, Lab, counts, history

from llamaflow.halving import Halving, places
from llamaflow.progress import Progress
from llamaflow.tracking import Tracker
from llamaflow.trials import Trial

# Validation losses of eight trials of SmolLM2-135M at steps 4, 8 and 16, as recorded in a run of the whole grid.
RECORDED = {
    4: {"a": 3.91, "b": 3.42, "c": 3.05, "d": 3.20, "e": 3.88, "f": 3.39, "g": 3.01, "h": 4.75},
    8: {"a": 3.60, "b": 3.01, "c": 2.61, "d": 2.99, "e": 3.55, "f": 2.95, "g": 2.66, "h": 4.40},
    16: {"a": 3.11, "b": 2.70, "c": 2.31, "d": 2.42, "e": 3.02, "f": 2.60, "g": 2.29, "h": 4.01},
}


def survivors(halving: Halving, step: int, trials: list[str]) -> list[str]:
    for trial in trials:
        halving.post(step, trial, RECORDED[step][trial])
    return [trial for trial in trials if halving.reason_to_stop(step, trial) is None]


def test_a_recorded_history() -> None:
    halving, going = Halving(2, 4, None), list("abcdefgh")
    for step, expected in ((4, "cdfg"), (8, "cg"), (16, "g")):
        going = survivors(halving, step, going)
        assert going == list(expected)


def test_a_measurement_in_a_swing_is_forgiven(lab: Lab, tmp_path: Path) -> None:
    """Recorded: SmolLM2-135M on reviews at steps 12 and 24 of 50; the trial with the highest learning rate was the best at the end."""
    measured = {"1e-3": (0.358, 0.568), "3e-4": (0.558, 0.360), "1e-4": (0.561, 0.422), "1e-4 r8": (0.567, 0.424)}
    trial, halving = Trial.model_validate(lab.trials()[0]), Halving(2, 12, None)
    for name, losses in measured.items():
        progress = Progress(trial, {}, 400, Tracker(trial, "code-1", tmp_path, []))
        for step, loss in zip((12, 24), losses, strict=True):
            progress.state.step = step
            progress.stepped(loss, 1e-3)
            progress.validated(loss)
        halving.post(24, name, progress.recent_validation_loss)
    assert [name for name in measured if halving.reason_to_stop(24, name) is None] == ["1e-3", "3e-4"]
    progress.state.step = 36
    progress.stepped(0.6, 1e-3)
    progress.validated(0.6)
    assert progress.recent_validation_loss == 0.424, "of the last two"


def test_a_reason_tells_the_place() -> None:
    halving = Halving(4, 4, None)
    assert survivors(halving, 4, list("abcdefgh")) == ["c", "g"]
    assert halving.reason_to_stop(4, "h") == "successive halving: place 8 of 8 by validation loss at step 4, where 2 go on"


def test_rungs_are_eta_times_apart() -> None:
    assert [step for step in range(1, 200) if Halving(3, 5, None).is_rung(step)] == [5, 15, 45, 135]


def test_equal_losses_are_told_apart_by_name() -> None:
    assert places({"b": 1.0, "a": 1.0, "c": 0.5}) == {"c": 1, "a": 2, "b": 3}


def test_tasks_know_of_each_other_through_the_board(tmp_path: Path) -> None:
    """Whoever comes later is compared with all that came before; nobody waits."""
    first, second = Halving(2, 4, tmp_path), Halving(2, 4, tmp_path)
    assert survivors(first, 4, ["b", "c"]) == ["c"]
    assert survivors(second, 4, ["a", "d"]) == ["d"]
    assert survivors(Halving(2, 4, tmp_path), 4, ["e"]) == []
    assert survivors(Halving(2, 4, tmp_path), 4, ["g"]) == ["g"]
    assert survivors(Halving(2, 4, tmp_path / "other grid"), 4, ["e"]) == ["e"]


def settings(**more: Any) -> dict[str, Any]:
    return {"scheduler": "halving", "halving_min_steps": 2, "halving_eta": 2, "grid": "grid-1", **more}


@pytest.fixture
def trials(lab: Lab) -> list[dict[str, Any]]:
    return lab.trials(learning_rate="1e-5,1e-4,1e-3,2e-2", num_train_epochs=2)


def test_a_pack_is_halved(lab: Lab, trials: list[dict[str, Any]], tmp_path: Path) -> None:
    found = [counts(trained) for trained in lab.train(trials, tmp_path, store=tmp_path / "store", **settings())]
    assert [(trial["status"], trial["steps"]) for trial in found] == [("stopped", 2), ("stopped", 2), ("stopped", 4), ("finished", 8)]
    assert found[0]["reason"] == "successive halving: place 4 of 4 by validation loss at step 2, where 2 go on"
    assert all(trial["validation_loss"] for trial in found)
    stopped = tmp_path / "trials" / trials[0]["trial_id"]
    assert {file.name for file in stopped.iterdir()} == TRIAL_FILES


def test_what_was_stopped_goes_on_when_all_are_wanted(lab: Lab, trials: list[dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    """From where it stood, and to the same end as if nothing had happened."""
    lab.train(trials, tmp_path / "halved", store=tmp_path / "store", **settings())
    capsys.readouterr()
    found = lab.train(trials, tmp_path / "all", store=tmp_path / "store")
    output = capsys.readouterr().out
    assert f"{trials[0]['trial_id']}  goes on from the checkpoint at step 2" in output
    assert f"{trials[3]['trial_id']}  was finished before" in output
    (alone,) = lab.train(trials[:1], tmp_path / "alone")
    assert [row["loss"] for row in history(found[0])] == pytest.approx([row["loss"] for row in history(alone)], rel=1e-4)


def test_the_same_run_again_stops_the_same_trials(lab: Lab, trials: list[dict[str, Any]], tmp_path: Path) -> None:
    first = [counts(trained) for trained in lab.train(trials, tmp_path / "first", store=tmp_path / "store", **settings())]
    again = [counts(trained) for trained in lab.train(trials, tmp_path / "again", store=tmp_path / "store", **settings())]
    assert [(trial["status"], trial["steps"]) for trial in again] == [(trial["status"], trial["steps"]) for trial in first]


def test_a_checkpoint_at_a_rung_may_never_have_been_measured(lab: Lab, trials: list[dict[str, Any]], tmp_path: Path) -> None:
    """It was left by a run without halving."""
    killed = Child(lambda: lab.train(trials, tmp_path / "killed", store=tmp_path / "store", save_steps=2, logging_steps=3))
    assert killed.kill_after("step 3", signal.SIGKILL) == -signal.SIGKILL
    found = [counts(trained) for trained in lab.train(trials, tmp_path / "halved", store=tmp_path / "store", **settings())]
    assert [trial["status"] for trial in found].count("finished") == 1


def test_patience_does_not_depend_on_rungs(lab: Lab, tmp_path: Path) -> None:
    """A measurement at a rung between those that the trial asks for changes nothing of it."""
    (trial,) = lab.trials({"early_stopping_patience": 1, "eval_steps": 4})
    progress = Progress(Trial.model_validate(trial), {}, 64, Tracker(Trial.model_validate(trial), "code-1", tmp_path, []))
    for step, loss in enumerate((1.0, 0.1, 2.0, 0.5), start=1):
        progress.state.step = step
        progress.stepped(loss, 1e-3)
        progress.validated(loss)
    assert (progress.state.best_validation_loss, progress.state.evaluations_without_gain) == (0.5, 0)
    assert [row["validation_loss"] for row in progress.state.history] == [1.0, 0.1, 2.0, 0.5]


def test_one_trial_alone_is_refused(lab: Lab, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        lab.trials({"scheduler": "halving"})
    assert ended.value.code == 64
    assert "halving compares trials" in capsys.readouterr().err
