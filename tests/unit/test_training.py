"""The training loop: its arithmetic, and that a training which was killed ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import FAILING, Child, Lab, counts, examples, history, json_of, same_weights, with_values
from transformers import Lfm2Config, Lfm2ForCausalLM

from llamaflow.batches import Family, families_of, make_batch, rows_of
from llamaflow.learner import Learner
from llamaflow.loss import CompletionLoss
from llamaflow.passes import Passes, pieces
from llamaflow.store import Store
from llamaflow.techniques import load_trained, prepared
from llamaflow.tokens import Tokens
from llamaflow.tracking import Tracker
from llamaflow.trials import Trial


def test_every_epoch_sees_every_example_once(lab: Lab, undisturbed: Path) -> None:
    each = json_of(lab.tokens / "tokens.json")["splits"]["train"]["tokens"]
    ends = [row["tokens"] for row in history(undisturbed) if row["epoch"] == int(row["epoch"])]
    assert ends == [each, 2 * each, 3 * each]


def test_the_learning_rate_follows_its_schedule(lab: Lab, undisturbed: Path, tmp_path: Path) -> None:
    rates = [row["learning_rate"] for row in history(undisturbed)]
    assert rates[:4] == pytest.approx([0, 2e-2 / 3, 2 * 2e-2 / 3, 2e-2])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 2e-3
    (trained,) = lab.train(lab.trials(lr_scheduler_type="linear", warmup_steps=0.25), tmp_path)
    assert [row["learning_rate"] for row in history(trained)] == pytest.approx([2e-2 * share for share in (0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)])


def test_accumulated_gradients_are_those_of_a_larger_batch(lab: Lab, tmp_path: Path) -> None:
    (whole,) = lab.train(lab.trials(techniques="full", learning_rate=1e-3, per_device_train_batch_size=8), tmp_path / "whole")
    (parts,) = lab.train(lab.trials(techniques="full", learning_rate=1e-3, per_device_train_batch_size=3, gradient_accumulation_steps=3), tmp_path / "parts")
    (nine,) = lab.train(lab.trials(techniques="full", learning_rate=1e-3, per_device_train_batch_size=9), tmp_path / "nine")
    losses = [[row["loss"] for row in history(trained)] for trained in (whole, parts, nine)]
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)
    assert losses[1] != pytest.approx(losses[0], rel=1e-3)


def test_packing_is_the_same_training(lab: Lab, tmp_path: Path) -> None:
    packed, padded = (
        lab.train(lab.trials({"packing": packing}, techniques="full", learning_rate=1e-3), tmp_path / str(packing))[0] for packing in (True, False)
    )
    assert [row["loss"] for row in history(packed)] == pytest.approx([row["loss"] for row in history(padded)], rel=1e-5)


def test_pieces_have_little_padding_and_the_rows_of_a_trial_side_by_side() -> None:
    rows = [(owner, row) for owner in (7, 3) for row in rows_of([Family(0, examples(200, 60, 50, 190))], packing=False)]
    assert [[(owner, len(row)) for owner, row in piece] for piece in pieces(rows, 480)] == [
        [(7, 200), (3, 200)],
        [(7, 190), (3, 190)],
        [(7, 60), (7, 50), (3, 60), (3, 50)],
    ]


def test_layers_that_are_no_attention_have_one_example_a_row(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A convolution sees the example before its own in the row."""
    trials = [Trial.model_validate(trial) for trial in lab.trials(lora_r="4")]
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    base = Lfm2ForCausalLM(Lfm2Config(vocab_size=1000, num_hidden_layers=2, layer_types=["conv", "full_attention"], **size))
    data = Tokens(lab.tokens, "train"), Tokens(lab.tokens, "validation")
    with prepared(base, lab.model, trials) as trainable:
        learner = Learner(trials[0], trainable.parameters(trials[0]), data, Store(None), "code-1", Tracker(trials[0], "code-1", tmp_path, []))
        passes = Passes(trainable, [learner])
        rows = passes._laid_out({learner: families_of(learner.next_examples(), sharing=passes.sharing)})
    assert [len(row.members) for row in rows[learner]] == [1] * learner.examples_per_step
    assert "packing is off" in capsys.readouterr().out


def test_weights_lost_in_the_last_step_are_no_result(lab: Lab, tmp_path: Path) -> None:
    """The loss of the last step is measured before its update: only the validation after it shows what that did."""
    (trial,) = lab.trials(num_train_epochs=0.25)
    (failed,) = lab.train([with_values(trial, **FAILING)], tmp_path)
    assert "the validation loss was" in counts(failed)["reason"]


