#!/usr/bin/env python3
"""Resolve the grid into trials: quick, without torch, and useful alone to see what a grid would cost.

plan_trials.py --dataset dataset.json --models model.json ... [--teacher model.json] [--trials trials.csv]
    < {"grid": {...}, "planning": {...}, "training": {...}, "answers": {...}, "compute": {...}, "cost": {...}}  ->  packs.jsonl  plan_trials.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamaflow.code import digest
from llamaflow.cost import Planner, examples_a_step
from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.files import read_json, short_hash, write_text
from llamaflow.grid import cells_of, refuse_unfit
from llamaflow.limits import LABELS_LISTED
from llamaflow.params import Answers, Compute, Cost, Grid, Planning, Training
from llamaflow.plan import Plan, plan_of, refuse_above_limits, table
from llamaflow.samplers import cell_of, drawn
from llamaflow.steps import read_settings, receipt
from llamaflow.store import TRAINED, Store
from llamaflow.trials import STAGES, TECHNIQUES, Trial, names_of, usual_learning_rate

FOR_THE_RUN = ("packing", "dtype", "eval_steps", "early_stopping_patience")  # one value for the run, but they decide the result
FOR_LAYERS = ("target_modules",)
OF_STAGES = {"grpo": ("reward_metrics", "answer_pattern", "answer_schema"), "distillation": ("teacher",)}
COLUMNS_OF = {"text": "text", "chat": "messages, or question and answer", "preference": "prompt, chosen and rejected"}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="dataset.json")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="model.json of every model")
    parser.add_argument("--teacher", type=Path, help="model.json of the model to learn from, for the stage distillation")
    parser.add_argument("--trials", type=Path, help="explicit trials sheet")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(models: list[dict[str, Any]], dataset: dict[str, Any], cells: list[dict[str, Any]], for_the_run: dict[str, Any]) -> list[Trial]:
    """All trials of the cells, each once, in order. A cell maps `model`, `technique` and hyperparameters to values."""
    by_id = {model["id"]: model for model in models}
    trials = (resolve(by_id[cell["model"]], dataset, cell, for_the_run) for cell in cells)
    unique = list({trial.model_dump_json(): trial for trial in trials}.values())
    return [trial.named() for trial in unique]


def resolve(model: dict[str, Any], dataset: dict[str, Any], cell: dict[str, Any], for_the_run: dict[str, Any]) -> Trial:
    """One cell of the grid as a trial with exactly the hyperparameters that its technique uses."""
    stage, technique = cell["stage"], cell["technique"]
    hyperparameters = {name: cell[name] for name in names_of(stage, technique)}
    if hyperparameters["learning_rate"] == "auto":
        hyperparameters["learning_rate"] = model.get("learning_rate", usual_learning_rate(stage, technique))  # a model drawn anew has its own
    kind = TECHNIQUES[technique].trains
    used = (*FOR_THE_RUN, *(FOR_LAYERS if kind == "layers" else ()), *(OF_STAGES.get(stage, ())))
    hyperparameters |= {name: for_the_run[name] for name in used}
    if kind == "prompt" or stage != "sft":
        hyperparameters["packing"] = False  # every text has virtual tokens before it; TRL lays examples out in its own ways
    identity, data = {name: model[name] for name in ("id", "source", "revision", "sha256")}, {"sha256": dataset["sha256"]}
    if stage == "classification":
        data["labels"] = labels_of(dataset)
    return Trial(model=identity, data=data, technique=technique, hyperparameters=hyperparameters)


def identity_of(teacher: Path | None) -> dict[str, Any] | None:
    return {name: read_json(teacher)[name] for name in ("source", "revision", "sha256")} if teacher else None


def labels_of(dataset: dict[str, Any]) -> list[str]:
    """What a classifier chooses from. Raises UsageError if there is no choice, or not every record has a label."""
    labels, records = dataset["labels"], sum(dataset["splits"].values())
    labelled = sum(sum(counts.values()) for counts in labels.values())
    if len(labels) < 2 or labelled < records:
        raise UsageError(
            f"--stage classification needs a label for every record, of at least 2 and at most {LABELS_LISTED} kinds: {labelled} of {records} have one, of {len(labels)} kinds. "
            "Give a column label, or --stage sft, which learns to write answers."
        )
    return sorted(labels)


def refuse_unfit_data(trials: list[Trial], dataset: dict[str, Any]) -> None:
    """Raise UsageError if a stage cannot learn from the records that there are."""
    for stage in dict.fromkeys(trial.stage for trial in trials):
        if unfit := sorted(set(dataset["types"]) - set(STAGES[stage].needs)):
            raise UsageError(
                f"--stage {stage} learns from {' or '.join(STAGES[stage].needs)} records ({', '.join(COLUMNS_OF[kind] for kind in STAGES[stage].needs)}), "
                f"but the data hold {' and '.join(unfit)} records. Give other data, or another stage: sft learns from all."
            )


def packs_of(trials: list[Trial], size: int) -> list[list[Trial]]:
    """Trials that train in one task, at most `size`."""
    together: dict[str, list[Trial]] = {}
    for trial in trials:
        together.setdefault(trial.pack, []).append(trial)
    return [group[start : start + size] for group in together.values() for start in range(0, len(group), size)]


def refuse_apart(trials: list[Trial], processes: int) -> None:
    """Raise UsageError if a technique or an order trains in one process only, or the examples of a step cannot be shared out over several."""
    if processes > 1 and (lone := sorted({trial.technique for trial in trials if not trial.traits.all_stages})):
        raise UsageError(f"--techniques {', '.join(lone)} trains in one process, not in --num_processes {processes}")
    if processes > 1 and (ordered := sorted({trial.hyperparameters.get("curriculum", "none") for trial in trials} - {"none"})):
        raise UsageError(f"--curriculum {', '.join(ordered)} orders the examples of one process, not of --num_processes {processes}")
    if uneven := sorted({examples_a_step(trial) for trial in trials if examples_a_step(trial) % processes}):
        raise UsageError(
            f"--num_processes {processes}: the {', '.join(map(str, uneven))} examples of a step (--per_device_train_batch_size times "
            f"--gradient_accumulation_steps) cannot be shared out evenly. Give a multiple of {processes}."
        )


Rivals = tuple[str, str]  # model and stage: the trials whose validation losses can be compared


def halving_groups(trials: list[Trial], training: Training) -> dict[Rivals, str]:
    """With successive halving, a name for the trials that compete. Raises UsageError if one has nobody to compete with."""
    if training.scheduler != "halving":
        return {}
    rivals: dict[Rivals, list[str]] = {}
    for trial in trials:
        rivals.setdefault((trial.model["id"], trial.stage), []).append(trial.trial_id)
    if single := [f"{stage} of {model}" for (model, stage), ids in rivals.items() if len(ids) == 1]:
        raise UsageError(
            f"--scheduler halving: {', '.join(single)} has only 1 trial, and halving compares trials. Give several learning rates, or --scheduler none."
        )
    return {of: short_hash(sorted(ids)) for of, ids in rivals.items()}


def refuse_no_rung(plan: Plan, training: Training) -> None:
    """Raise UsageError if every trial is at its end before halving would begin."""
    most = max(trial["steps"] for trial in plan["trials"].values())
    if training.scheduler == "halving" and most <= training.halving_min_steps:
        raise UsageError(
            f"--halving_min_steps {training.halving_min_steps}: the trials take {most} steps at most, so that halving would stop none. "
            f"Give {max(1, most // 4)}, or more epochs."
        )


def line_of(pack: list[Trial], tokenizers: dict[str, str], groups: dict[Rivals, str]) -> str:
    """One line of packs.jsonl: the trials of a task, the tokens that they need, and with whom they compete."""
    model, length = pack[0].model["id"], pack[0].hyperparameters["max_length"]
    tokens = f"{length}-{short_hash(tokenizers[model])}"
    name = pack[0].trial_id if len(pack) == 1 else f"{model}-{len(pack)}-trials-{short_hash([trial.trial_id for trial in pack])}"
    content = {"id": name, "model": model, "tokens": tokens, "max_length": length, "grid": groups.get((model, pack[0].stage))}
    return json.dumps(content | {"trials": [trial.model_dump() for trial in pack]}, sort_keys=True) + "\n"


def refuse_missing_template(models: list[dict[str, Any]], dataset: dict[str, Any]) -> None:
    without = [model["id"] for model in models if not model["chat_template"]]
    if without and set(dataset["types"]) - {"text"}:
        raise UsageError(
            f"the data are conversations, but {', '.join(without)} has no chat template. Use the instruct variant of the model, or give a template with --chat_template my_template.jinja."
        )


def drawn_cells(
    grid: Grid, planning: Planning, models: list[dict[str, Any]], dataset: dict[str, Any], for_the_run: dict[str, Any], store: Store
) -> list[dict[str, Any]]:
    """The cells that a sampler draws for each model. Before Optuna's come those that are finished: it learns from them, and the new ones compete with them."""
    cells, code = [], digest("train_trials")
    for model in models:
        finished = []
        for trial, counts in store.trained() if planning.sampler == "optuna" else ():
            cell = cell_of(grid, trial) if trial.model["id"] == model["id"] else None
            if cell and resolve(model, dataset, cell, for_the_run).named() == trial and store.find(trial.trial_id, TRAINED, code):
                finished.append((cell, counts.get("validation_loss")))
        cells += [cell for cell, _ in finished] + drawn(grid, planning, model["id"], finished)
    return cells


