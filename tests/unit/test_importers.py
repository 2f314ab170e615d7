"""Configurations of axolotl and LLaMA-Factory: every key becomes a parameter or a remark, and what is written can be run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from configurations import CHAT, EXAMPLES, FREEZE, FULL, LORA, QLORA, QUANTISED, lay_out
from hypothesis import given
from hypothesis import strategies as st

import import_config
from llamaflow.errors import UsageError
from llamaflow.importers import convert
from llamaflow.importers.conversion import APPROXIMATED, NO_COUNTERPART, NOT_NEEDED, SAME, Conversion
from llamaflow.importers.writing import scalar
from llamaflow.params import Params
from llamaflow.trials import STAGES
from llamaflow.validation import resolve

STAGE_HYPERPARAMETERS = {name for traits in STAGES.values() for name in traits.own}
# told of under the key of what they belong to
COMPANIONS = {"adapter", "load_in_4bit", "stage", "trl", "revision_of_model", "datasets", "test_datasets", "dataset", "eval_dataset"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where someone trained so far: data sets and their descriptions."""
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def converted(text: str) -> Conversion:
    return convert(yaml.safe_load(text), Path())


def imported(text: str, sweep: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """What the command writes into params.yaml, and what it says."""
    Path("config.yaml").write_text(text)
    Path("sweep.yaml").write_text(sweep or "")
    report = import_config.run(Path("config.yaml"), Path("sweep.yaml") if sweep else None, Path("params.yaml"))
    return yaml.safe_load(Path("params.yaml").read_text()), report


def kinds(conversion: Conversion) -> dict[str, str]:
    """The kind of the first remark on each key."""
    return {remark.key: remark.kind for remark in reversed(conversion.remarks)}


def text_on(conversion: Conversion, key: str) -> str:
    return "; ".join(remark.text for remark in conversion.remarks if remark.key == key)


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_lost_silently(name: str, folder: Path) -> None:
    config, made = yaml.safe_load(EXAMPLES[name]), converted(EXAMPLES[name])
    mentioned = {*made.origins.values(), *(remark.key for remark in made.remarks)}
    asked = {key for key, value in config.items() if value not in (None, False, 0, 0.0)}
    assert asked - mentioned - COMPANIONS == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_written_can_be_run(name: str, folder: Path) -> None:
    written, report = imported(EXAMPLES[name])
    assert isinstance(resolve(written), Params)
    assert set(written) == {"input"} | set(converted(EXAMPLES[name]).values)
    assert all(f"# {line}".rstrip() in Path("params.yaml").read_text().splitlines() for line in report[1:])


def test_qlora(folder: Path) -> None:
    written, report = imported(QLORA)
    assert written == {
        "input": "faq.jsonl",
        "outdir": "./outputs/qlora",
        "validation_fraction": 0.05,
        "models": "acme/Little-1B@v2",
        "techniques": "qlora",
        "learning_rate": 0.0002,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "max_length": 2048,
        "lora_r": 32,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "quantization_bit": 4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "weight_decay": 0,
        "packing": True,
        "target_modules": "gate_proj,q_proj",
        "logging_steps": 1,
        "dtype": "auto",
    }
    assert report[0] == "axolotl configuration config.yaml: 21 parameters in params.yaml"
    assert "  optimizer (paged_adamw_8bit): AdamW with its states in full precision: more memory, nothing else" in report
    assert "max_length: 2048  # sequence_len" in Path("params.yaml").read_text().splitlines()


def test_chat(folder: Path) -> None:
    made = converted(CHAT)
    assert made.values | {"outdir": None} == {
        "models": "./models/little-instruct",
        "outdir": None,
        "techniques": "qlora",
        "quantization_bit": 8,
        "learning_rate": 0.0002,
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "max_length": 512,
        "lora_r": 16,
        "lora_alpha": 32.0,
        "warmup_steps": 10.0,
        "seed": 7,
        "packing": False,
        "target_modules": "all-linear",
        "early_stopping_patience": 3,
        "report_to": "wandb",
        "save_steps": 200,
        "dtype": "bfloat16",
    }
    assert made.origins["max_length"] == "axolotl's default"
    assert made.sources[1] == {"id": "held_out", "path": "held out.json", "split": "validation"}
    assert made.sources[0]["path"] == "https://huggingface.co/datasets/acme/support-chats/resolve/refs%2Fconvert%2Fparquet/default/train/0000.parquet"
    assert "rename conversation -> messages" in text_on(made, "datasets[0]")
    expected = {"lr_scheduler": NO_COUNTERPART, "eval_steps": NO_COUNTERPART, "peft_use_dora": NO_COUNTERPART, "train_on_inputs": NO_COUNTERPART}
    expected |= {"val_set_size": NO_COUNTERPART, "datasets[0].split": NO_COUNTERPART, "model_type": NOT_NEEDED, "strict": NOT_NEEDED}
    assert {key: kind for key, kind in kinds(made).items() if key in expected} == expected | {"val_set_size": NO_COUNTERPART}
    assert made.origins["quantization_bit"] == "load_in_8bit"
    assert "'rex' is not accepted: should be 'linear'" in text_on(made, "lr_scheduler")
    assert "such as WANDB_PROJECT" in text_on(made, "wandb_project")
    assert "do_not_print" not in "\n".join(imported(CHAT)[1]) + Path("params.yaml").read_text()
    assert rows("params.samplesheet.csv")[1] == {"id": "held_out", "path": "held out.json", "split": "validation"}


def test_full(folder: Path) -> None:
    made = converted(FULL)
    assert made.values["techniques"] == "full"
    assert "lora_r" not in made.values
    assert kinds(made)["lora_r"] == NOT_NEEDED
    assert [source["path"] for source in made.sources] == ["files/a.jsonl", "files/b.csv", "https://example.org/more.parquet"]
    assert "rename q -> instruction, a -> output" in text_on(made, "datasets[0]")
    assert "rename body -> text" in text_on(made, "datasets[1]")
    assert "less than or equal to 1" in text_on(made, "weight_decay")
    assert {kinds(made)[key] for key in ("optimizer", "weight_decay", "trl.reward_funcs")} == {NO_COUNTERPART}
    assert (made.values["stage"], made.values["beta"], made.values["report_to"]) == ("dpo", 0.3, "mlflow")
    assert text_on(made, "trl.num_generations") == "dpo with full does not use it"


def test_lora(folder: Path) -> None:
    written, _ = imported(LORA)
    assert written["input"] == "params.samplesheet.csv"
    assert rows("params.samplesheet.csv") == [
        {"id": "identity", "path": "data/identity.json"},
        {"id": "web_questions", "path": "https://huggingface.co/datasets/acme/web-questions/resolve/refs%2Fconvert%2Fparquet/en/train/0000.parquet"},
    ]
    assert (written["lora_r"], written["lora_alpha"], written["target_modules"], written["dtype"]) == (8, 16, "all-linear", "bfloat16")
    assert (written["validation_fraction"], written["eval_steps"], written["warmup_steps"]) == (0.1, 500, 0.1)
    assert "trust_remote_code" not in written
    made = converted(LORA)
    assert made.values["stage"] == "sft"
    assert "rename question -> instruction, reply -> output" in text_on(made, "web")
    expected = {
        "trust_remote_code": NO_COUNTERPART,
        "max_samples": NO_COUNTERPART,
        "report_to": SAME,
        "template": APPROXIMATED,
        "web.columns.images": NO_COUNTERPART,
    }
    assert {key: kinds(made)[key] for key in expected} == expected


def test_quantised(folder: Path) -> None:
    made = converted(QUANTISED)
    assert (made.values["techniques"], made.values["quantization_bit"]) == ("qlora", 8)
    assert (made.values["stage"], made.values["beta"], made.values["report_to"]) == ("orpo", 0.2, "wandb")
    assert "rslora cannot be combined with qlora" in text_on(made, "use_rslora")
    assert (made.values["lr_scheduler_type"], made.values["warmup_steps"], made.values["learning_rate"]) == ("linear", 0, 5e-5)
    assert made.values["early_stopping_patience"] == 4
    assert "dtype" not in made.values
    assert made.sources[1] == {"id": "exam", "path": "data/exam.jsonl", "split": "validation"}
    assert [remark.key for remark in made.remarks].count("exam") == 0
    assert {kinds(made)[key] for key in ("val_size", "report_to")} == {NO_COUNTERPART}
    assert {kinds(made)[key] for key in ("fp16", "neat_packing")} == {APPROXIMATED}


def test_freeze(folder: Path) -> None:
    made = converted(FREEZE)
    assert made.values["models"] == "./models/little/8b"
    assert (made.values["techniques"], made.values["freeze_trainable_layers"]) == ("freeze", 8)
    assert "lora_alpha" not in made.values
    assert kinds(made)["lora_rank"] == NOT_NEEDED
    assert kinds(made)["use_llama_pro"] == NO_COUNTERPART


@pytest.mark.parametrize(
    ("text", "setting", "expected"),
    [
        (QLORA, "rl: kto", {"stage": "kto"}),
        (QLORA, "rl: orpo\norpo_alpha: 0.5", {"stage": "orpo", "beta": 0.5}),
        (QLORA, "rl: dpo\ntrl: {beta: 0.3}", {"stage": "dpo", "beta": 0.3}),
        (QLORA, "rl: grpo\ntrl: {num_generations: 4, temperature: 0.7}", {"stage": "grpo", "num_generations": 4, "temperature": 0.7}),
        (QLORA, "reward_model: true", {"stage": "reward"}),
        (QLORA, "rl: simpo\nrl_beta: 2", {}),
        (FREEZE, "stage: pt", {"stage": "sft"}),
        (FREEZE, "stage: rm\npref_beta: 0.3", {"stage": "reward"}),
        (FREEZE, "stage: kto\npref_beta: 0.3", {"stage": "kto", "beta": 0.3}),
        (FREEZE, "stage: dpo\npref_loss: sigmoid", {"stage": "dpo"}),
        (FREEZE, "stage: ppo", {}),
    ],
)
def test_stages(text: str, setting: str, expected: dict[str, Any], folder: Path) -> None:
    made = converted(f"{text}\n{setting}")
    assert {name: value for name, value in made.values.items() if name in {"stage", *STAGE_HYPERPARAMETERS}} == expected
    assert yaml.safe_load(setting).keys() - {*made.origins.values(), *(remark.key for remark in made.remarks)} <= {"trl"}
    assert bool(expected) != any("there is no" in remark.text for remark in made.remarks)


def test_a_technique_that_does_not_train_the_stage(folder: Path) -> None:
    made = converted(f"{QUANTISED}\nloraplus_lr_ratio: 8".replace("quantization_bit: 8", "").replace("use_rslora: true", ""))
    assert made.values["stage"] == "orpo"
    assert "techniques" not in made.values, "lora is what it is by default"
    assert "there is no loraplus for orpo: lora is trained" in text_on(made, "loraplus_lr_ratio")


def test_dataset_info_beside_the_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert convert(yaml.safe_load(FREEZE), Path("..")).sources[0]["path"] == str(Path("../data/identity.json"))


def test_json_is_read_too(folder: Path) -> None:
    assert imported(json.dumps(yaml.safe_load(QLORA)))[0] == yaml.safe_load(Path("params.yaml").read_text())


def test_a_sweep_of_lists_becomes_the_grid(folder: Path) -> None:
    written, report = imported(QLORA, "learning_rate: [1e-4, 2e-4]\nlora_r: [8, 16]\nsample_packing: [true, false]\noptimizer: [adamw_torch, lion]")
    assert written["learning_rate"] == [0.0001, 0.0002]
    assert written["lora_r"] == [8, 16]
    assert "trials" not in written
    assert "  sweep of sample_packing: packing has one value in a run: True" in report
    assert "  optimizer (lion): AdamW is used" in report


def test_a_large_sweep_raises_the_limit_that_would_stop_it(folder: Path) -> None:
    written, _ = imported(QLORA, f"seed: {list(range(10))}\nlora_r: {list(range(1, 11))}")
    assert written["max_trials"] == 100


def test_paired_values_become_trials(folder: Path) -> None:
    pairs = "_:\n- {adapter: lora, load_in_4bit: false, base_model: acme/Little-1B}\n- {adapter: qlora, lora_r: 64, base_model: acme/Larger-7B}\n"
    written, _ = imported(QLORA, "learning_rate: [1e-4, 2e-4]\n" + pairs)
    assert written["models"] == ["acme/Little-1B@v2", "acme/Larger-7B@v2"]
    assert rows(written["trials"]) == [
        {"model": model, "learning_rate": rate, "lora_r": rank, "technique": technique}
        for rate in ("0.0001", "0.0002")
        for model, rank, technique in (("Little-1B", "32", "lora"), ("Larger-7B", "64", "qlora"))
    ]


def test_what_only_some_trials_of_a_sweep_use(folder: Path) -> None:
    text = CHAT.replace("peft_use_dora: true", "").replace("load_in_8bit: true", "")
    written, _ = imported(text, "adapter: [null, lora]\nlearning_rate: [1e-5, 1e-4]")
    assert (written["techniques"], written["learning_rate"]) == (["full", "lora"], [0.00001, 0.0001])
    assert (written["lora_r"], written["target_modules"]) == (16, "all-linear")


@pytest.mark.parametrize(
    ("text", "sweep", "message"),
    [
        ("learning_rate: 1e-4", None, "axolotl's has base_model"),
        ("base_model:\ndatasets: [{path: a.csv}]", None, "axolotl's has base_model"),
        ("- base_model", None, "expected names with values"),
        ("base_model: [", None, "neither YAML nor JSON"),
        ("base_model: !!python/object/apply:os.getcwd []", None, "neither YAML nor JSON"),
        ("base_model: acme/a\ndatasets: ../faq", None, "only training configurations can be imported"),
        ("base_model: acme/a\ndatasets: [{type: alpaca}]", None, "each with its path"),
        ("base_model: s3://bucket/a\ndatasets: [{path: a.csv}]", None, "--models: 's3://bucket/a'"),
        ("model_name_or_path: acme/a\ndataset: identiti", None, "'identiti' is not in data/dataset_info.json (did you mean identity?)"),
        ("model_name_or_path: acme/a\ndataset: script", None, "script: it is neither a file"),
        ("model_name_or_path: acme/a\nadapter_name_or_path: b\nexport_dir: c", None, "no data set"),
        (QLORA, "learning_rate: 1e-4", "list of values under each key, and a list of mappings under _; look at learning_rate"),
        (QLORA, "_: [1]", "look at _"),
        (QLORA, f"seed: {list(range(40))}\nlora_r: {list(range(1, 41))}", "1600 combinations"),
        (QLORA.replace("0.05", "0.95"), None, "--validation_fraction and --test_fraction together"),
    ],
)
def test_refusals(text: str, sweep: str | None, message: str, folder: Path) -> None:
    with pytest.raises(UsageError) as refused:
        imported(text, sweep)
    assert message in str(refused.value)
    assert not list(folder.glob("params*")), "nothing is written"


def test_dataset_info_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"dataset_info.json, which says what identity is, is in none of data, data"):
        converted(FREEZE)