def test_early_stopping_keeps_the_best_weights(lab: Lab, tmp_path: Path) -> None:
    settings = {"early_stopping_patience": 2, "eval_steps": 1}
    (stopped,) = lab.train(lab.trials(settings, techniques="full", learning_rate=5e-2, num_train_epochs=20), tmp_path)
    found, measured = counts(stopped), [row["validation_loss"] for row in history(stopped)]
    assert found["status"] == "early_stopped"
    assert found["steps"] == len(measured) < 80
    assert measured.index(min(measured)) == len(measured) - 3, "two measurements without gain after the best one"
    assert found["validation_loss"] == min(measured)
    validation = Tokens(lab.tokens, "validation")
    with torch.no_grad():
        batch = make_batch([validation[index] for index in range(len(validation))], packing=False)
        losses = CompletionLoss(load_trained(lab.model, stopped, "float32")).per_token(batch)
    assert float(losses.mean()) == pytest.approx(min(measured), rel=1e-5)


def test_without_early_stopping_the_last_weights_are_kept_and_reported(lab: Lab, tmp_path: Path) -> None:
    (trained,) = lab.train(lab.trials({"eval_steps": 1}, techniques="full", learning_rate=5e-2, num_train_epochs=0.75), tmp_path)
    measured = [row["validation_loss"] for row in history(trained)]
    assert counts(trained)["validation_loss"] == measured[-1] > min(measured)


@pytest.mark.parametrize("curriculum", ["length", "sequential"])
def test_a_curriculum_orders_the_first_epoch(lab: Lab, tmp_path: Path, curriculum: str) -> None:
    """Alone or in a pack; every example is still seen once, and the second epoch is as it would be without."""
    lengths = Tokens(lab.tokens, "train").lengths
    ordered = sorted(lengths) if curriculum == "length" else lengths
    expected = [sum(ordered[start : start + 8]) for start in range(0, len(lengths), 8)]
    plain, trial = lab.trials(curriculum=f"none,{curriculum}", learning_rate=1e-3)
    (alone,) = lab.train([trial], tmp_path / "alone")
    both = lab.train([plain, trial], tmp_path / "both")
    tokens = [[0, *(row["tokens"] for row in history(trained))] for trained in (alone, *reversed(both))]
    seen, packed, by_chance = ([after - before for before, after in pairwise(row)] for row in tokens)
    assert seen == packed
    assert seen[: len(expected)] == expected != by_chance[: len(expected)]
    assert seen[len(expected) :] == by_chance[len(expected) :]
    assert [row["loss"] for row in history(alone)] == pytest.approx([row["loss"] for row in history(both[1])], rel=1e-4)


def test_a_curriculum_shorter_than_an_epoch_is_of_all_lengths(lab: Lab, tmp_path: Path) -> None:
    lengths = sorted(Tokens(lab.tokens, "train").lengths)
    (trained,) = lab.train(lab.trials(curriculum="length", num_train_epochs=0.5), tmp_path)
    assert history(trained)[-1]["tokens"] > sum(lengths[: 8 * len(history(trained))])


def test_a_curriculum_is_of_one_process(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lab.trials(compute={"num_processes": 2}, curriculum="length")
    assert "--curriculum length orders the examples of one process, not of --num_processes 2" in capsys.readouterr().err


def test_a_curriculum_goes_on_where_it_was(lab: Lab, tmp_path: Path) -> None:
    trials = lab.trials(curriculum="length")
    (undisturbed,) = lab.train(trials, tmp_path / "undisturbed")
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 1, "logging_steps": 1}
    child = Child(lambda: lab.train(trials, tmp_path / "first", **settings))
    assert child.kill_after("step 2/8", signal.SIGKILL) == -signal.SIGKILL
    (trained,) = lab.train(trials, tmp_path / "second", **settings)
    assert history(trained) == history(undisturbed)


def test_a_training_that_is_killed_before_its_first_checkpoint(lab: Lab, careful: dict[str, Any], undisturbed: Path, tmp_path: Path, capsys: Any) -> None:
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 3, "logging_steps": 1}
    child = Child(lambda: lab.train([careful], tmp_path / "first", **settings))
    assert child.kill_after("step 2/12", signal.SIGKILL) == -signal.SIGKILL
    (trained,) = lab.train([careful], tmp_path / "second", **settings)
    assert "goes on from the checkpoint" not in capsys.readouterr().out
    assert same_weights(trained / "adapter", undisturbed / "adapter")
    assert history(trained) == history(undisturbed)


