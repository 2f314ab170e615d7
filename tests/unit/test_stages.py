"""Stages besides sft: each learns what its records show, goes on after a kill, and refuses what does not fit."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from record_files import chat, write_records
from tiny import ROOMS, ROOT, SETTINGS, Child, Lab, counts, history, json_of, run_step, same_weights, weights_of, with_values

import train_trials
from llamaflow.files import write_json

COLOURS = ("red", "green", "blue", "white")
QUICK = {"learning_rate": 5e-3, "num_train_epochs": 2, "per_device_train_batch_size": 4, "warmup_steps": 0, "lr_scheduler_type": "constant"}


def preference(room: str, number: int) -> dict[str, Any]:
    """Polite answers are preferred."""
    return {
        "type": "preference",
        "prompt": [{"role": "user", "content": f"Where is room {room} {number}?"}],
        "chosen": [{"role": "assistant", "content": f"With pleasure: floor {number % 4}."}],
        "rejected": [{"role": "assistant", "content": "No idea, ask somebody else."}],
    }


RECORDS: dict[str, list[dict[str, Any]]] = {
    "preference": [preference(room, number) for room in ROOMS for number in range(4)],
    "label": [chat(f"The wall of {room} {number} is {COLOURS[number]}.", COLOURS[number], label=COLOURS[number]) for room in ROOMS for number in range(4)],
    "liked": [chat(f"Where is {room} {number}?", "With pleasure: there." if number % 2 else "No.", liked=bool(number % 2)) for room in ROOMS for number in range(4)],
    "chat": [chat(f"Say a letter for {room} {number}.", "e") for room in ROOMS for number in range(4)],
}  # fmt: skip


@pytest.fixture(scope="module")
def labs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lab]:
    made = {}
    for name, records in RECORDS.items():
        folder = tmp_path_factory.mktemp(name)
        write_records(folder / "deduplicated.parquet", records)
        given = {"splitting": {"validation_fraction": 0.2, "test_fraction": 0.2}}
        run_step("split_dataset", ["--records", folder / "deduplicated.parquet", "--outdir", folder], given)
        made[name] = Lab(lab.model, folder / "dataset", folder)
    return made


slow = functools.partial(pytest.param, marks=pytest.mark.slow)
LEARNT = [
    ("dpo", "preference", "lora"),
    slow("dpo", "preference", "full"),
    ("orpo", "preference", "lora"),
    ("kto", "preference", "lora"),
    slow("kto", "liked", "dora"),
    ("reward", "preference", "lora"),
    slow("reward", "preference", "freeze"),
    ("classification", "label", "lora"),
    slow("classification", "label", "full"),
]


@pytest.mark.parametrize(("stage", "data", "technique"), LEARNT)
def test_a_stage_learns(labs: dict[str, Lab], tmp_path: Path, stage: str, data: str, technique: str) -> None:
    lab = labs[data]
    (trial,) = lab.trials(stage=stage, techniques=technique, freeze_trainable_layers=1, **QUICK | ({"learning_rate": 5e-4} if technique == "full" else {}))
    (trained,) = lab.train([trial], tmp_path)
    rows, found = history(trained), counts(trained)
    assert (found["status"], found["steps"], len(rows)) == ("finished", rows[-1]["step"], 10 if data != "preference" or stage != "kto" else 20)
    assert sum(row["loss"] for row in rows[-3:]) < 0.9 * sum(row["loss"] for row in rows[:3])
    assert found["tokens"] > 100
    assert found["validation_loss"] == rows[-1]["validation_loss"]
    assert (trained / ("adapter" if technique in ("lora", "dora") else "model")).is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"trials"}
    assert {path.name for path in (tmp_path / "trials").iterdir()} == {trial["trial_id"]}


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "technique"), [("dpo", "full"), ("reward", "lora"), ("kto", "qlora")])
def test_a_stage_in_bfloat16(labs: dict[str, Lab], tmp_path: Path, stage: str, technique: str) -> None:
    lab = labs["preference"]
    (trial,) = lab.trials(compute={"dtype": "bfloat16"}, stage=stage, techniques=technique, **QUICK | {"learning_rate": 5e-4 if technique == "full" else 5e-3})
    rows = history(lab.train([trial], tmp_path)[0])
    assert sum(row["loss"] for row in rows[-3:]) < 0.9 * sum(row["loss"] for row in rows[:3])


def test_a_technique_for_one_process(labs: dict[str, Lab], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        labs["preference"].trials(compute={"num_processes": 2}, techniques="lora,pissa", **QUICK)
    assert "--techniques pissa trains in one process, not in --num_processes 2" in capsys.readouterr().err


def test_a_head_is_trained_beside_the_last_layers(labs: dict[str, Lab], tmp_path: Path) -> None:
    grid = QUICK | {"stage": "classification", "techniques": "freeze", "freeze_trainable_layers": 1}
    slow, fast = labs["label"].trials(**grid | {"learning_rate": "1e-9,1e-3"})
    first, last = (labs["label"].train([trial], tmp_path / str(place))[0] / "model" for place, trial in enumerate((slow, fast)))
    assert (weights_of(first)["score.weight"] - weights_of(last)["score.weight"]).abs().max() > 1e-4


@pytest.mark.slow
def test_grpo_raises_the_reward(labs: dict[str, Lab], tmp_path: Path) -> None:
    """An answer is rewarded that has a letter e; the random model gives it one time in a few."""
    lab = labs["chat"]
    grpo = {"num_generations": 8, "max_completion_length": 6} | QUICK | {"learning_rate": 2e-2, "num_train_epochs": 3}
    (trial,) = lab.trials(answers={"reward_metrics": "pattern", "answer_pattern": "e"}, stage="grpo", **grpo)
    (trained,) = lab.train([trial], tmp_path)
    rewards = [row["reward"] for row in history(trained)]
    assert sum(rewards[-4:]) > 1.3 * sum(rewards[:4])
    assert counts(trained)["validation_loss"] == pytest.approx(history(trained)[-1]["validation_loss"])
    assert 0 <= counts(trained)["validation_loss"] < 1


@pytest.mark.slow
def test_a_reward_that_never_comes(labs: dict[str, Lab], tmp_path: Path) -> None:
    lab = labs["chat"]
    grpo = {"num_generations": 2, "max_completion_length": 4} | QUICK | {"num_train_epochs": 5}
    (trial,) = lab.trials(answers={"reward_metrics": "pattern", "answer_pattern": "Eyjafjallajokull"}, stage="grpo", **grpo)
    found = counts(lab.train([trial], tmp_path)[0])
    assert (found["status"], found["steps"]) == ("failed", 10)
    assert found["reason"].startswith("no answer got any reward by pattern in 10 steps")


@pytest.mark.slow
def test_distillation_comes_nearer_to_the_teacher(labs: dict[str, Lab], tmp_path: Path) -> None:
    lab = labs["chat"]
    (taught,) = lab.trials(techniques="full", **QUICK | {"learning_rate": 1e-3})
    teacher = lab.train([taught], tmp_path / "teacher")[0] / "model"
    write_json(teacher / "model.json", json_of(lab.model / "model.json") | {"sha256": "of the teacher"})
    (trial,) = lab.trials(teacher=teacher, stage="distillation", max_completion_length=6, **QUICK | {"num_train_epochs": 4})
    assert trial["hyperparameters"]["teacher"]["sha256"] == "of the teacher"
    rows = history(lab.train([trial], tmp_path / "student", teacher=teacher)[0])
    assert sum(row["loss"] for row in rows[-3:]) < 0.8 * sum(row["loss"] for row in rows[:3])


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_training_goes_on_to_the_same_end(labs: dict[str, Lab], tmp_path: Path, signal_number: int) -> None:
    lab, settings = labs["preference"], {"save_steps": 2, "logging_steps": 1, "eval_steps": 1}
    (trial,) = lab.trials({"early_stopping_patience": 50, "eval_steps": 1}, stage="dpo", **QUICK | {"lr_scheduler_type": "cosine"})
    (whole,) = lab.train([trial], tmp_path / "whole", **settings)
    store = tmp_path / "store"
    child = Child(lambda: lab.train([trial], tmp_path / "killed", store=store, **settings))
    assert child.kill_after("step 5/10", signal_number) == (75 if signal_number == signal.SIGTERM else -signal.SIGKILL)
    saved = json_of(store / trial["trial_id"] / "checkpoint" / "state.json")
    assert saved["step"] >= 4
    (resumed,) = lab.train([trial], tmp_path / "resumed", store=store, **settings)
    assert [row["loss"] for row in history(resumed)] == pytest.approx([row["loss"] for row in history(whole)], rel=1e-4)
    assert [row["tokens"] for row in history(resumed)] == [row["tokens"] for row in history(whole)]
    assert same_weights(resumed / "adapter", whole / "adapter")
    assert not (store / trial["trial_id"] / "checkpoint").exists()


@pytest.mark.slow
def test_a_training_that_was_killed_after_its_last_step(labs: dict[str, Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, store = labs["preference"], tmp_path / "store"
    (trial,) = lab.trials(stage="reward", **QUICK)
    monkeypatch.setattr(train_trials.Task, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.train([trial], tmp_path / "killed", store=store, save_steps=10)
    monkeypatch.undo()
    (trained,) = lab.train([trial], tmp_path / "resumed", store=store, save_steps=10)
    (whole,) = lab.train([trial], tmp_path / "whole")
    assert counts(trained)["status"] == "finished"
    assert same_weights(trained / "adapter", whole / "adapter")


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_out_of_memory_goes_on_with_less(labs: dict[str, Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from trl import DPOTrainer

    lab, compute = labs["preference"], DPOTrainer.compute_loss
    (trial,) = lab.trials(stage="dpo", **QUICK)
    expected = history(lab.train([trial], tmp_path / "expected")[0])

    def in_little_memory(self: Any, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        if self.args.per_device_train_batch_size > 1 or not self.args.activation_checkpointing:
            raise MemoryError("no room for so many examples")
        return compute(self, model, inputs, *args, **more)

    monkeypatch.setattr(DPOTrainer, "compute_loss", in_little_memory)
    found = history(lab.train([trial], tmp_path / "found")[0])
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("out of memory")] == [
        "out of memory: goes on with 2 examples at once",
        "out of memory: goes on with 1 examples at once",
        "out of memory: goes on with activation checkpointing, which is slower",
    ]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], rel=1e-3)


@pytest.mark.slow
def test_halving_stops_the_worse_of_two(labs: dict[str, Lab], tmp_path: Path) -> None:
    lab, settings = labs["preference"], {"scheduler": "halving", "halving_min_steps": 2, "grid": "grid-1"}
    better, worse = lab.trials({"scheduler": "halving", "halving_min_steps": 2}, stage="dpo", **QUICK | {"learning_rate": "5e-3,1e-8"})
    assert counts(lab.train([better], tmp_path / "better", store=tmp_path / "store", **settings)[0])["status"] == "finished"
    found = counts(lab.train([worse], tmp_path / "worse", store=tmp_path / "store", **settings)[0])
    assert (found["status"], found["steps"]) == ("stopped", 2)


def test_a_trial_that_diverges(labs: dict[str, Lab], tmp_path: Path) -> None:
    (trial,) = labs["preference"].trials(stage="orpo", **QUICK)
    (trained,) = labs["preference"].train([with_values(trial, learning_rate=1e37)], tmp_path)
    assert counts(trained)["status"] == "failed"
    assert counts(trained)["reason"].startswith("diverged")


REFUSED = [
    ("chat", {"stage": "dpo"}, "--stage dpo learns from preference records (prompt, chosen and rejected), but the data hold chat records."),
    ("preference", {"stage": "grpo"}, "but the data hold preference records"),
    ("chat", {"stage": "classification"}, "needs a label for every record"),
    ("preference", {"stage": "dpo", "techniques": "lora,pissa"}, "--techniques: pissa does not train the stage dpo, only full, freeze, lora"),
]


def test_examples_that_cannot_be_shared_out(labs: dict[str, Lab], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        labs["preference"].trials(compute={"num_processes": 3}, **QUICK)
    assert "--num_processes 3: the 4 examples of a step" in capsys.readouterr().err


@pytest.mark.parametrize(("data", "grid", "words"), REFUSED)
def test_what_does_not_fit_is_refused(labs: dict[str, Lab], capsys: Any, data: str, grid: dict[str, Any], words: str) -> None:
    with pytest.raises(SystemExit):
        labs[data].trials(**grid)
    assert words in capsys.readouterr().err


def test_answers_that_nobody_judged(labs: dict[str, Lab], tmp_path: Path, capsys: Any) -> None:
    (trial,) = labs["chat"].trials(stage="kto")
    with pytest.raises(SystemExit):
        labs["chat"].train([trial], tmp_path)
    assert "--stage kto needs to know of every answer whether it was liked: faq.csv:" in capsys.readouterr().err


def test_stages_side_by_side(labs: dict[str, Lab]) -> None:
    """One grid, each stage with its own learning rate and hyperparameters; only sft trains in packs."""
    trials = labs["preference"].trials(stage="sft,dpo,orpo", learning_rate="auto")
    assert [(trial["hyperparameters"]["stage"], trial["hyperparameters"]["learning_rate"]) for trial in trials] == [
        ("sft", 2e-4),
        ("dpo", 1e-5),
        ("orpo", 8e-5),
    ]
    assert ["beta" in trial["hyperparameters"] for trial in trials] == [False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "technique"), [("sft", "lora"), ("dpo", "full")])
def test_two_processes_train_as_one_does(labs: dict[str, Lab], tmp_path: Path, stage: str, technique: str) -> None:
    """They meet through gloo, each with half the examples of every step."""
    lab = labs["preference"]
    (trial,) = lab.trials(stage=stage, techniques=technique, **QUICK | {"learning_rate": 5e-4})
    found = train_apart(lab, trial, tmp_path / "together", num_processes=2, parallelism="ddp")
    assert counts(found)["status"] == "finished"
    assert {path.name for path in (tmp_path / "together").iterdir()} == {"trials"}
    assert {path.name for path in (tmp_path / "together" / "trials").iterdir()} == {trial["trial_id"]}
    alone = train_apart(lab, trial, tmp_path / "alone")
    if stage == "sft":  # one process trains it in a pack, in an order of its own
        assert history(found)[-1]["loss"] < 0.9 * history(found)[0]["loss"]
        assert weights_of(found / "adapter").keys() == weights_of(alone / "adapter").keys()
    else:
        assert [row["loss"] for row in history(found)] == pytest.approx([row["loss"] for row in history(alone)], rel=1e-3)
        assert weights_of(found / "model").keys() == weights_of(alone / "model").keys()


@pytest.mark.slow
def test_two_processes_that_the_system_stops_go_on_to_the_same_end(labs: dict[str, Lab], tmp_path: Path) -> None:
    """The launcher passes the signal on, both take the same step last, and the first one saves."""
    lab, together = labs["preference"], {"num_processes": 2, "parallelism": "ddp"}
    (trial,) = lab.trials(stage="dpo", techniques="full", **QUICK | {"learning_rate": 5e-4, "lr_scheduler_type": "cosine"})
    whole = train_apart(lab, trial, tmp_path / "whole", **together)
    kept = {**together, "checkpoint_dir": str(tmp_path / "store")}
    with apart(lab, trial, tmp_path / "stopped", **kept) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "step 4/10" in line)
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == 75, said
    saved = json_of(tmp_path / "store" / trial["trial_id"] / "checkpoint" / "state.json")
    assert 4 <= saved["step"] < 10
    assert f"stopped by the system at step {saved['step']} of 10" in said
    resumed = train_apart(lab, trial, tmp_path / "resumed", **kept)
    assert [row["loss"] for row in history(resumed)] == pytest.approx([row["loss"] for row in history(whole)], rel=1e-3)


def train_apart(lab: Lab, trial: dict[str, Any], outdir: Path, **compute: Any) -> Path:
    """In processes of its own, to the end."""
    with apart(lab, trial, outdir, **compute) as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    return outdir / "trials" / str(trial["trial_id"])


def apart(lab: Lab, trial: dict[str, Any], outdir: Path, **compute: Any) -> subprocess.Popen[str]:
    """As Nextflow would: a process of its own, settings on standard input."""
    outdir.mkdir()
    given = SETTINGS | {"trials": [trial], "training": {"logging_steps": 1}, "compute": compute}
    command = [sys.executable, ROOT / "bin/train_trials.py", "--model", lab.model, "--tokens", lab.tokens, "--dataset", lab.dataset, "--outdir", outdir]
    settings = outdir.with_suffix(".json")
    write_json(settings, given)
    with settings.open() as file:
        return subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
