from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grid_results import scores_around, write_evaluation, write_trial

RunStep = Callable[..., None]


class Ranking:
    """A grid on disk, and what rank_trials makes of it."""

    def __init__(self, run_step: RunStep, folder: Path) -> None:
        self.run_step, self.folder = run_step, folder
        self.evaluations: list[Path] = []
        self.trials: list[Path] = []

    def base(self, mean: float, model: str = "tiny", **given: Any) -> None:
        scores = {"rouge_l": scores_around(mean, seed=7)}
        self.evaluations.append(write_evaluation(self.folder / "evaluations", f"{model}-base", **{"scores": scores, "kind": "base", "model": model} | given))

    def trial(self, name: str, mean: float | None, model: str = "tiny", scores: Any = None, **given: Any) -> None:
        """A trial, evaluated unless it has no mean."""
        self.trials.append(write_trial(self.folder / "trials", name, model=model, **given))
        if mean is not None:
            scores = scores or {"rouge_l": scores_around(mean, seed=len(self.trials))}
            self.evaluations.append(write_evaluation(self.folder / "evaluations", name, scores, model=model))

    def rank(self, **gate: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        settings = {"gate": gate, "evaluation": {"bootstrap_resamples": 500}}
        self.run_step("rank_trials", ["--evaluations", *self.evaluations, "--trials", *self.trials, "--outdir", out], settings)
        return json.loads((out / "leaderboard.json").read_text()), json.loads((out / "winner.json").read_text())


@pytest.fixture
def ranking(run_step: RunStep, tmp_path: Path) -> Ranking:
    return Ranking(run_step, tmp_path)


def test_the_best_trial_wins_and_passes_and_every_row_is_there(ranking: Ranking) -> None:
    ranking.base(0.30)
    ranking.trial("good", 0.45, lora_r=16)
    ranking.trial("fair", 0.35)
    ranking.trial("bad", 0.25, technique="full")
    ranking.trial("broken", None, status="failed", reason="diverged at step 3", loss=None)
    board, winner = ranking.rank()
    assert [(row["rank"], row["id"], row["kind"], row["status"]) for row in board["rows"]] == [
        (1, "good", "trial", "finished"),
        (2, "fair", "trial", "finished"),
        (3, "tiny-base", "base", "not trained"),
        (4, "bad", "trial", "finished"),
        (None, "broken", "trial", "failed"),
    ]
    assert (winner["trial_id"], winner["model"], winner["passed"]) == ("good", "tiny", True)
    assert winner["gate"]["gain"] == pytest.approx(0.15, abs=0.01)
    assert winner["runner_up"]["trial_id"] == "fair"
    assert winner["runner_up"]["gain"] == pytest.approx(0.10, abs=0.01)
    assert winner["tied_with"] == []
    assert "good, the best of 3 trials, is better than its base by 0.1" in winner["reason"]
    assert board["rows"][3]["gain"]["gain"] < 0
    assert board["rows"][4]["reason"] == "diverged at step 3"


def test_the_gates_interval_pays_for_the_number_of_trials(ranking: Ranking) -> None:
    ranking.base(0.30)
    for number in range(6):
        ranking.trial(f"trial-{number}", 0.35 + number / 100)
    board, winner = ranking.rank()
    own = next(row["gain"] for row in board["rows"] if row["id"] == winner["trial_id"])
    assert winner["gate"]["confidence"] == pytest.approx(1 - 0.05 / 6)
    assert winner["gate"]["ci_low"] < own["ci_low"] < own["ci_high"] < winner["gate"]["ci_high"]
    assert own["p_holm"] == pytest.approx(6 * own["p_value"])
    assert own["p_holm"] < 0.05


def test_many_lucky_trials_without_a_real_gain_do_not_pass(ranking: Ranking) -> None:
    """Twelve trials that are the base plus noise: the best of them looks better, and the gate must not believe it."""
    ranking.base(0.30)
    for number in range(12):
        ranking.trial(f"trial-{number}", 0.3, scores={"rouge_l": scores_around(0.30, seed=100 + number, spread=0.1)})
    _, winner = ranking.rank()
    assert winner["gate"]["gain"] > 0
    assert not winner["passed"]
    assert "may be luck" in winner["reason"]
    assert "would show reliably" in winner["reason"]
    assert winner["tied_with"]


def test_a_real_gain_below_the_gain_asked_for_does_not_pass(ranking: Ranking) -> None:
    ranking.base(0.30)
    ranking.trial("good", 0.35)
    _, winner = ranking.rank(gate_min_gain=0.05)
    assert not winner["passed"]
    assert "the only trial, is better than its base" in winner["reason"]
    assert "not surely by more than the 0.05 asked for" in winner["reason"]


def test_trials_that_are_all_worse_do_not_pass(ranking: Ranking) -> None:
    ranking.base(0.30)
    ranking.trial("bad", 0.2)
    board, winner = ranking.rank()
    assert winner["reason"].startswith("No trial is better than its base in rouge_l: bad")
    assert board["rows"][0]["kind"] == "base"


def test_a_trial_is_compared_with_the_base_of_its_own_model(ranking: Ranking) -> None:
    ranking.base(0.30, model="small")
    ranking.base(0.50, model="large")
    ranking.trial("small-lora", 0.45, model="small")
    ranking.trial("large-lora", 0.52, model="large")
    board, winner = ranking.rank()
    gains = {row["id"]: row["gain"]["gain"] for row in board["rows"] if row["gain"]}
    assert gains == {"small-lora": pytest.approx(0.15, abs=0.01), "large-lora": pytest.approx(0.02, abs=0.01)}
    assert winner["trial_id"] == "large-lora"


def test_lower_perplexity_wins(ranking: Ranking) -> None:
    rows = {"scores": {"rouge_l": scores_around(0.3)}}
    ranking.base(0.3, nll=[20.0] * 120)
    for name, nll in (("worse", 22.0), ("better", 10.0)):
        ranking.trials.append(write_trial(ranking.folder / "trials", name))
        ranking.evaluations.append(write_evaluation(ranking.folder / "evaluations", name, nll=[nll] * 120, **rows))
    board, winner = ranking.rank(gate_metric="perplexity")
    assert [row["id"] for row in board["rows"]] == ["better", "tiny-base", "worse"]
    assert (winner["trial_id"], winner["passed"]) == ("better", True)


def test_trials_without_perplexity_are_compared_by_what_all_have(ranking: Ranking) -> None:
    """A reward model beside a model that writes: auto takes the preferences, and what only some have is on the leaderboard too."""
    liked = [float(place % 3 > 0) for place in range(120)]
    ranking.base(0.3, scores={"preference_accuracy": [float(place % 2) for place in range(120)], "rouge_l": scores_around(0.3)})
    ranking.trial("dpo", 0.3, scores={"preference_accuracy": liked, "rouge_l": scores_around(0.4)})
    ranking.trials.append(write_trial(ranking.folder / "trials", "reward"))
    ranking.evaluations.append(write_evaluation(ranking.folder / "evaluations", "reward", {"preference_accuracy": [1.0] * 120}, head=True))
    board, winner = ranking.rank()
    assert (board["gate_metric"], winner["trial_id"], winner["passed"]) == ("preference_accuracy", "reward", True)
    assert board["metrics"] == ["perplexity", "preference_accuracy", "rouge_l"]
    assert winner["gate"]["gain"] == pytest.approx(0.5)
    assert [row["id"] for row in board["rows"]] == ["reward", "dpo", "tiny-base"]
    with (ranking.folder / "out/leaderboard.csv").open() as file:
        assert [bool(row["perplexity"]) for row in csv.DictReader(file)] == [False, True, True]


def test_a_measure_that_a_trial_lacks_cannot_decide(ranking: Ranking, capsys: pytest.CaptureFixture[str]) -> None:
    ranking.base(0.3)
    ranking.trials.append(write_trial(ranking.folder / "trials", "head"))
    ranking.evaluations.append(write_evaluation(ranking.folder / "evaluations", "head", {"rouge_l": scores_around(0.4)}, head=True))
    with pytest.raises(SystemExit):
        ranking.rank(gate_metric="perplexity")
    assert "there is no measure 'perplexity' in these evaluations; there are rouge_l." in capsys.readouterr().err
    assert ranking.rank()[1]["trial_id"] == "head"


def test_equal_trials_are_ordered_by_validation_loss(ranking: Ranking) -> None:
    ranking.base(0.3)
    scores = {"rouge_l": scores_around(0.5)}
    ranking.trial("a", 0.5, scores=scores, loss=1.9)
    ranking.trial("b", 0.5, scores=scores, loss=1.2)
    _, winner = ranking.rank()
    assert winner["trial_id"] == "b"
    assert winner["tied_with"] == ["a"]


def test_the_csv_has_one_flat_row_each(ranking: Ranking) -> None:
    ranking.base(0.30)
    ranking.trial("good", 0.45, lora_r=16)
    ranking.trial("other", 0.40, technique="full", weight_decay=0.1)
    ranking.rank()
    with (ranking.folder / "out/leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["good", "other", "tiny-base"]
    assert rows[0]["lora_r"] == "16"
    assert rows[1]["weight_decay"] == "0.1"
    assert float(rows[0]["rouge_l_ci_low"]) < float(rows[0]["rouge_l"]) < float(rows[0]["rouge_l_ci_high"])
    assert float(rows[0]["gain_p_holm"]) < 0.05
    assert rows[2]["gain"] == ""


def test_if_every_trial_failed_there_is_no_winner_but_a_reason(ranking: Ranking) -> None:
    ranking.base(0.30)
    ranking.trial("one", None, status="failed", reason="diverged: the loss was nan at step 3", loss=None)
    board, winner = ranking.rank()
    assert (winner["trial_id"], winner["passed"]) == (None, False)
    assert "one: diverged: the loss was nan at step 3" in winner["reason"]
    assert [row["id"] for row in board["rows"]] == ["tiny-base", "one"]


def test_the_same_results_give_the_same_leaderboard(ranking: Ranking) -> None:
    ranking.base(0.30)
    ranking.trial("good", 0.45)
    assert ranking.rank() == ranking.rank()


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("rouge-l", "--gate_metric: there is no measure 'rouge-l' in these evaluations (did you mean rouge_l?); there are perplexity, rouge_l."),
        ("accuracy", "accuracy and macro_f1 need records with a label"),
    ],
)
def test_an_unknown_measure_is_refused_with_those_there_are(ranking: Ranking, capsys: pytest.CaptureFixture[str], gate: str, message: str) -> None:
    ranking.base(0.30)
    ranking.trial("good", 0.45)
    with pytest.raises(SystemExit) as ended:
        ranking.rank(gate_metric=gate)
    assert ended.value.code == 64
    assert message in capsys.readouterr().err


def test_a_trial_without_its_base_is_refused(ranking: Ranking, capsys: pytest.CaptureFixture[str]) -> None:
    ranking.base(0.30, model="other")
    ranking.trial("good", 0.45)
    with pytest.raises(SystemExit) as ended:
        ranking.rank()
    assert ended.value.code == 64
    assert "no evaluation of the base model tiny" in capsys.readouterr().err


def test_evaluations_of_two_suites_are_refused(ranking: Ranking, capsys: pytest.CaptureFixture[str]) -> None:
    ranking.base(0.30, suite={"name": "answers", "version": "2"})
    ranking.trial("good", 0.45)
    with pytest.raises(SystemExit) as ended:
        ranking.rank()
    assert ended.value.code == 65
    assert "different suites (answers 1, answers 2)" in capsys.readouterr().err


def test_a_directory_that_is_no_trial_is_refused(ranking: Ranking, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranking.trials.append(tmp_path)
    with pytest.raises(SystemExit) as ended:
        ranking.rank()
    assert ended.value.code == 64
    assert "is not a trained trial: it has no trial.json" in capsys.readouterr().err
