"""Trials that are drawn instead of all being made: by chance, or as Optuna suggests after the validation losses of earlier ones.

The same parameters, seed and earlier trials give the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamaflow.choices import Range
from llamaflow.errors import UsageError
from llamaflow.params import Grid, Planning
from llamaflow.trials import Trial, names_of, usual_learning_rate

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

ATTEMPTS = 20  # draws for each trial that is wanted: what was drawn or finished before is drawn again

Cell = dict[str, Any]
Finished = tuple[Cell, float | None]  # with its validation loss; None if it failed


def drawn(grid: Grid, planning: Planning, model: str, finished: Sequence[Finished]) -> list[Cell]:
    """New cells of a model, planning.samples of them or as many as there are. Raises UsageError if there is none."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler if planning.sampler == "optuna" else optuna.samplers.RandomSampler
    study, space = optuna.create_study(sampler=sampler(seed=planning.sampler_seed)), space_of(grid)
    for cell, loss in finished:
        tell(study, space, cell, loss)
    known, cells = {tuple(cell.items()) for cell, _ in finished}, list[Cell]()
    for _ in range(planning.samples * ATTEMPTS):
        asked = study.ask(space)
        cell = cell_from(grid, model, asked.params)
        if tuple(cell.items()) in known:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            continue
        known.add(tuple(cell.items()))
        cells.append(cell)
        if len(cells) == planning.samples:
            break
    if not cells:
        raise UsageError(
            f"--sampler {planning.sampler}: all combinations that the parameters allow have been tried with {model}. Give more values or wider ranges."
        )
    return cells


def space_of(grid: Grid) -> dict[str, BaseDistribution]:
    """What there is to choose: every parameter with several values or a range."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, BaseDistribution] = {}
    for name, values in grid:
        if isinstance(values[0], Range):
            kind: Any = IntDistribution if isinstance(values[0].low, int) else FloatDistribution
            space[name] = kind(values[0].low, values[0].high, log=values[0].is_logarithmic)
        elif len(values) > 1:
            space[name] = CategoricalDistribution(values)
    return space


def cell_from(grid: Grid, model: str, chosen: dict[str, Any]) -> Cell:
    """The cell of what was chosen: of the hyperparameters those that its technique uses."""

    def value_of(name: str) -> Any:
        first = getattr(grid, name)[0]
        value = chosen.get(name, first)
        return first.rounded(value) if isinstance(first, Range) else value

    technique = value_of("techniques")
    return {"model": model, "technique": technique, **{name: value_of(name) for name in names_of(value_of("stage"), technique)}}


def tell(study: Study, space: dict[str, BaseDistribution], cell: Cell, loss: float | None) -> None:
    """Let a study learn from a finished trial; a failed one counts as worse than all others."""
    from optuna import create_trial
    from optuna.trial import TrialState

    known = {("techniques" if name == "technique" else name): value for name, value in cell.items()}
    chosen = {name: known[name] for name in space if name in known}
    state = TrialState.PRUNED if loss is None else TrialState.COMPLETE
    study.add_trial(create_trial(state=state, value=loss, params=chosen, distributions={name: space[name] for name in chosen}))


def cell_of(grid: Grid, trial: Trial) -> Cell | None:
    """The cell that a trial came from, if it lies within the grid."""
    names = names_of(trial.stage, trial.technique)
    cell = {"model": trial.model["id"], "technique": trial.technique, **{name: trial.hyperparameters.get(name) for name in names}}
    if "auto" in grid.learning_rate and cell["learning_rate"] == usual_learning_rate(trial.stage, trial.technique):
        cell["learning_rate"] = "auto"
    inside = trial.technique in grid.techniques and all(_allows(getattr(grid, name), cell[name]) for name in names)
    return cell if inside else None


def _allows(values: tuple[Any, ...], value: Any) -> bool:
    return value in (values[0] if isinstance(values[0], Range) else values)
