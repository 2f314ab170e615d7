"""What a training will take, held against trainings, against counted FLOPs and against what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from record_files import chat, write_records
from tiny import ROOT, SPECIAL, Lab, json_of, run_step, write_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from llamaflow import cost
from llamaflow.cost import Estimate, Planner, flops_a_token, flops_in_head, flops_in_layers, tokens_in, trained_parameters
from llamaflow.description import sizes_of
from llamaflow.params import Cost
from llamaflow.store import Store
from llamaflow.trials import Trial

# SmolLM2-135M-Instruct, as fetch_model describes it
SMOLLM2 = {
    "sha256": "1" * 64,
    "parameters": 134_515_008,
    "layers": 30,
    "hidden_size": 576,
    "vocabulary": 49_152,
    "parameters_in_layers": 106_202_880,
    "linear": {
        **{name: [26_542_080, 63_360] for name in ("down_proj", "gate_proj", "up_proj")},
        **{name: [3_317_760, 23_040] for name in ("k_proj", "v_proj")},
        **{name: [9_953_280, 34_560] for name in ("o_proj", "q_proj")},
    },
    "lengths": {"tokens_per_character": [[1.0, 0.2686], [1.0317, 0.3538], [1.8293, 0.748], [3.0, 1.7333]], "message": 5.33, "no_system": 21.33},
}
# the bundled example, as split_dataset describes it
TEXTS = {"characters": 67_857, "bytes": 69_360, "conversations": 486, "messages": 1458, "system_messages": 486}
DATASET = {"splits": {"train": 486, "validation": 54}, "texts": {"train": TEXTS, "validation": {name: count // 9 for name, count in TEXTS.items()}}}
DEMO = {"num_train_epochs": 0.3, "per_device_train_batch_size": 8, "max_length": 512, "dtype": "bfloat16", "eval_steps": 9}


def trial(technique: str = "lora", **values: Any) -> Trial:
    given = {"gradient_accumulation_steps": 1, "lora_r": 8, "target_modules": "all-linear"} | DEMO | values
    return Trial(
        trial_id=f"{technique}-{values}", model={"id": "smol", "sha256": "1" * 64}, data={"sha256": "2" * 64}, technique=technique, hyperparameters=given
    )


def planner(store: Path | None = None, **given: Any) -> Planner:
    return Planner({"smol": SMOLLM2}, DATASET, Cost.model_validate({"machine": "cpu"} | given), Store(str(store) if store else None), "code-1")


def estimate(*pack: Trial, **given: Any) -> Estimate:
    return planner(**given).estimate(pack or [trial()])[0]


@pytest.fixture(scope="module")
def trained(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One short trial of each kind, with its receipt and its estimate."""
    grid = [({}, {"techniques": "full,lora,freeze", "freeze_trainable_layers": 1}), ({"target_modules": "q_proj,down_proj"}, {"lora_r": 4})]
    trials = [found for fixed, given in grid for found in lab.trials(fixed, num_train_epochs=2, **given)]
    folder = tmp_path_factory.mktemp("trained")
    model, dataset = json_of(lab.model / "model.json"), json_of(lab.dataset / "dataset.json")
    made = []
    for place, given in enumerate(trials):
        (directory,) = lab.train([given], folder / str(place))
        found = Trial.model_validate(given)
        estimates = Planner({"tiny": model}, dataset, Cost(machine="cpu"), Store(None), "").estimate([found])
        made.append({"trial": found, "model": model, "counts": json_of(directory / "train_trials.json")["counts"], "estimate": estimates[0]})
    return made


def test_the_trained_parameters_are_those_that_train(trained: list[dict[str, Any]]) -> None:
    found = [trained_parameters(each["trial"], each["model"]) for each in trained]
    assert found == [each["counts"]["trainable_parameters"] for each in trained]
    assert len(set(found)) == 4


def test_steps_are_those_taken_and_tokens_are_close(trained: list[dict[str, Any]]) -> None:
    for each in trained:
        assert each["estimate"].steps == each["counts"]["steps"]
        assert each["estimate"].tokens == pytest.approx(each["counts"]["tokens"], rel=0.25)


