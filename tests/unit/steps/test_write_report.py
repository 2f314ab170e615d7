from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grid_results import scores_around, write_evaluation, write_trial

from llamaflow.report import DASH, safe

RunStep = Callable[..., None]
HOSTILE = """<img src=x onerror="alert('x')"></script><script>alert(1)</script> [a](javascript:alert(1)) a/b \\"""
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


def dataset(source: str = "handbook", reason: str = "too short") -> dict[str, Any]:
    return {
        "splits": {"train": 100, "validation": 12, "test": 60},
        "sources": {source: {"train": 100, "validation": 12, "test": 60, "license": None, "type": "chat"}},
        "funnel": [
            {"step": "clean_records", "source": source, "kept": 180, "dropped": {reason: 5}},
            {"step": "deduplicate_records", "source": source, "kept": 172, "dropped": {"exact duplicate": 8}},
        ],
    }


class Report:
    """A ranked grid on disk, and the report of it."""

    def __init__(self, run_step: RunStep, folder: Path) -> None:
        self.run_step, self.folder, self.sections_at = run_step, folder, folder / "report_sections"
        self.evaluations: list[Path] = []
        self.trials: list[Path] = []
        self.dataset = dataset()
        self.receipts = [{"step": "collect_source", "seconds": 60.0, "peak_memory_bytes": 2**30, "versions": {"python": "3.11.2"}}]

    def evaluate(self, name: str, mean: float, **given: Any) -> None:
        scores = {"rouge_l": scores_around(mean, 60, seed=len(self.evaluations)), "chrf": scores_around(mean / 2, 60, seed=9)}
        self.evaluations.append(write_evaluation(self.folder / "evaluations", f"{len(self.evaluations)}", **{"scores": scores} | given))
        self._rename(self.evaluations[-1] / "metrics.json", "id", name)

    def train(self, name: str, mean: float | None = None, texts: Any = None, **given: Any) -> None:
        self.trials.append(write_trial(self.folder / "trials", f"{len(self.trials)}", **given))
        self._rename(self.trials[-1] / "trial.json", "trial_id", name)
        if mean is not None:
            self.evaluate(name, mean, model=given.get("model", "tiny"), texts=texts)

    def grid(self) -> None:
        """A base, four trials, and one that failed."""
        self.evaluate("tiny-base", 0.3, kind="base")
        for place, (rate, rank) in enumerate([(1e-4, 8), (1e-4, 16), (2e-4, 8), (2e-4, 16)]):
            self.train(f"lora-{rate:g}-r{rank}", 0.4 + place / 20, learning_rate=rate, lora_r=rank, loss=1.5 - place / 10)
        self.train("broken", status="failed", reason="diverged at step 3", loss=None, learning_rate=1e-2)

    @staticmethod
    def _rename(path: Path, key: str, name: str) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: name}))

    def write(self, title: str | None = None, more: list[Any] | None = None, **gate: Any) -> dict[str, Any]:
        """Rank and report; return the sections by id, in the order of the report."""
        both = ["--evaluations", *self.evaluations, "--trials", *self.trials, "--outdir", self.folder]
        self.run_step("rank_trials", both, {"gate": gate, "evaluation": {"bootstrap_resamples": 300}})
        (self.folder / "dataset.json").write_text(json.dumps(self.dataset))
        receipts = [self.folder / f"receipt_{place}.json" for place in range(len(self.receipts))]
        for path, content in zip(receipts, self.receipts, strict=True):
            path.write_text(json.dumps(content))
        files = ["--dataset", self.folder / "dataset.json", "--leaderboard", self.folder / "leaderboard.json", "--winner", self.folder / "winner.json"]
        self.run_step("write_report", [*both, *files, "--receipts", *receipts, *(more or [])], {"generic": {"report_title": title}})
        order = self.config()["custom_content"]["order"]
        return {name: json.loads((self.sections_at / f"{name}_mqc.json").read_text()) for name in order}

    def config(self) -> dict[str, Any]:
        return dict(yaml.safe_load((self.sections_at / "multiqc_config.yml").read_text()))

    def multiqc(self) -> str:
        """The page that MultiQC makes of the sections."""
        command = [sys.executable, "-m", "multiqc", "--strict", "--no-version-check", "--config", str(self.sections_at / "multiqc_config.yml")]
        done = subprocess.run([*command, "--outdir", str(self.folder), str(self.sections_at)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return (self.folder / "multiqc_report.html").read_text()


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


def test_multiqc_makes_a_page_of_them_in_strict_mode(report: Report) -> None:
    report.grid()
    report.evaluate("owner/other-base", 0.2, kind="base", model="owner/other")  # MultiQC would take the slash for a directory
    report.write(title="Rules & answers")
    start = time.monotonic()
    page = report.multiqc()
    assert time.monotonic() - start < 15 * 4  # 15 s on an idle machine
    places = [page.index(f'<h2 class="mb-0" id="{name}">') for name in ALL_SECTIONS]
    assert places == sorted(places)
    assert "Rules &amp; answers" in page
    assert "owner&#47;other-base" in page
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


def test_nothing_that_users_write_becomes_html(report: Report) -> None:
    texts = {name: [HOSTILE] * 60 for name in ("prompt", "reference", "prediction")}
    report.evaluate(f"base{HOSTILE}", 0.3, kind="base", model=HOSTILE, texts=texts)
    for place in range(2):
        report.train(f"{place}{HOSTILE}", 0.4, model=HOSTILE, texts=texts, technique=HOSTILE, note=f"{place}{HOSTILE}")
    report.train(f"broken{HOSTILE}", status="failed", reason=HOSTILE, model=HOSTILE, loss=None)
    report.dataset = dataset(HOSTILE, HOSTILE)
    report.dataset["personal_data"] = {"action": "mask", "found": {HOSTILE: {"email": 1}}}
    report.receipts[0] |= {"step": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    sections = report.write(title=HOSTILE)
    versions = yaml.safe_load((report.sections_at / "llamaflow_mqc_versions.yml").read_text())
    for text in strings([sections, report.config(), versions]):
        assert "<img" not in text
        assert "script>" not in text
        assert "onerror=&#34;" in text or "onerror" not in text
    assert "&lt;img src=x" in sections["answers"]["data"]
    page = report.multiqc()
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
        ("lora-0.0002-r16", "winner"),
        ("lora-0.0002-r8", "trial"),
        ("lora-0.0001-r16", "trial"),
        ("lora-0.0001-r8", "trial"),
        ("tiny-base", "base"),
        ("broken", "failed"),
    ]
    measures = ["metric_rouge_l", "metric_chrf", "metric_perplexity"]
    assert list(section["headers"]) == ["rank", "role", "gain", "interval", "luck", *measures, "setting_learning_rate", "setting_lora_r", "technique"]
    assert section["data"]["lora-0.0002-r16"]["setting_learning_rate"] == "0.0002"
    assert "gain" not in section["data"]["tiny-base"]


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


def test_the_funnel_adds_up_the_steps(report: Report) -> None:
    report.grid()
    section = report.write()["data_funnel"]
    names = {key: value["name"] for key, value in section["categories"].items()}
    assert {names[key]: count for key, count in section["data"]["handbook"].items()} == {"Kept": 172, "Dropped: exact duplicate": 8, "Dropped: too short": 5}


def test_the_funnel_names_skipped_sources(report: Report) -> None:
    report.grid()
    report.dataset["skipped_sources"] = {"wiki": "wiki.csv <is> not there."}
    text = report.write()["data_funnel"]["description"]
    assert "wiki could not be read and was skipped" in text
    assert "<is>" not in text


def test_the_splits_say_if_test_questions_were_given_for_training_too(report: Report) -> None:
    report.grid()
    assert "Mind that" not in report.write()["splits"]["description"]
    report.dataset["prompts_in_several_splits"] = 7
    assert "7 questions were given in several of these parts" in report.write()["splits"]["description"]


def test_what_is_tested_and_what_was_learnt(report: Report) -> None:
    report.grid()
    report.dataset |= {"leakage": {"train": {"validation": 1, "test": 7}, "validation": {"test": 0}}, "previous": None, "benchmarks": None}
    section = report.write()["leakage"]
    assert section["data"] == {
        "train": {"records": 100, "in_validation": 1, "in_test": 7},
        "validation": {"records": 12, "in_test": 0},
        "test": {"records": 60},
    }
    assert {"kept", "new"} & section["headers"].keys() == set()
    counts = {name: {"train": 1, "validation": 2, "test": 3} for name in ("kept", "related", "moved", "new")}
    report.dataset["previous"] = counts | {"test_not_as_given": 4}
    report.dataset["benchmarks"] = {HOSTILE: {"questions": 1319, "dropped": 5, "test": 6}}
    section = report.write()["leakage"]
    assert section["data"]["test"] == {"records": 60, "kept": 3, "related": 3, "new": 3, "moved": 3}
    assert "4 records stay in the test although" in section["description"]
    assert "5 records with questions of" in section["description"]
    assert HOSTILE not in section["description"]


def test_personal_data_is_counted_by_source_and_type(report: Report) -> None:
    report.grid()
    assert "personal_data" not in report.write(), "there was none"
    report.dataset["personal_data"] = {"action": "mask,phone=keep", "found": {"handbook": {"email": 3, "phone": 1}, "tickets": {"email": 2}}}
    section = report.write()["personal_data"]
    assert section["data"] == {"handbook": {"email": 3, "phone": 1}, "tickets": {"email": 2}}
    assert section["description"].startswith("<p>6 pieces of personal data")
    assert {kind: header["description"] for kind, header in section["headers"].items()} == {
        "email": "What was found was masked",
        "phone": "What was found was left in the texts",
    }


def tokenized(**more: Any) -> dict[str, Any]:
    fit = {"words": 900, "tokens_per_word": 1.5, "characters_per_token": 4.0, "unknown": 0.0, "fits": True, "warning": None}
    lengths = {"records": 100, "p50": 40, "p95": 90, "max": 300, "longer": 0.02}
    counts = {
        "model": "tiny",
        "lengths": {"train": {"en": lengths}},
        "languages": {"en": fit, "ru": fit | {"tokens_per_word": 6.0, "fits": False, "warning": "6.00 tokens a word"}},
    }
    return {"step": "tokenize_dataset", "seconds": 1.0, "peak_memory_bytes": 1, "settings": {"max_length": 256}, "counts": counts | more}


def test_a_tokenizer_that_fits_a_language_badly_is_warned_of(report: Report) -> None:
    report.grid()
    report.receipts.append(tokenized())
    section = report.write()["tokenizers"]
    assert {name: row["fit"] for name, row in section["data"].items()} == {"tiny, 256 tokens: en": "well", "tiny, 256 tokens: ru": "badly"}
    assert section["data"]["tiny, 256 tokens: en"]["longer"] == 2
    assert "<b>tiny fits ru badly</b>: 6.00 tokens a word." in section["description"]


def test_lengths_are_shares_of_each_split(report: Report) -> None:
    report.grid()
    report.dataset["characters"] = {"train": {"p50": 70, "histogram": [[64, 95, 3], [96, 127, 1]]}, "test": {"p50": 100, "histogram": [[96, 127, 5]]}}
    assert report.write()["text_lengths"]["data"] == {"Train": {"64 to 95": 75, "96 to 127": 25}, "Test": {"64 to 95": 0, "96 to 127": 100}}


def sample(text: str = "user: Who?") -> dict[str, Any]:
    kept = [{"id": "0", "source": "faq", "changed": True, "before": f"{text} \x00", "after": f"{text} [EMAIL_1]"}]
    kept.append({"id": "1", "source": "faq", "changed": False, "before": "same", "after": "same"})
    return {"kept": kept, "dropped": [{"source": "faq", "location": text, "step": "clean_records", "reason": text, "record": text}]}


def test_records_are_shown_before_and_after(report: Report) -> None:
    report.grid()
    report.dataset["sample"] = sample("user: Who?\nassistant: I")
    table = report.write()["samples"]["data"]
    assert '<td>user: Who?<br>assistant: I <span class="lf-cut">\ufffd</span></td>' in table
    assert '<span class="lf-hit"><span class="lf-mask">[EMAIL_1]</span></span></td>' in table
    assert table.count("the same") == 1


@pytest.mark.slow
def test_multiqc_takes_what_is_told_of_the_data(report: Report) -> None:
    report.grid()
    report.dataset |= {"sample": sample(HOSTILE), "characters": {"train": {"p50": 70, "histogram": [[64, 95, 3]]}}}
    report.receipts += [
        tokenized(model=HOSTILE),
        {"step": "deduplicate_records", "seconds": 1, "peak_memory_bytes": 1, "counts": {"clusters": {"2": 3, "3 to 4": 1}}},
    ]
    sections = report.write()
    assert {"text_lengths", "clusters", "tokenizers", "samples"} < sections.keys()
    page = report.multiqc()
    assert "<img src=x" not in page
    assert "alert(1)</script>" not in page


def test_learning_curves_are_thinned_out_and_keep_the_validation_loss(report: Report) -> None:
    report.evaluate("tiny-base", 0.3, kind="base")
    report.train("long", 0.4, steps=1000)
    validation, training = report.write()["loss_curves"]["data"]
    assert len(training["long"]) <= 120
    assert training["long"][-1][0] == 1.0
    assert len(validation["long"]) == 100


def test_time_by_step_sums_tasks_and_takes_the_largest_memory(report: Report) -> None:
    report.grid()
    report.receipts += [{"step": "collect_source", "seconds": 30.0, "peak_memory_bytes": 2**31, "versions": {}}]
    minutes, memory = report.write()["step_resources"]["data"]
    assert minutes["collect_source"] == {"minutes": 1.5}
    assert memory["collect_source"] == {"memory": 2.0}
    assert minutes["train_trials"] == {"minutes": 5.0}  # from the trials themselves


def planned(**trials: float) -> dict[str, Any]:
    """The receipt of plan_trials: hours by trial."""
    estimates = {name: {"tokens": 50_000, "seconds": 3600 * hours, "peak_memory_bytes": 2**31} for name, hours in trials.items()}
    total = {"tokens": 50_000 * len(trials), "seconds": 3600 * sum(trials.values())}
    plan = {"trials": estimates, "total": total, "speeds": ["80 GFLOP/s (as usual on one core of this processor)"], "price_per_hour": 6.0}
    return {"step": "plan_trials", "seconds": 0.1, "peak_memory_bytes": 2**25, "counts": {"plan": plan}}


@pytest.mark.slow
def test_plan_and_fact(report: Report) -> None:
    report.evaluate("tiny-base", 0.3, kind="base")
    report.train("good", 0.5, seconds=1800.0)
    report.train("broken", status="failed", reason="diverged", loss=None, seconds=90.0)
    report.train("again", 0.4, seconds=7200.0)
    for directory, more in ((report.trials[0], {"energy_joules": 36_000.0}), (report.trials[2], {"reused": True, "energy_joules": None})):
        receipt = json.loads((directory / "train_trials.json").read_text())
        (directory / "train_trials.json").write_text(json.dumps(receipt | more))
    assert "plan_and_fact" not in report.write(), "without a plan there is nothing to compare"
    report.receipts.append(planned(good=0.25, broken=0.25, again=0))
    section = report.write()["plan_and_fact"]
    good, again = section["data"]["good"], section["data"]["again"]
    assert (good["planned_minutes"], good["minutes"]) == (15, 30)
    assert (good["planned_cost"], good["cost"]) == (1.5, 3.0)
    assert (good["planned_tokens"], good["tokens"]) == (50, 40.96)
    assert (good["planned_memory"], good["memory"]) == (2, pytest.approx(1.4, abs=0.01))
    assert good["energy"] == 10
    assert "energy" not in again
    text = section["description"]
    assert "estimated at 150k tokens in 30 min for 3.00 in all, at 80 GFLOP&#47;s" in text
    assert "it took 81.9k tokens in 32 min for 3.15" in text
    assert "taken from an earlier run (1 of 3 trials)" in text
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
    assert (board["head-1"]["role"], board["head-1"]["metric_accuracy"], board["head-1"]["metric_perplexity"]) == ("winner", 0.75, DASH)
    assert board["tiny-base"]["metric_perplexity"] == pytest.approx(7.389, abs=1e-3)
    assert "metric_perplexity" not in board["broken"]
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
