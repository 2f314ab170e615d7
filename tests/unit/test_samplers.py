"""Drawn trials: seeded, new, within what the parameters allow, and better for what was learnt."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llamaflow.errors import UsageError
from llamaflow.params import Grid, Planning
from llamaflow.samplers import Cell, Finished, cell_of, drawn
from llamaflow.trials import Trial, names_of

SPACE = {"techniques": "full,lora", "learning_rate": "1e-5..1e-2", "lora_r": "4..64", "lora_dropout": "0..0.2", "lr_scheduler_type": "linear,cosine"}


def draw(space: dict[str, Any] | None = None, sampler: str = "random", samples: int = 8, seed: int = 1, finished: tuple[Finished, ...] = ()) -> list[Cell]:
    planning = Planning.model_validate({"sampler": sampler, "samples": samples, "sampler_seed": seed})
    return drawn(Grid.model_validate(space or SPACE), planning, "tiny", finished)


@pytest.mark.parametrize("sampler", ["random", "optuna"])
def test_the_seed_decides(sampler: str) -> None:
    assert draw(sampler=sampler) == draw(sampler=sampler)
    assert draw(sampler=sampler) != draw(sampler=sampler, seed=2)
    assert draw(sampler=sampler, samples=12)[:8] == draw(sampler=sampler), "more of them begin with the same"


@pytest.mark.parametrize("sampler", ["random", "optuna"])
def test_what_is_drawn_is_allowed(sampler: str) -> None:
    cells = draw(sampler=sampler, samples=60)
    assert len({tuple(cell.items()) for cell in cells}) == 60
    for cell in cells:
        assert set(cell) == {"model", "technique", *names_of(cell["stage"], cell["technique"])}
        assert 1e-5 <= cell["learning_rate"] <= 1e-2
        assert len(f"{cell['learning_rate']:.10g}".lstrip("0.").split("e")[0].replace(".", "")) <= 3
        if cell["technique"] == "lora":
            assert isinstance(cell["lora_r"], int)
            assert 4 <= cell["lora_r"] <= 64
            assert 0 <= cell["lora_dropout"] <= 0.2
            assert cell["lora_alpha"] == 32.0
    assert {cell["technique"] for cell in cells} == {"full", "lora"}
    assert {cell["lr_scheduler_type"] for cell in cells} == {"linear", "cosine"}
    assert 15 <= sum(cell["learning_rate"] < 10**-3.5 for cell in cells) <= 45, "each order of magnitude has its share"


def test_when_there_are_fewer_than_wanted_all_are_drawn() -> None:
    space = {"techniques": "full,lora", "lora_r": "8,16", "seed": "1,2"}
    found = [(cell["technique"], cell.get("lora_r"), cell["seed"]) for cell in draw(space, samples=16)]
    assert sorted(found, key=str) == sorted([("full", None, 1), ("full", None, 2), *(("lora", r, seed) for r in (8, 16) for seed in (1, 2))], key=str)


def test_what_is_finished_is_not_drawn_again() -> None:
    space = {"lora_r": "8,16,32"}
    first, *others = draw(space, "optuna", 3)
    found = draw(space, "optuna", 3, finished=((first, 1.0),))
    assert sorted(cell["lora_r"] for cell in found) == sorted(cell["lora_r"] for cell in others)
    with pytest.raises(UsageError, match="all combinations that the parameters allow have been tried with tiny"):
        draw(space, "optuna", finished=tuple((cell, 1.0) for cell in (first, *others)))


def test_a_round_that_was_cut_short_goes_on_with_what_it_had_drawn() -> None:
    cells = draw(sampler="optuna", samples=8)
    again = draw(sampler="optuna", samples=5, finished=tuple((cell, 1.0) for cell in cells[:3]))
    assert again == cells[3:]


def test_optuna_learns_from_what_is_finished() -> None:
    """On a loss with its minimum at a learning rate of 3e-4, later rounds come closer than the first; chance does not."""
    finished: tuple[Finished, ...] = ()
    distances = []
    for _ in range(5):
        cells = draw({"learning_rate": "1e-5..1e-2"}, "optuna", 8, finished=finished)
        losses = [abs(math.log10(cell["learning_rate"]) - math.log10(3e-4)) for cell in cells]
        distances.append(sum(losses) / len(losses))
        finished += tuple(zip(cells, losses, strict=True))
    assert max(distances[3:]) < 0.6 * distances[0]


def test_failed_trials_are_avoided() -> None:
    finished = tuple((cell, None if cell["learning_rate"] > 1e-4 else 1.0) for cell in draw({"learning_rate": "1e-5..1e-2"}, samples=30))
    cells = draw({"learning_rate": "1e-5..1e-2"}, "optuna", 10, finished=finished)
    assert sum(cell["learning_rate"] > 1e-4 for cell in cells) <= 3


def trial(technique: str = "lora", **values: Any) -> Trial:
    own = {name: getattr(Grid(), name)[0] for name in names_of("sft", technique)}
    return Trial(model={"id": "tiny"}, data={}, technique=technique, hyperparameters=own | {"learning_rate": 1e-4, "dtype": "auto"} | values)


def test_the_cell_that_a_trial_came_from() -> None:
    grid = Grid.model_validate({"techniques": "full,lora", "learning_rate": "1e-5..1e-3", "lora_r": "8,16"})
    cell = cell_of(grid, trial(lora_r=8))
    assert cell is not None
    assert (cell["model"], cell["technique"], cell["learning_rate"], cell["lora_r"]) == ("tiny", "lora", 1e-4, 8)
    assert "lora_r" not in (cell_of(grid, trial("full")) or {})
    outside = [trial(lora_r=32), trial(learning_rate=1e-2), trial(weight_decay=0.5), trial("dora")]
    assert [cell_of(grid, each) for each in outside] == [None] * 4


def test_auto_is_the_techniques_own_learning_rate() -> None:
    grid = Grid.model_validate({"learning_rate": "auto,1e-3"})
    found = [cell_of(grid, trial(learning_rate=rate)) for rate in (2e-4, 1e-3, 5e-4)]
    assert [cell and cell["learning_rate"] for cell in found] == ["auto", 1e-3, None]
