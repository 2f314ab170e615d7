"""What is run again, and what is not: one grid, run again and again with small changes, in a folder with a space in its name."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 1200  # seconds a run, which takes one or two minutes on a machine of its own


class Grid:
    """A copy of the pipeline, and the runs made with it from another directory."""

    def __init__(self, directory: Path) -> None:
        self.pipeline, self.launch = directory / "the pipeline", directory / "launch here"
        self.launch.mkdir()
        for name in ("main.nf", "nextflow.config", "nextflow_schema.json", "bin", "conf", "modules", "subworkflows", "workflows", "assets"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            self.pipeline.mkdir(exist_ok=True)
            copy(ROOT / name, self.pipeline / name)

    def command(self, *options: str) -> list[str]:
        fixed = [
            "--input",
            str(self.pipeline / "assets/examples/qa_en.jsonl"),
            "--models",
            os.environ["LLAMAFLOW_TINY"],
            "--outdir",
            "results",
            "--gate_metric",
            "perplexity",
        ]
        return ["nextflow", "run", str(self.pipeline), "-profile", "test", "-ansi-log", "false", "-resume", *fixed, *options]

    def run(self, *options: str) -> Counter[tuple[str, str]]:
        """Run to the end; returns how many tasks of each process had each status."""
        done = subprocess.run(self.command(*options), cwd=self.launch, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.statuses()

    def statuses(self) -> Counter[tuple[str, str]]:
        with (self.launch / "results/pipeline_info/execution_trace.txt").open() as file:
            return Counter((row["process"].split(":")[-1], row["status"]) for row in csv.DictReader(file, delimiter="\t"))

    def logs(self, word: str) -> str:
        """What the tasks of the last run said that hold a word."""
        with (self.launch / "results/pipeline_info/execution_trace.txt").open() as file:
            hashes = [row["hash"] for row in csv.DictReader(file, delimiter="\t") if row["status"] == "COMPLETED" and word in row["process"]]
        return "".join(next(self.launch.glob(f"work/{part}*/.command.log")).read_text() for part in hashes)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(tmp_path_factory.mktemp("a grid"))


@pytest.fixture(scope="module")
def grid(fresh: Grid) -> Grid:
    """Two trials."""
    fresh.run("--learning_rate", "1e-2,2e-2")
    return fresh


class TestAGridThatGrows:
    """Each goes on from the one before; pytest-xdist runs what is outside the class beside it (--dist loadscope)."""

    def test_second_run_is_all_cached(self, grid: Grid) -> None:
        statuses = grid.run("--learning_rate", "1e-2,2e-2")
        assert {status for _, status in statuses} == {"CACHED"}

    def test_one_more_learning_rate_trains_one_trial(self, grid: Grid) -> None:
        statuses = grid.run("--learning_rate", "1e-2,2e-2,3e-2")
        said = grid.logs("TRAIN_TRIALS")
        assert said.count("was finished before") == 2
        assert said.count("lr0.03") > 1  # the third was trained, and said so
        assert "lr0.01-" not in said.replace("was finished before", "").split("step")[1]
        assert grid.logs("EVALUATE_MODEL").count("was evaluated before") == 2
        assert statuses[("FETCH_MODEL", "CACHED")] == statuses[("TOKENIZE_DATASET", "CACHED")] == statuses[("SPLIT_DATASET", "CACHED")] == 1

    def test_edit_of_shared_code_runs_again_what_depends_on_it(self, grid: Grid) -> None:
        stats = grid.pipeline / "bin/llamaflow/stats.py"
        stats.write_text(stats.read_text() + "\n# an edit\n")
        statuses = grid.run("--learning_rate", "1e-2,2e-2,3e-2")
        assert statuses[("EVALUATE_MODEL", "COMPLETED")] == 4
        assert statuses[("RANK_TRIALS", "COMPLETED")] == 1
        for untouched in ("COLLECT_SOURCE", "CLEAN_RECORDS", "SPLIT_DATASET", "FETCH_MODEL", "TOKENIZE_DATASET", "TRAIN_TRIALS"):
            assert (untouched, "COMPLETED") not in statuses, untouched


def test_killed_training_goes_on_where_it_was(fresh: Grid) -> None:
    options = ("--learning_rate", "4e-2", "--num_train_epochs", "20", "--save_steps", "5", "--dtype", "float32")
    with subprocess.Popen(fresh.command(*options), cwd=fresh.launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        kill_after_first_checkpoint(fresh)
        said, _ = running.communicate(timeout=TIMEOUT)
    assert running.returncode == 0, said
    assert "goes on from the checkpoint at step" in "".join(log.read_text() for log in fresh.launch.glob("work/*/*/.command.log"))
    assert fresh.statuses()[("TRAIN_TRIALS", "COMPLETED")] == 1


def kill_after_first_checkpoint(grid: Grid) -> None:
    """SIGKILL the training as a lost node would, as soon as there is a checkpoint of it."""
    deadline = time.monotonic() + TIMEOUT
    while not list(grid.launch.glob("work/checkpoints/*lr0.04*/checkpoint/store_key")):
        assert time.monotonic() < deadline, "no checkpoint was ever saved"
        time.sleep(0.05)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, directory = (process / "cmdline").read_bytes().split(b"\0"), (process / "cwd").readlink()
        except OSError:
            continue
        if any(word.endswith(b"/bin/train_trials.py") for word in words) and grid.launch in directory.parents:
            os.kill(int(process.name), signal.SIGKILL)


def test_of_many_sources_only_what_changed_is_read_again(fresh: Grid) -> None:
    folder = fresh.launch / "my data"
    (folder / "wiki").mkdir(parents=True)
    (folder / "wiki/a.md").write_text("# A\n\nText.\n")
    (folder / "one.jsonl").write_text('{"text": "one"}\n')
    sheet = folder / "sheet.csv"
    sheet.write_text("id,path\nwiki,wiki\nlines,*.jsonl\n")

    def read_again() -> int:
        done = fresh.run("--input", str(sheet), "-stub-run")
        assert done[("COLLECT_SOURCE", "CACHED")] + done[("COLLECT_SOURCE", "COMPLETED")] == len(sheet.read_text().splitlines()) - 1
        return done[("COLLECT_SOURCE", "COMPLETED")]

    assert read_again() == 2
    (folder / "beside.txt").write_text("nobody asked for this")
    sheet.write_text(sheet.read_text() + "more,beside.txt\n")
    assert read_again() == 1
    (folder / "wiki/b.md").write_text("# B\n\nText.\n")
    assert read_again() == 1
    (folder / "one.jsonl").write_text('{"text": "two"}\n')
    assert read_again() == 1
    assert read_again() == 0
