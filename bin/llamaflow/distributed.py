"""Several processes for one training: one a GPU, on this machine or on all nodes of a Slurm job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaflow.errors import STATUS_FILE, UsageError
from llamaflow.files import write_json
from llamaflow.models import device
from llamaflow.params import Compute
from llamaflow.ranks import world_size

PORT = 29500  # torchrun's usual one


def launch(script: str, argv: Sequence[str], given: Mapping[str, Any], compute: Compute, directory: Path) -> None:
    """Run a step in compute.num_processes processes and end as they end. Standard input has one reader, so they get the settings as a file."""
    settings, status = directory / "settings.json", directory / "exit_status"
    write_json(settings, dict(given))
    status.unlink(missing_ok=True)
    local = compute.num_processes // compute.num_machines
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))) // local)
    command = [*torchrun(compute, local), script, *argv, "--settings", str(settings.resolve())]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), STATUS_FILE: str(status.resolve())}
    with subprocess.Popen(command, env=environment) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        ended = process.wait()
        signal.signal(signal.SIGTERM, before)
    settings.unlink()
    if ended:
        raise SystemExit(int(status.read_text()) if status.exists() else 1)


def torchrun(compute: Compute, local: int) -> list[str]:
    """The launcher. On several nodes Slurm starts it once on each; they meet at the first, where the job's script runs."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={compute.num_machines}", f"--nproc_per_node={local}"]
    if compute.num_machines == 1:
        return [*command, "--standalone"]
    if "SLURM_JOB_ID" not in os.environ:
        raise UsageError(f"--num_machines {compute.num_machines} needs Slurm, which starts the processes on the nodes: use -profile slurm, or --num_machines 1")
    nodes = ["srun", f"--nodes={compute.num_machines}", f"--ntasks={compute.num_machines}", "--ntasks-per-node=1"]
    meeting = [f"--rdzv_id={os.environ['SLURM_JOB_ID']}", "--rdzv_backend=c10d", f"--rdzv_endpoint={socket.gethostname()}:{PORT}"]
    return [*nodes, *command, *meeting]


def sharding(compute: Compute) -> dict[str, Any]:
    """Values of transformers.TrainingArguments that spread one model over the processes; on CPU each has all of it."""
    if world_size() == 1 or compute.parallelism == "ddp" or device() == "cpu":
        return {}
    if compute.parallelism == "fsdp":  # Zhao et al. 2023, https://arxiv.org/abs/2304.11277, in its second version
        return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}
    # ZeRO-3: Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054
    same = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto")
    return {"deepspeed": {**same, "bf16": {"enabled": "auto"}, "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}}}