@pytest.mark.parametrize("name", ["qa_en", "qa_pt"])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_tokens_of_the_examples(lab: Lab, tmp_path: Path, name: str, system: str | None) -> None:
    lines = (ROOT / f"assets/examples/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    said = [{"role": "system", "content": system}] if system else []
    chats = [chat(row["prompt"], row["completion"]) for row in map(json.loads, lines)]
    chats = [{**record, "messages": said + record["messages"]} for record in chats]
    write_records(tmp_path / "deduplicated.parquet", chats)
    run_step("split_dataset", ["--records", tmp_path / "deduplicated.parquet", "--outdir", tmp_path], {})
    run_step("tokenize_dataset", ["--dataset", tmp_path / "dataset", "--model", lab.model, "--outdir", tmp_path], {"max_length": 1024})
    fact = json_of(tmp_path / "tokenize_dataset.json")["counts"]["train"]["tokens"]
    texts = json_of(tmp_path / "dataset/dataset.json")["texts"]["train"]
    assert tokens_in(json_of(lab.model / "model.json")["lengths"], texts) == pytest.approx(fact, rel=0.2)


def test_text_is_cut_into_examples_and_conversations_are_truncated() -> None:
    texts = {
        name: {"characters": 1_000_000, "bytes": 1_000_000, "conversations": talks, "messages": talks, "system_messages": talks}
        for name, talks in (("train", 0), ("validation", 0))
    }
    on_text = Planner({"smol": SMOLLM2}, {"splits": {"train": 10, "validation": 10}, "texts": texts}, Cost(machine="cpu"), Store(None), "")
    found = on_text.estimate([trial(num_train_epochs=1.0)])[0]
    assert found.tokens == pytest.approx(268_600)
    assert found.steps == 66  # 525 pieces of 512 tokens, 8 a step
    assert estimate(trial(num_train_epochs=1.0, max_length=32)).tokens == 486 * 32


def test_messages_count_with_what_the_template_puts_around_them() -> None:
    lengths = {"tokens_per_character": [[1.0, 0.25], [2.0, 0.5]], "message": 5, "no_system": 20}
    assert tokens_in(lengths, {"characters": 400, "bytes": 400, "conversations": 10, "messages": 24, "system_messages": 4}) == 100 + 24 * 5 + 6 * 20
    assert tokens_in(lengths, {"characters": 0, "bytes": 0, "conversations": 0, "messages": 0, "system_messages": 0}) == 0


def test_as_many_tokens_a_character_as_lies_between_the_samples() -> None:
    curve = [[1.0, 0.25], [1.5, 0.5], [3.0, 2.0]]
    assert [cost.tokens_per_character(curve, at) for at in (0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)] == [0.25, 0.25, 0.375, 0.5, 1.0, 2.0, 2.0]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "deep", layers=6)


@pytest.mark.parametrize("technique", ["full", "freeze", "lora"])
def test_flops_are_those_that_torch_counts(deep: Path, technique: str) -> None:
    loaded, length = AutoModelForCausalLM.from_pretrained(deep, attn_implementation="eager"), 64
    model = sizes_of(deep, loaded.config) | {"vocabulary": loaded.config.vocab_size}
    prepare(loaded, technique)
    ids = torch.arange(length)[None] + len(SPECIAL)
    with FlopCounterMode(display=False) as forward:
        loss = loaded(ids, labels=ids).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    given = trial(technique, freeze_trainable_layers=1) if technique == "freeze" else trial(technique)
    counted = (forward.get_total_flops() + backward.get_total_flops()) / length
    assert flops_a_token(given, model, length) == pytest.approx(counted, rel=0.15)  # eager attention computes what causality would spare
    if technique == "full":
        assert flops_in_layers(model, length) + flops_in_head(model) == pytest.approx(forward.get_total_flops() / length, rel=0.1)


def prepare(model: Any, technique: str) -> None:
    """Make trainable what a technique trains."""
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(technique == "full")
    if technique == "freeze":
        model.model.layers[-1].requires_grad_(True)
    elif technique == "lora":
        inject_adapter_in_model(LoraConfig(r=8, target_modules=r".*_proj"), model)


