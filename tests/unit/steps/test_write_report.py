from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grid_results import scores_around, write_trial
from report_page import HOSTILE, Report, RunStep, dataset

from llamaflow.report import DASH, safe

ALL_SECTIONS = [
    "verdict",
    "leaderboard",
    "intervals",
    "loss_curves",
    "failures",
    "settings",
    "data_funnel",
    "splits",
    "trial_resources",
    "step_resources",
    "answers",
]


@pytest.fixture
def report(run_step: RunStep, tmp_path: Path) -> Report:
    return Report(run_step, tmp_path)


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (str(key), *strings(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_all_sections_in_the_order_of_the_report(report: Report) -> None:
    report.grid()
    sections = report.write()
    assert list(sections) == ALL_SECTIONS
    assert json.loads((report.folder / "write_report.json").read_text())["counts"]["sections"] == ALL_SECTIONS


@pytest.mark.slow
def test_multiqc_makes_a_page_of_them_in_strict_mode(report: Report) -> None:
    report.grid()
    report.evaluate("owner/other-base", 0.2, kind="base", model="owner/other")  # MultiQC would take the slash for a directory
    report.write(title="Rules & answers")
    page = report.multiqc()
    places = [page.index(f'<h2 class="mb-0" id="{name}">') for name in ALL_SECTIONS]
    assert places == sorted(places)
    assert "Rules &amp; answers" in page
    assert "base owner&#47;other" in page
    assert "Cleared for release" in page
    assert "Software Versions" in page
    assert str(report.folder) not in page


def test_the_verdict_tells_the_gain_and_the_reason(report: Report) -> None:
    report.grid()
    sections = report.write()
    winner = json.loads((report.folder / "winner.json").read_text())
    content = sections["verdict"]["data"]
    assert "Cleared for release" in content
    assert "lora-0.0002-r16" in content
    assert safe(winner["reason"]) in content
    assert f"+{winner['gate']['gain']:.3f}" in content
    assert f"between +{winner['gate']['ci_low']:.3f} and +{winner['gate']['ci_high']:.3f}" in content
    assert "<b>0.0002</b>" in content  # a hyperparameter that was varied


@pytest.mark.parametrize(
    ("mean", "gate", "headline"),
    [
        (0.45, {"gate_min_gain": 0.3}, "A real improvement, but not surely as large as was asked for"),
        (0.305, {}, "No proven improvement"),
        (0.2, {}, "Fine-tuning did not help"),
    ],
)
def test_a_verdict_that_holds_back_says_why(report: Report, mean: float, gate: dict[str, float], headline: str) -> None:
    report.evaluate("tiny-base", 0.3, kind="base")
    report.train("only", mean)
    content = report.write(**gate)["verdict"]["data"]
    assert "Held back" in content
    assert headline in content


@pytest.mark.slow
def test_a_run_in_which_every_trial_failed_has_a_report(report: Report) -> None:
    report.evaluate("tiny-base", 0.3, kind="base")
    report.train("broken", status="failed", reason="diverged at step 3", loss=None)
    sections = report.write()
    assert "No result" in sections["verdict"]["data"]
    assert "diverged at step 3" in sections["verdict"]["data"]
    assert "answers" not in sections
    assert "settings" not in sections
    report.multiqc()


def test_records_without_answers_have_a_report_without_answers(report: Report) -> None:
    report.evaluate("tiny-base", 0.3, kind="base", scores={"rouge_l": [None] * 60}, nll=[20.0] * 60)
    report.train("only")
    report.evaluate("only", 0.3, scores={"rouge_l": [None] * 60}, nll=[10.0] * 60)
    sections = report.write(gate_metric="perplexity")
    assert "answers" not in sections
    assert "Perplexity" in sections["intervals"]["data"]


@pytest.fixture
def hostile(report: Report) -> Report:
    """A report in which everything that users write is hostile, titled so too."""
    texts = {name: [HOSTILE] * 60 for name in ("prompt", "reference", "prediction")}
    report.evaluate(f"base{HOSTILE}", 0.3, kind="base", model=HOSTILE, texts=texts)
    for place in range(2):
        report.train(f"{place}{HOSTILE}", 0.4, model=HOSTILE, texts=texts, technique=HOSTILE, note=f"{place}{HOSTILE}")
    report.train(f"broken{HOSTILE}", status="failed", reason=HOSTILE, model=HOSTILE, loss=None)
    report.dataset = dataset(HOSTILE, HOSTILE)
    report.dataset["personal_data"] = {"action": "mask", "found": {HOSTILE: {"email": 1}}}
    report.receipts[0] |= {"step": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    return report


def test_nothing_that_users_write_becomes_html(hostile: Report) -> None:
    sections = hostile.write(title=HOSTILE)
    versions = yaml.safe_load((hostile.sections_at / "llamaflow_mqc_versions.yml").read_text())
    for text in strings([sections, hostile.config(), versions]):
        assert "<img" not in text
        assert "script>" not in text
        assert "onerror=&#34;" in text or "onerror" not in text
    assert "&lt;img src=x" in sections["answers"]["data"]


@pytest.mark.slow
def test_nor_on_the_page(hostile: Report) -> None:
    hostile.write(title=HOSTILE)
    page = hostile.multiqc()
    assert "<img src=x" not in page
    assert re.findall(r'configTitle = "[^"]*"', page)  # the title cannot end the script's string
    assert "alert(1)</script>" not in page


def test_answers_show_gains_losses_and_ordinary_cases_once_each(report: Report) -> None:
    rows = 60
    base = {"rouge_l": [0.5] * rows}
    tuned = {"rouge_l": [0.5 + (row - 10) / 100 for row in range(rows)]}  # rows 0 to 9 are worse, 10 is equal, 59 is best
    report.evaluate("tiny-base", 0.3, kind="base", scores=base)
    report.train("only")
    report.evaluate("only", 0.3, scores=tuned)
    table = report.write()["answers"]["data"]
    gains, losses, ordinary = re.split("Where the base was better|Ordinary cases", table)
    assert re.findall(r"Question (\d+)\?", gains) == ["59", "58", "57", "56", "55"]
    assert re.findall(r"Question (\d+)\?", losses) == ["0", "1", "2"]
    assert len(set(re.findall(r"Question (\d+)\?", ordinary)) & {str(row) for row in range(25, 35)}) == 4
    assert "(+0.49)" in gains
    assert '<span class="lf-down">(-0.10)</span>' in losses


def test_the_leaderboard_has_every_row_with_its_role(report: Report) -> None:
    report.grid()
    section = report.write()["leaderboard"]
    assert [(name, row["role"]) for name, row in section["data"].items()] == [
        ("lora lr0.0002 r16", "winner"),
        ("lora lr0.0002 r8", "trial"),
        ("lora lr0.0001 r16", "trial"),
        ("lora lr0.0001 r8", "trial"),
        ("base model", "base"),
        ("lora lr0.01 r8", "failed"),
    ]
    measures = ["metric_rouge_l", "metric_chrf", "metric_perplexity"]
    assert list(section["headers"]) == ["rank", "role", "gain", "interval", "luck", *measures, "setting_learning_rate", "setting_lora_r", "technique", "id"]
    assert section["data"]["lora lr0.0002 r16"]["setting_learning_rate"] == "0.0002"
    assert section["data"]["lora lr0.0002 r16"]["id"] == "lora-0.0002-r16"
    assert "gain" not in section["data"]["base model"]


def test_models_are_called_by_what_sets_them_apart(report: Report) -> None:
    for model in ("owner/small", "owner/large"):
        report.evaluate(f"base-{model}", 0.3, kind="base", model=model)
    report.train("small-lora-1f3a", 0.4, model="owner/small", seed=1)
    report.train("small-lora-20bc", 0.5, model="owner/small", seed=2)
    report.train("large-dora-77aa", 0.6, model="owner/large", technique="dora")
    report.train("large-dora-81cd", 0.7, model="owner/large", technique="dora")  # in what is no hyperparameter, as its data
    names = ["owner/large dora seed42 81cd", "owner/large dora seed42 77aa", "owner/small lora seed2", "owner/small lora seed1"]
    sections = report.write()
    assert list(sections["leaderboard"]["data"])[:4] == [safe(name) for name in names]
    assert set(sections["leaderboard"]["data"]) >= {safe("base owner/small"), safe("base owner/large")}
    assert set(sections["loss_curves"]["pconfig"]["colors"]) == {safe(name) for name in names} == set(sections["trial_resources"]["data"])
    assert all(safe(name) in sections["intervals"]["data"] for name in names)


def test_the_heatmap_averages_seeds_and_orders_numbers_by_value(report: Report) -> None:
    report.evaluate("tiny-base", 0.3, kind="base")
    for rate in (1e-3, 5e-5, 2e-4):
        for seed in (1, 2):
            report.train(f"{rate}-{seed}", 0.4, learning_rate=rate, seed=seed)
    section = report.write()["settings"]
    board = json.loads((report.folder / "leaderboard.json").read_text())["rows"]
    found = [row["metrics"]["rouge_l"]["value"] for row in board if row["hyperparameters"].get("learning_rate") == 5e-5]
    assert section["xcats"] == ["learning_rate 5e-05", "learning_rate 0.0002", "learning_rate 0.001"]
    assert section["ycats"] == ["all trials"]
    assert section["data"][0][0] == pytest.approx(sum(found) / 2)


def test_learning_curves_are_thinned_out_and_keep_the_validation_loss(report: Report) -> None:
    report.evaluate("tiny-base", 0.3, kind="base")
    report.train("long", 0.4, steps=1000)
    validation, training = report.write()["loss_curves"]["data"]
    assert len(training["lora"]) <= 120
    assert training["lora"][-1][0] == 1.0
    assert len(validation["lora"]) == 100


def test_time_by_step_sums_tasks_and_takes_the_largest_memory(report: Report) -> None:
    report.grid()
    report.receipts += [{"step": "collect_source", "seconds": 30.0, "peak_memory_bytes": 2**31, "versions": {}}]
    minutes, memory = report.write()["step_resources"]["data"]
    assert minutes["collect_source"] == {"minutes": 1.5}
    assert memory["collect_source"] == {"memory": 2.0}
    assert minutes["train_trials"] == {"minutes": 5.0}  # from the trials themselves


def planned(finished: str, **trials: float) -> dict[str, Any]:
    """The receipt of plan_trials: hours by trial, one of which it found in the store."""
    estimates = {name: {"tokens": 50_000, "seconds": 3600 * hours, "peak_memory_bytes": 2**31, "finished": name == finished} for name, hours in trials.items()}
    total = {"tokens": 50_000 * (len(trials) - 1), "seconds": 3600 * sum(hours for name, hours in trials.items() if name != finished)}
    plan = {"trials": estimates, "total": total, "speeds": ["80 GFLOP/s (as usual on one core of this processor)"], "price_per_hour": 6.0}
    return {"step": "plan_trials", "seconds": 0.1, "peak_memory_bytes": 2**25, "counts": {"plan": plan}}


@pytest.mark.slow
def test_plan_and_fact(report: Report) -> None:
    report.evaluate("tiny-base", 0.3, kind="base")
    report.train("good", 0.5, seconds=1800.0)
    report.train("broken", status="failed", reason="diverged", loss=None, seconds=90.0)
    report.train("again", 0.4, seconds=7200.0)
    report.train("cached", 0.4, seconds=3600.0)
    for directory, more in ((report.trials[0], {"energy_joules": 36_000.0}), (report.trials[2], {"reused": True, "energy_joules": None})):
        receipt = json.loads((directory / "train_trials.json").read_text())
        (directory / "train_trials.json").write_text(json.dumps(receipt | more))
    assert "plan_and_fact" not in report.write(), "without a plan there is nothing to compare"
    report.receipts.append(planned("cached", good=0.25, broken=0.25, again=0, cached=1))
    section = report.write()["plan_and_fact"]
    good, again = section["data"]["lora good"], section["data"]["lora again"]
    assert (good["planned_minutes"], good["minutes"]) == (15, 30)
    assert (good["planned_cost"], good["cost"]) == (1.5, 3.0)
    assert (good["planned_tokens"], good["tokens"]) == (50, 40.96)
    assert (good["planned_memory"], good["memory"]) == (2, pytest.approx(1.4, abs=0.01))
    assert good["energy"] == 10
    assert "energy" not in again
    text = section["description"]
    assert "estimated at 150k tokens in 30 min for 3.00 in all, at 80 GFLOP&#47;s" in text
    assert "it took 81.9k tokens in 32 min for 3.15" in text
    assert "taken from an earlier run (2 of 4 trials)" in text
    report.multiqc()


@pytest.mark.slow
def test_a_grid_of_classifiers(report: Report) -> None:
    """They choose labels: no perplexity, which only the base has."""
    label = ["yes", "no", "maybe"] * 20
    right = [float(place % 4 > 0) for place in range(60)]
    answers = [truth if hit else "maybe not" for truth, hit in zip(label, right, strict=True)]
    report.evaluate("tiny-base", 0.3, kind="base", scores={"exact_match": [0.0] * 60}, texts={"label": label, "reference": label})
    report.train("broken", status="failed", reason="diverged at step 3", loss=None)
    for name, texts in (
        ("head-1", {"label": label, "reference": label, "prediction": answers}),
        ("head-2", {"label": label, "reference": label, "prediction": label[::-1]}),
    ):
        report.trials.append(write_trial(report.folder / "trials", name, stage="classification", learning_rate=1e-4 if name == "head-1" else 1e-3))
        report.evaluate(name, 0.5, scores={"exact_match": right}, texts=texts, head=True)
    sections = report.write()
    assert list(sections) == ALL_SECTIONS
    board = sections["leaderboard"]["data"]
    assert (board["lora lr0.0001"]["role"], board["lora lr0.0001"]["metric_accuracy"], board["lora lr0.0001"]["metric_perplexity"]) == ("winner", 0.75, DASH)
    assert board["base model"]["metric_perplexity"] == pytest.approx(7.389, abs=1e-3)
    assert "metric_perplexity" not in board["lora lr0.0002"]
    page = report.multiqc()
    assert "Accuracy, base → tuned" in page
    assert "NaN" not in json.dumps(sections)


@pytest.mark.slow
def test_a_grid_of_reward_models_shows_no_answers(report: Report) -> None:
    base = {"preference_accuracy": [float(place % 2) for place in range(60)], "rouge_l": scores_around(0.3, 60)}
    report.evaluate("tiny-base", 0.3, kind="base", scores=base)
    for name in ("reward-1", "reward-2"):
        report.trials.append(write_trial(report.folder / "trials", name, stage="reward", learning_rate=1e-4 if name == "reward-1" else 1e-3))
        report.evaluate(name, 0.5, scores={"preference_accuracy": [1.0] * 60}, head=True, texts={"prediction": [None] * 60})
    sections = report.write()
    assert set(ALL_SECTIONS) - set(sections) == {"answers", "failures"}
    assert "Preference accuracy" in sections["verdict"]["data"]
    report.multiqc()


def test_answers_are_not_shown_with_a_score_that_is_not_theirs(report: Report) -> None:
    for name, mean, kind in (("tiny-base", 0.3, "base"), ("dpo", 0.5, "trial")):
        scores = {"preference_accuracy": [float(mean > 0.4)] * 60, "rouge_l": scores_around(mean, 60)}
        report.evaluate(name, mean, kind=kind, scores=scores)
    report.trials.append(write_trial(report.folder / "trials", "dpo", stage="dpo"))
    answers = report.write()["answers"]
    assert "chosen by the difference in ROUGE-L" in answers["description"]
    assert "Preference" not in answers["data"]


def test_given_versions_are_passed_on(report: Report, tmp_path: Path) -> None:
    report.grid()
    (tmp_path / "versions.yml").write_text("CLEAN_RECORDS:\n  python: 3.11\n")
    report.write(more=["--versions", tmp_path / "versions.yml"])
    assert yaml.safe_load((report.sections_at / "llamaflow_mqc_versions.yml").read_text()) == {"CLEAN_RECORDS": {"python": "3.11"}}