def test_a_training_that_is_killed_again_and_again(lab: Lab, careful: dict[str, Any], undisturbed: Path, tmp_path: Path, capsys: Any) -> None:
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 2, "logging_steps": 1}
    for attempt, step in enumerate((3, 6, 11)):
        child = Child(lambda number=attempt: lab.train([careful], tmp_path / str(number), **settings))  # type: ignore[misc]
        assert child.kill_after(f"step {step}/12", signal.SIGKILL) == -signal.SIGKILL
    (trained,) = lab.train([careful], tmp_path / "last", **settings)
    assert "goes on from the checkpoint at step 10" in capsys.readouterr().out
    assert not list((tmp_path / "store").rglob("checkpoint")), "a finished trial needs none"
    assert history(trained) == history(undisturbed)
    assert same_weights(trained / "adapter", undisturbed / "adapter")


@pytest.mark.slow
def test_a_pack_that_is_killed_at_random(lab: Lab, tmp_path: Path) -> None:
    """Twenty times and more, gently or not: every trial ends as undisturbed, to rounding, since trials may come back a few steps apart."""
    trials = lab.trials(lora_r="4,8,16", num_train_epochs=12, lr_scheduler_type="cosine", learning_rate=4e-3)
    undisturbed = lab.train(trials, tmp_path / "undisturbed")
    generator, kills = random.Random(7), 0
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 2, "logging_steps": 1}
    while True:
        child = Child(lambda: lab.train(trials, tmp_path / "killed", **settings))
        if child.kill_at_line(generator.randint(8, 16), generator.choice((signal.SIGKILL, signal.SIGTERM))) == 0:
            break
        kills += 1
    assert kills >= 20
    trained = lab.train(trials, tmp_path / "last", **settings)
    for one, other in zip(trained, undisturbed, strict=True):
        assert [row["step"] for row in history(one)] == list(range(1, 49))
        assert [row["loss"] for row in history(one)] == pytest.approx([row["loss"] for row in history(other)], rel=1e-3)


def test_full_fine_tuning_goes_on_too(lab: Lab, tmp_path: Path) -> None:
    trials = lab.trials(techniques="full", num_train_epochs=3)
    (undisturbed,) = lab.train(trials, tmp_path / "undisturbed")
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 4, "logging_steps": 1}
    child = Child(lambda: lab.train(trials, tmp_path / "first", **settings))
    assert child.kill_after("step 9/12", signal.SIGKILL) == -signal.SIGKILL
    (trained,) = lab.train(trials, tmp_path / "second", **settings)
    assert same_weights(trained / "model", undisturbed / "model")


def test_a_stop_by_the_system_saves_first(lab: Lab, careful: dict[str, Any], undisturbed: Path, tmp_path: Path, capsys: Any) -> None:
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 1000, "logging_steps": 1}
    child = Child(lambda: lab.train([careful], tmp_path / "first", **settings))
    assert child.kill_after("step 5/12", signal.SIGTERM) == 75
    assert len(list((tmp_path / "store").rglob("checkpoint"))) == 1
    (trained,) = lab.train([careful], tmp_path / "second", **settings)
    assert "goes on from the checkpoint at step" in capsys.readouterr().out
    assert same_weights(trained / "adapter", undisturbed / "adapter")


def test_a_stop_whose_log_nobody_reads_any_more_saves_too(lab: Lab, careful: dict[str, Any], tmp_path: Path) -> None:
    """Nextflow's wrapper ends at SIGTERM at once, and with it the other end of the step's output."""
    child = Child(lambda: lab.train([careful], tmp_path / "first", store=tmp_path / "store", save_steps=1000, logging_steps=1))
    assert any("step 5/12" in line for line in child.output)
    child.output.close()
    os.kill(child.pid, signal.SIGTERM)
    os.waitpid(child.pid, 0)
    (state,) = (tmp_path / "store").rglob("checkpoint/state.json")
    assert 5 <= json_of(state)["step"] < 12


def test_a_checkpoint_of_other_code_is_not_used(lab: Lab, tmp_path: Path, capsys: Any) -> None:
    trials = lab.trials()
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 1, "logging_steps": 1}
    Child(lambda: lab.train(trials, tmp_path / "first", **settings)).kill_after("step 4/8", signal.SIGKILL)
    lab.train(trials, tmp_path / "second", code="code-2", **settings)
    assert "goes on from" not in capsys.readouterr().out


def test_bfloat16(lab: Lab, tmp_path: Path) -> None:
    for technique in ("lora", "full", "freeze"):
        (trained,) = lab.train(lab.trials(compute={"dtype": "bfloat16"}, techniques=technique, num_train_epochs=1, learning_rate=4e-2), tmp_path / technique)
        first, *_, last = history(trained)
        assert last["validation_loss"] < 0.95 * first["loss"]