def planned(packs: list[list[Trial]], models: list[dict[str, Any]], dataset: dict[str, Any], store: Store, settings: dict[str, Any]) -> Plan | None:
    """What the packs will take; None if model.json does not tell the sizes of a model, as in a stub run."""
    if not all("layers" in model for model in models):
        return None
    cost, training = Cost.model_validate(settings.get("cost", {})), Training.model_validate(settings.get("training", {}))
    planner = Planner({model["id"]: model for model in models}, dataset, cost, store, digest("train_trials"))
    plan = plan_of([estimate for pack in packs for estimate in planner.estimate(pack)], planner.speeds(packs), cost, training)
    print(table(plan), flush=True)
    refuse_no_rung(plan, training)
    refuse_above_limits(plan, cost)
    return plan


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    grid, planning = Grid.model_validate(given.get("grid", {})), Planning.model_validate(given.get("planning", {}))
    training, compute = Training.model_validate(given.get("training", {})), Compute.model_validate(given.get("compute", {}))
    with receipt("plan_trials", given, args.outdir) as written:
        models = sorted((read_json(path) for path in args.models), key=lambda model: str(model["id"]))
        dataset = read_json(args.dataset)
        refuse_missing_template(models, dataset)
        answers = Answers.model_validate(given.get("answers", {}))
        store, for_the_run = Store(compute.checkpoint_dir), {**dict(training), **dict(compute), **dict(answers), "teacher": identity_of(args.teacher)}
        cells = cells_of(grid, planning, [model["id"] for model in models], args.trials)
        if not cells:
            cells = refuse_unfit(drawn_cells(grid, planning, models, dataset, for_the_run, store))
        trials = run(models, dataset, cells, for_the_run)
        refuse_unfit_data(trials, dataset)
        refuse_apart(trials, compute.num_processes)
        groups = halving_groups(trials, training)
        packs = packs_of(trials, planning.trials_per_task if compute.num_processes == 1 else 1)
        written.counts = {"cells": len(cells), "trials": len(trials), "packs": len(packs)}
        if plan := planned(packs, models, dataset, store, given):
            written.counts["plan"] = plan
        else:
            print(*(trial.trial_id for trial in trials), sep="\n")
        tokenizers = {model["id"]: model["tokenizer_sha256"] for model in models}
        write_text(args.outdir / "packs.jsonl", "".join(line_of(pack, tokenizers, groups) for pack in packs))


if __name__ == "__main__":
    main()
