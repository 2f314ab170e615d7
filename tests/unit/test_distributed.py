"""Several processes: how they are started, and that they end as one would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT, SETTINGS, Lab

from llamaflow.distributed import torchrun
from llamaflow.errors import UsageError
from llamaflow.params import Compute


def test_on_one_machine() -> None:
    command = torchrun(Compute(num_processes=4), 4)
    assert command[1:] == ["-m", "torch.distributed.run", "--nnodes=1", "--nproc_per_node=4", "--standalone"]


def test_on_the_machines_of_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """One launcher on each, and one place where they meet."""
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    command = torchrun(Compute(num_processes=16, num_machines=2), 8)
    assert command[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert {"--nnodes=2", "--nproc_per_node=8", "--rdzv_id=123", "--rdzv_backend=c10d"} <= set(command)


def test_several_machines_need_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UsageError, match="--num_machines 2 needs Slurm"):
        torchrun(Compute(num_processes=2, num_machines=2), 1)


@pytest.mark.slow
def test_a_fault_in_all_processes_is_that_of_the_step(lab: Lab, tmp_path: Path) -> None:
    """A target module that does not exist: the user's mistake, with its exit status and its message."""
    (trial,) = lab.trials({"target_modules": "nowhere"})
    given = SETTINGS | {"trials": [trial], "training": {}, "compute": {"num_processes": 2, "parallelism": "ddp"}}
    command = [sys.executable, ROOT / "bin/train_trials.py", "--model", lab.model, "--tokens", lab.tokens, "--dataset", lab.dataset, "--outdir", tmp_path]
    ended = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert ended.returncode == 64
    assert "--target_modules nowhere does not fit tiny" in ended.stderr
