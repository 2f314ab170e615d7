"""Validating parameters: every fault at once, in the words of the user's own file or command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamaflow.data_params import Cleaning, Splitting
from llamaflow.errors import UsageError
from llamaflow.params import GROUP_OF, GROUPS, Answers, Compute, Grid, Params, Scratch, Training

NEEDED = {"pattern": "answer_pattern", "json_schema": "answer_schema"}  # measures of answers, and the parameter without which they measure nothing


def resolve(values: Mapping[str, Any]) -> Params:
    """Validate a flat mapping of parameters; an empty value means the default.

    Raises UsageError that lists every fault at once: the name as typed, what was found, what is allowed.
    """
    problems = [_unknown(name) for name in values if name not in GROUP_OF and not _is_echo(name, values)]
    groups: dict[str, Any] = {}
    for group, model in GROUPS.items():
        given = {name: values[name] for name in model.model_fields if values.get(name) not in (None, "")}
        try:
            groups[group] = model.model_validate(given)
        except ValidationError as error:
            problems += describe(error)
    problems += _contradictions(groups)
    if problems:
        raise UsageError(
            f"{len(problems)} of the parameters cannot be used:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nSee docs/parameters.md, or run with --help."
        )
    return Params(**groups)


def _contradictions(groups: Mapping[str, Any]) -> list[str]:
    """What each group allows but not both together; groups that have faults of their own are left out."""
    problems = _faults_of_data(groups.get("cleaning"), groups.get("splitting"))
    grid, evaluation, answers, gate = (groups.get(name) for name in ("grid", "evaluation", "answers", "gate"))
    if evaluation and gate:
        measured = _measured(grid.stage if grid else (), evaluation.metrics)
        if gate.gate_metric not in measured:
            problems.append(
                f"--gate_metric: {gate.gate_metric!r} is not measured: it must be one of {', '.join(measured)}{nearest(gate.gate_metric, measured)}"
            )
    if answers:
        problems += _faults_of_answers(answers, evaluation.metrics if evaluation else ())
    if grid and (scratch := groups.get("scratch")):
        problems += _faults_of_scratch(scratch, grid)
    if grid and (models := groups.get("models")) and (models.teacher_model is not None) != ("distillation" in grid.stage):
        problems.append("--teacher_model and --stage distillation need each other: the stage learns from that model, and no other does")
    if compute := groups.get("compute"):
        problems += _faults_of_processes(compute, groups.get("training"))
    planning, cost = groups.get("planning"), groups.get("cost")
    if planning and planning.trials and planning.sampler != "grid":
        problems.append(f"--trials and --sampler {planning.sampler} cannot be combined: the sheet lists every trial, and leaves nothing to draw")
    if cost and cost.max_cost is not None and cost.price_per_hour is None:
        problems.append("--max_cost needs --price_per_hour: without a price nothing has a cost")
    return problems


def _faults_of_data(cleaning: Cleaning | None, splitting: Splitting | None) -> list[str]:
    faults = []
    if cleaning and cleaning.has_token_bounds and cleaning.tokenizer is None:
        faults.append("--min_tokens and --max_tokens need --tokenizer, the model whose tokenizer is to count: each makes another number of tokens of a text")
    if splitting and splitting.validation_fraction + splitting.test_fraction >= 1:
        faults.append("--validation_fraction and --test_fraction together must stay below 1, or nothing is left to train on")
    return faults


def _measured(stages: Sequence[str], metrics: Sequence[str]) -> tuple[str, ...]:
    """What gate_metric may be, since all trials have it: those with a head write no text whose perplexity or answers could be measured."""
    if "reward" in stages:
        return ("auto", "preference_accuracy")
    of_texts = () if "classification" in stages else ("perplexity", "preference_accuracy")
    return ("auto", *of_texts, "accuracy", "macro_f1", *(Path(metric).stem for metric in metrics))


def _faults_of_scratch(scratch: Scratch, grid: Grid) -> list[str]:
    if not scratch.from_scratch:
        return ["--config_overrides needs --from_scratch: what is fine-tuned keeps its sizes"] if scratch.config_overrides else []
    return faults_from_scratch(grid.techniques, grid.stage)


def faults_from_scratch(techniques: Iterable[str], stages: Iterable[str]) -> list[str]:
    """Faults, if any, of what is to be trained from scratch."""
    faults = []
    if set(techniques) - {"full"}:
        faults.append("--from_scratch needs --techniques full: there is nothing yet to keep, and adapters would only add to random weights")
    if others := set(stages) - {"sft", "classification"}:
        faults.append(
            f"--from_scratch and --stage {', '.join(sorted(others))} cannot be combined, since that begins with a model that can write: sft or classification does not"
        )
    return faults


def _faults_of_processes(compute: Compute, training: Training | None) -> list[str]:
    if compute.num_processes == 1:
        return [f"--num_machines {compute.num_machines} needs as many --num_processes, at least"] if compute.num_machines > 1 else []
    faults = []
    if compute.num_processes % compute.num_machines:
        faults.append(f"--num_processes {compute.num_processes} cannot be shared out evenly over --num_machines {compute.num_machines}")
    if training and training.early_stopping_patience and compute.parallelism != "ddp":
        faults.append("--early_stopping_patience keeps the best weights, which no process holds whole: use --parallelism ddp, or leave it out")
    return faults


def _faults_of_answers(answers: Answers, metrics: Sequence[str]) -> list[str]:
    faults = []
    try:
        re.compile(answers.answer_pattern or "")
    except (re.error, RecursionError, OverflowError) as error:
        faults.append(f"--answer_pattern: {answers.answer_pattern!r} is no regular expression: {error}")
    for parameter, named in (("metrics", metrics), ("reward_metrics", answers.reward_metrics)):
        faults += [f"--{parameter} {metric} needs --{needed}" for metric, needed in NEEDED.items() if metric in named and getattr(answers, needed) is None]
    return faults


def describe(error: ValidationError, prefix: str = "--") -> list[str]:
    """One line a fault of a validation, with the name of the field."""
    lines: dict[tuple[int | str, ...], str] = {}
    for fault in error.errors():
        place = fault["loc"]
        if not place:  # what fits together and what does not; the values may hold a password
            lines[place] = _reason(fault)
            continue
        name = f"{prefix}{place[0]}: "
        if fault["type"] == "missing":
            lines[place[:1]] = f"{name}is required"
        elif fault["type"] == "literal_error" and place[:2] in lines:
            lines[place[:2]] += f", or {fault['ctx']['expected']}"  # a number or "auto"
        else:
            lines[place[:2]] = f"{name}{_shown(fault['input'])} is not accepted: {_reason(fault)}"
    return list(lines.values())


def _reason(fault: Any) -> str:
    reason = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if fault["type"] == "literal_error":
        reason += nearest(str(fault["input"]), [word.strip("' ") for word in fault["ctx"]["expected"].replace(" or ", ",").split(",")])
    return reason


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_echo(name: str, values: Mapping[str, Any]) -> bool:
    """Nextflow gives --foo-bar twice, as foo-bar and as fooBar: keep the one that was typed."""
    return "-" not in name and any("-" in other and other.replace("-", "").lower() == name.lower() for other in values)


def _unknown(name: str) -> str:
    return f"--{name}: there is no such parameter" + nearest(name, GROUP_OF)


def nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
