"""Parameters: typed once, refused all at once, and by the name that was typed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
from tiny import ROOT

from llamaflow.errors import UsageError
from llamaflow.params import GROUPS, Grid, Params
from llamaflow.validation import resolve

REQUIRED = {"input": "data.jsonl", "outdir": "results", "models": "owner/name"}


def refusal(**values: Any) -> list[str]:
    """The faults that a set of parameters is refused for."""
    with pytest.raises(UsageError) as refused:
        resolve(REQUIRED | values)
    first, *faults, last = str(refused.value).splitlines()
    assert first == f"{len(faults)} of the parameters cannot be used:"
    assert "--help" in last
    return [fault.strip() for fault in faults]


def test_every_fault_at_once_by_the_name_that_was_typed() -> None:
    faults = refusal(
        input=None,
        modles="x",
        techniques="lora,loar",
        learning_rate="1e-4,fast",
        max_length="4",
        max_trials="many",
        dtype="float16",
        validation_fraction=0.6,
        test_fraction="0.5",
        gate_metric="rouge",
    )
    assert [fault.split(":")[0] for fault in faults] == [
        "--modles",
        "--input",
        "--techniques",
        "--learning_rate",
        "--max_length",
        "--max_trials",
        "--dtype",
        "--validation_fraction and --test_fraction together must stay below 1, or nothing is left to train on",
        "--gate_metric",
    ]
    assert faults[0].endswith("there is no such parameter (did you mean models?)")
    assert faults[1] == "--input: is required"
    assert "'loar' is not accepted" in faults[2]
    assert faults[2].endswith("(did you mean lora?)")
    assert "'fast' is not accepted: should be a valid number" in faults[3]
    assert faults[3].endswith("or 'auto'")
    assert faults[4] == "--max_length: '4' is not accepted: should be greater than or equal to 8"
    assert faults[8].endswith("(did you mean rouge_l?)")


def test_several_faults_of_one_parameter() -> None:
    assert len(refusal(lora_r="8,x,0")) == 2


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ({"learning_rate": "1e-4, 2e-4,auto"}, {"learning_rate": [1e-4, 0.0002, "auto"]}),
        ({"techniques": "lora,full"}, {"techniques": ["lora", "full"]}),
        ({"lora_r": "8,16"}, {"lora_r": [8, "16"]}),
        ({"lora_r": "8"}, {"lora_r": 8}),
        ({"models": "a/b, ./c ,"}, {"models": ["a/b", "./c"]}),
        ({"warmup_steps": "0,10,0.1"}, {"warmup_steps": [0, 10, 0.1]}),
    ],
)
def test_comma_strings_are_lists(text: dict[str, Any], values: dict[str, Any]) -> None:
    assert resolve(REQUIRED | text) == resolve(REQUIRED | values)


def test_numbers_may_be_strings_and_strings_numbers() -> None:
    params = resolve(
        REQUIRED | {"max_trials": "5", "learning_rate": "2e-5", "gate_min_gain": "0.01", "release_version": 1.0, "release_name": 2026, "packing": "false"}
    )
    assert params.planning.max_trials == 5
    assert params.grid.learning_rate == (2e-5,)
    assert params.gate.gate_min_gain == 0.01
    assert (params.export.release_version, params.export.release_name) == ("1.0", "2026")
    assert params.training.packing is False


def test_empty_means_default() -> None:
    names = [name for model in GROUPS.values() for name, field in model.model_fields.items() if not field.is_required()]
    assert len(names) > 40
    default = resolve(REQUIRED)
    assert resolve(REQUIRED | dict.fromkeys(names)) == resolve(REQUIRED | dict.fromkeys(names, "")) == default
    assert default.grid == Grid()


def test_a_name_without_a_value() -> None:
    faults = refusal(lora_r=True, max_eval_rows=True, release_version=True)
    assert [fault.split(":")[0] for fault in faults] == ["--lora_r", "--max_eval_rows", "--release_version"]
    assert all("value is missing" in fault for fault in faults)
    assert resolve(REQUIRED | {"trust_remote_code": True}).models.trust_remote_code is True


@pytest.mark.parametrize("value", ["inf", "nan", float("inf")])
def test_infinity_is_no_number(value: Any) -> None:
    assert len(refusal(max_grad_norm=value)) == 1


def test_dashes_are_reported_once_as_typed() -> None:
    assert refusal(**{"learning-rate": 1e-4, "learningRate": 1e-4}) == ["--learning-rate: there is no such parameter (did you mean learning_rate?)"]
    assert refusal(learningRate=1e-4) == ["--learningRate: there is no such parameter (did you mean learning_rate?)"]


def test_gate_metric_is_one_that_is_measured() -> None:
    assert resolve(REQUIRED | {"metrics": "my/own_score.py,bleu", "gate_metric": "own_score"}).gate.gate_metric == "own_score"
    for measured in ("auto", "perplexity", "accuracy", "macro_f1"):
        assert resolve(REQUIRED | {"gate_metric": measured}).gate.gate_metric == measured
    assert "not measured" in refusal(metrics="bleu", gate_metric="rouge_l")[0]


def test_gate_metric_is_one_that_every_stage_of_the_grid_measures() -> None:
    assert resolve(REQUIRED | {"stage": "sft,dpo", "gate_metric": "preference_accuracy"}).gate.gate_metric == "preference_accuracy"
    assert refusal(stage="reward", gate_metric="rouge_l") == ["--gate_metric: 'rouge_l' is not measured: it must be one of auto, preference_accuracy"]
    assert "'perplexity' is not measured" in refusal(stage="sft,classification", gate_metric="perplexity")[0]
    assert resolve(REQUIRED | {"stage": "classification", "gate_metric": "exact_match"})


def test_answers_that_can_be_checked() -> None:
    given = {"metrics": "pattern,bleu", "reward_metrics": "json_schema", "answer_pattern": r"(\d+)", "answer_schema": "{}"}
    assert resolve(REQUIRED | given).answers.reward_metrics == ("json_schema",)
    assert refusal(metrics="pattern,bleu", reward_metrics="pattern,json_schema") == [
        "--metrics pattern needs --answer_pattern",
        "--reward_metrics pattern needs --answer_pattern",
        "--reward_metrics json_schema needs --answer_schema",
    ]
    assert refusal(answer_pattern="(a") == ["--answer_pattern: '(a' is no regular expression: missing ), unterminated subpattern at position 0"]


def test_ranges() -> None:
    given = {"learning_rate": "1e-5..1e-3", "lora_r": ["4..64"], "sampler": "optuna"}
    assert resolve(REQUIRED | given) == resolve(REQUIRED | given | {"learning_rate": ["1e-5..1e-3"], "lora_r": "4..64"})
    faults = refusal(learning_rate="1e-3..2", lora_r="8..4,16", techniques="lora..full")
    assert faults[0].startswith("--techniques: 'lora..full' is not accepted: should be ")
    assert faults[1:] == [
        "--learning_rate: '2' is not accepted: should be less than or equal to 1, or 'auto'",
        "--lora_r: '8..4' is not accepted: a range is written low..high, with two numbers, the smaller one first",
    ]
    assert refusal(trials="trials.csv", sampler="random") == [
        "--trials and --sampler random cannot be combined: the sheet lists every trial, and leaves nothing to draw"
    ]


def test_a_cost_needs_a_price() -> None:
    assert refusal(max_cost=5) == ["--max_cost needs --price_per_hour: without a price nothing has a cost"]
    assert resolve(REQUIRED | {"max_cost": "5", "price_per_hour": "0.5", "max_hours": 0}).cost.max_hours == 0


def test_no_name_is_in_two_groups() -> None:
    names = [name for model in GROUPS.values() for name in model.model_fields]
    assert len(names) == len(set(names))
    assert set(GROUPS) == set(Params.model_fields)


def test_generated_files_are_up_to_date() -> None:
    made = subprocess.run([sys.executable, str(ROOT / "scripts/generate.py"), "--check"], capture_output=True, text=True)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


def test_generated_files_that_are_stale_are_named(tmp_path: Any) -> None:
    for directory in ("bin/llamaflow", "scripts", "n8n/workflows"):
        shutil.copytree(ROOT / directory, tmp_path / directory, ignore=shutil.ignore_patterns("__pycache__"))
    script = [sys.executable, str(tmp_path / "scripts/generate.py")]
    assert subprocess.run(script).returncode == 0
    with (tmp_path / "nextflow_schema.json").open("a") as file:
        file.write(" ")
    made = subprocess.run([*script, "--check"], capture_output=True, text=True)
    assert made.returncode == 1
    assert made.stdout.splitlines() == ["nextflow_schema.json is not up to date: run `make generate`"]


def test_the_launch_form_says_which_parameters_make_the_grid_larger() -> None:
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    helps = {name: prop.get("help_text", "") for group in schema["$defs"].values() for name, prop in group["properties"].items()}
    assert {name for name, text in helps.items() if "adds to the grid" in text} == {"models", *Grid.model_fields}


def test_defaults_of_the_launch_form_are_the_defaults() -> None:
    """What Nextflow would hand over untouched: comma strings and all."""
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    form = {name: prop.get("default") for group in schema["$defs"].values() for name, prop in group["properties"].items()}
    assert resolve(form | REQUIRED) == resolve(REQUIRED)