def test_files_that_are_there_are_kept(folder: Path) -> None:
    Path("params.samplesheet.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"params.samplesheet.csv is there already"):
        imported(LORA)
    assert Path("params.samplesheet.csv").read_text() == "mine"
    assert not Path("params.yaml").exists()


@given(st.one_of(st.text(), st.floats(allow_nan=False), st.lists(st.text(), max_size=3)))
def test_values_are_written_as_they_are(value: Any) -> None:
    assert yaml.safe_load(f"first: 1\nvalue: {scalar(value)}  # key\nlast: 2\n") == {"first": 1, "value": value, "last": 2}


def test_no_key_breaks_out_of_its_line(folder: Path) -> None:
    hostile = {"base_model": "acme/a", "datasets": [{"path": "a.csv"}], "default_system_message": "one\ntwo: 'three' # four", "x\ny: 1": "\n- \u2028z"}
    written, report = imported(yaml.safe_dump(hostile))
    assert written["system_prompt"] == hostile["default_system_message"]
    assert set(written) == {
        "input",
        "outdir",
        "models",
        "techniques",
        "system_prompt",
        "max_length",
        "per_device_train_batch_size",
        "num_train_epochs",
        "warmup_steps",
    }
    assert "  x y: 1 (- z): LlamaFlow has no such setting" in report


@pytest.mark.parametrize(("example", "key"), [(QLORA, "curriculum_sampling"), (LORA, "disable_shuffling")])
def test_data_in_its_own_order(folder: Path, example: str, key: str) -> None:
    made = converted(f"{example}\n{key}: true\n")
    assert made.values["curriculum"] == "sequential"
    assert kinds(made)[key] == APPROXIMATED
