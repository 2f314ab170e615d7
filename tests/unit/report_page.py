"""A ranked grid on disk and the report of it, for the tests of what the report tells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from grid_results import scores_around, write_evaluation, write_trial

RunStep = Callable[..., None]
HOSTILE = """<img src=x onerror="alert('x')"></script><script>alert(1)</script> [a](javascript:alert(1)) a/b \\"""


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