def test_the_time_and_memory_of_the_demo() -> None:
    """Measured on one core with AMX: 9,052 tokens in 75 to 86 s, and 2.1 GiB with two trials a task; without AMX 2.0 GiB with one (docs/experiments.md)."""
    together = [trial(), trial(learning_rate=1e-3)]
    found = planner(flops_per_second=80e9).estimate(together)[0]
    assert found.tokens == pytest.approx(9052, rel=0.05)
    assert found.seconds == pytest.approx(80, rel=0.15)
    assert estimate(together[0]).peak_memory_bytes == pytest.approx(2.0 * 2**30, rel=0.15)
    assert 2.1 * 2**30 < found.peak_memory_bytes < 1.3 * 2.1 * 2**30, "with a second process they may take more"


def test_memory_grows_with_what_is_held() -> None:
    one = estimate().peak_memory_bytes
    alone, eight = (estimate(*(trial(seed=seed, per_device_train_batch_size=32) for seed in range(size))).peak_memory_bytes for size in (1, 8))
    assert alone < eight < 1.3 * alone, "the base is there once, and the rows go through in pieces"
    four, eight = (estimate(trial("qlora", quantization_bit=bits)).peak_memory_bytes for bits in (4, 8))
    assert four < eight < one < estimate(trial(dtype="float32")).peak_memory_bytes
    assert estimate(trial(lora_r=64)).peak_memory_bytes > one + 14 * 2_442_240 * 7
    assert one < estimate(trial("full")).peak_memory_bytes == pytest.approx(one + 14 * SMOLLM2["parameters"], rel=0.05)
    assert estimate(trial("freeze", freeze_trainable_layers=2)).peak_memory_bytes < estimate(trial("freeze", freeze_trainable_layers=20)).peak_memory_bytes


def test_the_speed_is_that_of_earlier_trials(tmp_path: Path) -> None:
    plain = planner(tmp_path).speed(trial())
    keep(tmp_path, trial(seed=1), tokens_per_second=100.0)
    keep(tmp_path, trial(seed=2), tokens_per_second=1000.0)
    keep(tmp_path, trial(seed=3), tokens_per_second=500.0)
    keep(tmp_path, trial("dora"), tokens_per_second=7.0)
    keep(tmp_path, trial().model_copy(update={"model": {"id": "smol", "sha256": "other"}}), tokens_per_second=7.0)
    keep(tmp_path, trial(seed=4), tokens=0, tokens_per_second=0.0)
    (tmp_path / "unreadable" / "trained").mkdir(parents=True)
    assert plain[1] != "as earlier trials of the model"
    speed, origin = planner(tmp_path).speed(trial())
    assert origin == "as earlier trials of the model"
    assert speed == pytest.approx(500 * flops_a_token(trial(), SMOLLM2, 60))
    assert planner(tmp_path, flops_per_second=5.0).speed(trial()) == (5.0, "as given")


def keep(store: Path, given: Trial, **counts: Any) -> None:
    """A finished trial in the store."""
    directory = store / f"made-{given.trial_id}"
    directory.mkdir()
    (directory / "trial.json").write_text(given.model_dump_json())
    (directory / "train_trials.json").write_text(json.dumps({"counts": {"tokens": 4800, "steps": 10} | counts}))
    Store(str(store)).keep(given.trial_id, "trained", "code-1", directory)


def test_a_finished_trial_is_known_by_its_code(tmp_path: Path) -> None:
    keep(tmp_path, trial(), tokens_per_second=100.0)
    assert [each.finished for each in planner(tmp_path).estimate([trial(), trial(seed=2)])] == [True, False]
    other = Planner({"smol": SMOLLM2}, DATASET, Cost(machine="cpu"), Store(str(tmp_path)), "code-2")
    assert not other.estimate([trial()])[0].finished


def test_a_gpu_takes_its_time_for_every_step_however_small() -> None:
    small, large = (estimate(trial(per_device_train_batch_size=size), machine="H100") for size in (1, 8))
    assert small.seconds == pytest.approx(8 * large.seconds, rel=0.05)
