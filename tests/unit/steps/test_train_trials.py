"""train_trials: every technique learns, alone as in a pack; what is finished is kept, what fails says why."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from full_disk import no_room_beyond
from tiny import FAILING, SETTINGS, TRIAL_FILES, Child, Lab, counts, history, json_of, same_weights, weights_of, with_values

from llamaflow.trials import TECHNIQUES

RATES = {"loraplus": 4e-3, "vera": 0.1, "ia3": 0.1, "prompt_tuning": 0.2, "prefix_tuning": 0.5}  # for a random model, not for a real one


@pytest.mark.parametrize("technique", [*TECHNIQUES, "qlora in 8 bits"])
def test_every_technique_learns(lab: Lab, tmp_path: Path, technique: str, capfd: pytest.CaptureFixture[str]) -> None:
    technique, bits = ("qlora", 8) if technique == "qlora in 8 bits" else (technique, 4)
    if technique == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("qlora needs bitsandbytes")
    epochs, share = (8, 0.9) if TECHNIQUES[technique].trains == "prompt" else (2, 0.85)  # a random model hardly heeds what stands before a text
    trials = lab.trials(techniques=technique, learning_rate=RATES.get(technique, 2e-2), quantization_bit=bits, num_train_epochs=epochs)
    capfd.readouterr()
    (trained,) = lab.train(trials, tmp_path)
    output = capfd.readouterr()
    assert output.err == ""
    assert output.out.splitlines()[-1] == f"{trained.name}  finished"
    first, *_, last = history(trained)
    assert last["loss"] < share * first["loss"]
    assert last["validation_loss"] < share * first["loss"]
    found = counts(trained)
    assert (found["status"], found["reason"], found["steps"]) == ("finished", None, 4 * epochs)
    assert found["validation_loss"] == last["validation_loss"]
    assert found["tokens"] == last["tokens"]
    kept = "adapter" if TECHNIQUES[technique].is_adapter else "model"
    assert {file.name for file in trained.iterdir()} == {kept, *TRIAL_FILES}
    assert json_of(trained / "trial.json") == trials[0]


def test_the_receipt_tells_what_came_in_and_out(lab: Lab, undisturbed: Path, careful: dict[str, Any]) -> None:
    found = json_of(undisturbed / "train_trials.json")
    assert found["inputs"] == {"model": careful["model"]["sha256"], "data": careful["data"]["sha256"]}
    assert set(found["outputs"]) == {"adapter", "events.tfevents", "history.jsonl", "trial.json"}
    assert found["settings"]["code"] == "code-1"
    assert "trials" not in found["settings"]
    assert found["counts"]["trainable_parameters"] == sum(tensor.numel() for tensor in weights_of(undisturbed / "adapter").values())


def test_freeze_changes_the_last_layers_only(lab: Lab, tmp_path: Path) -> None:
    (trained,) = lab.train(lab.trials(techniques="freeze", freeze_trainable_layers=1), tmp_path)
    before, after = weights_of(lab.model), weights_of(trained / "model")
    assert after.keys() == before.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert {".".join(name.split(".")[:3]) for name in changed} == {"model.layers.1"}


def test_a_trial_that_diverges_ends_alone(lab: Lab, tmp_path: Path, capsys: Any) -> None:
    (good,) = lab.trials()
    failed, finished = lab.train([with_values(good, **FAILING), good], tmp_path)
    assert "one by one" not in capsys.readouterr().out
    assert [row["loss"] for row in history(finished)] == pytest.approx([row["loss"] for row in history(lab.train([good], tmp_path / "alone")[0])], rel=1e-4)
    found = counts(failed)
    assert found["status"] == "failed"
    assert found["reason"].startswith("diverged: the ")
    assert "try a smaller learning_rate than 1e+37" in found["reason"]
    assert {file.name for file in failed.iterdir()} == TRIAL_FILES
    json.loads((failed / "train_trials.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert counts(finished)["status"] == "finished"


def test_a_pack_that_is_killed_keeps_what_is_finished(lab: Lab, careful: dict[str, Any], undisturbed: Path, tmp_path: Path) -> None:
    (other,) = lab.trials()
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 3, "logging_steps": 1}
    child = Child(lambda: lab.train([other, careful], tmp_path / "first", **settings))
    assert child.kill_after("step 8/12", signal.SIGKILL) == -signal.SIGKILL
    first, second = lab.train([other, careful], tmp_path / "second", **settings)
    assert json_of(first / "train_trials.json")["reused"] is True
    assert "reused" not in json_of(second / "train_trials.json")
    assert same_weights(second / "adapter", undisturbed / "adapter")


def test_a_finished_trial_is_reused(lab: Lab, tmp_path: Path, capsys: Any) -> None:
    trials = lab.trials()
    (first,) = lab.train(trials, tmp_path / "first", store=tmp_path / "store")
    assert "reused" not in json_of(first / "train_trials.json")
    (second,) = lab.train(trials, tmp_path / "second", store=tmp_path / "store", code="code-1")
    assert json_of(second / "train_trials.json") == json_of(first / "train_trials.json") | {"reused": True}
    assert "taken from the store" in capsys.readouterr().out
    assert same_weights(first / "adapter", second / "adapter")
    assert {file.name for file in second.iterdir()} == {file.name for file in first.iterdir()}
    (third,) = lab.train(trials, tmp_path / "third", store=tmp_path / "store", code="code-1")
    assert json_of(third / "train_trials.json")["reused"] is True, "the mark was not written through to the store"
    (changed,) = lab.train(trials, tmp_path / "changed", store=tmp_path / "store", code="code-2")
    assert "reused" not in json_of(changed / "train_trials.json")


def test_a_grid_that_grows_trains_what_is_new(lab: Lab, tmp_path: Path) -> None:
    lab.train(lab.trials(lora_r=8), tmp_path / "small", store=tmp_path / "store")
    grown = lab.train(lab.trials(lora_r="4,8,16"), tmp_path / "grown", store=tmp_path / "store")
    assert [json_of(trial / "train_trials.json").get("reused", False) for trial in grown] == [False, True, False]


def test_a_full_disk(lab: Lab, careful: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    """A checkpoint does not fit: the message says so, and no half of it is left."""
    with no_room_beyond(20_000), pytest.raises(SystemExit) as ended:
        lab.train([careful], tmp_path / "first", store=tmp_path / "store", save_steps=3)
    assert ended.value.code == 64
    assert "no room left on the disk" in capsys.readouterr().err
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    (trained,) = lab.train([careful], tmp_path / "second", store=tmp_path / "store", save_steps=3)
    assert counts(trained)["status"] == "finished"


def test_a_store_that_is_no_directory(lab: Lab, careful: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(SystemExit) as ended:
        lab.train([careful], tmp_path / "first", store=tmp_path / "store", save_steps=3)
    assert ended.value.code == 64
    assert "cannot write or read" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written(lab: Lab, careful: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "store").mkdir(mode=0o555)
    with pytest.raises(SystemExit) as ended:
        lab.train([careful], tmp_path / "first", store=tmp_path / "store", save_steps=3)
    assert ended.value.code == 64
    assert "cannot write or read" in capsys.readouterr().err


def test_settings_without_the_usual_groups(lab: Lab, tmp_path: Path, run_step: Any) -> None:
    trials = lab.trials()
    run_step("train_trials", ["--model", lab.model, "--tokens", lab.tokens, "--dataset", lab.dataset, "--outdir", tmp_path], {"trials": trials})
    assert SETTINGS["code"] not in (tmp_path / "trials" / trials[0]["trial_id"] / "train_trials.json").read_text()
