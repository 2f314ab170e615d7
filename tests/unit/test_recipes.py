"""Recipes: each is accepted, plans what its name says, and nothing in it is without effect; what it says of the data is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from record_files import encoded
from record_files import rows as records_in
from tiny import ROOT, Lab, counts, run_step, with_values

import check_params
from llamaflow.params import Grid, Stage, Technique
from llamaflow.trials import STAGES, Trial
from llamaflow.validation import resolve

RECIPES = {path.stem: path for path in sorted((ROOT / "assets/recipes").glob("*.yaml"))}
TECHNIQUE_OF = {name: name for name in get_args(Technique)} | {"qlora_8bit": "qlora", "from_scratch": "full"}
STAGE_OF = {name: name for name in get_args(Stage)}
OTHERS = {"continued_pretraining"}
ROWS = 60


@pytest.fixture(scope="module", params=RECIPES)
def name(request: pytest.FixtureRequest) -> str:
    """The recipe."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def dataset(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of rows as the recipe shows one."""
    return dataset_of(row_of(name), tmp_path_factory.mktemp(name))


def values_of(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    return values


def row_of(name: str) -> dict[str, Any]:
    """The row of data that a recipe shows."""
    (line,) = (line for line in RECIPES[name].read_text(encoding="utf-8").splitlines() if line.startswith("#   {"))
    row: dict[str, Any] = json.loads(line.removeprefix("#"))
    return row


def numbered(value: Any, number: int) -> Any:
    """The same text, another one for each number; a list of messages alike."""
    if isinstance(value, list):
        return [message | {"content": f"{message['content']} {number}"} for message in value]
    return f"{value} {number}" if isinstance(value, str) else value


def dataset_of(row: dict[str, Any], folder: Path) -> Path:
    """A data set of rows like this one, of two labels if it has one."""
    rows = [{column: numbered(value, number) for column, value in row.items()} for number in range(ROWS)]
    for number, made in enumerate(rows):
        if "label" in row:
            made["label"] = row["label"] if number % 2 else not row["label"] if isinstance(row["label"], bool) else "other"
    (folder / "rows.jsonl").write_bytes(encoded(rows, "jsonl"))
    run_step("collect_source", ["--path", folder / "rows.jsonl", "--outdir", folder], {"source": {"id": "rows", "path": "rows.jsonl"}})
    assert len(records_in(folder / "collected.parquet")) == ROWS
    run_step("split_dataset", ["--records", folder / "collected.parquet", "--outdir", folder], {"splitting": {}})
    return folder / "dataset"


def test_every_technique_and_every_stage_has_its_recipe() -> None:
    assert set(RECIPES) == {*TECHNIQUE_OF, *STAGE_OF, *OTHERS}


def planned_trials(name: str, lab: Lab, dataset: Path, folder: Path) -> list[dict[str, Any]]:
    settings = check_params.run(values_of(name), None, None, None)["settings"]["plan_trials"]
    args = ["--dataset", dataset / "dataset.json", "--models", lab.model / "model.json", "--outdir", folder]
    run_step("plan_trials", [*args, *(["--teacher", lab.model / "model.json"] if name == "distillation" else [])], settings)
    packs = [json.loads(line) for line in (folder / "packs.jsonl").read_text(encoding="utf-8").splitlines()]
    return [trial for pack in packs for trial in pack["trials"]]


def test_a_recipe_plans_what_its_name_says(name: str, lab: Lab, dataset: Path, tmp_path: Path) -> None:
    values = values_of(name)
    trials = [Trial.model_validate(trial) for trial in planned_trials(name, lab, dataset, tmp_path)]
    assert {trial.stage for trial in trials} == {STAGE_OF.get(name, "sft")}
    assert TECHNIQUE_OF.get(name, trials[0].technique) in {trial.technique for trial in trials}
    planned = {field: {trial.hyperparameters.get(field) for trial in trials} for field in values if field in Grid.model_fields}
    planned["techniques"] = {trial.technique for trial in trials}
    wanted = {field: set(found) for field, found in resolve(values).grid if field in values and found != ("auto",)}
    assert {field: planned[field] for field in wanted} == wanted, "each value that the recipe gives is tried"


def test_the_row_that_a_recipe_shows_is_what_its_stage_learns_from(name: str, dataset: Path) -> None:
    types = set(json.loads((dataset / "dataset.json").read_text())["types"])
    stage = STAGE_OF.get(name, "sft")
    assert types <= set(STAGES[stage].needs)
    assert (types == {"text"}) == (name in ("continued_pretraining", "from_scratch"))


@pytest.mark.slow
def test_a_recipe_trains(name: str, lab: Lab, dataset: Path, tmp_path: Path) -> None:
    """As it stands, but for what a model of 256 positions and a test of seconds cannot have."""
    other = Lab(lab.model, dataset, tmp_path)
    small = {"max_length": 96, "num_train_epochs": 0.2, "gradient_accumulation_steps": 1, "dtype": "float32"}
    trial = planned_trials(name, lab, dataset, tmp_path)[0]
    small |= {field: 4 for field in ("num_generations", "max_completion_length") if field in trial["hyperparameters"]}
    (trained,) = other.train([with_values(trial, **small)], tmp_path, teacher=lab.model if name == "distillation" else None)
    assert counts(trained)["status"] == "finished"
    assert (trained / "adapter").is_dir() or (trained / "model").is_dir()
