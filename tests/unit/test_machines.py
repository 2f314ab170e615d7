"""What is known of machines before anything has run on them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from llamaflow import machines, processors
from llamaflow.params import Machine


@pytest.mark.parametrize(
    ("model", "machine"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("Quadro of another kind", "A10G"),
    ],
)
def test_the_gpu_of_this_machine(tmp_path: Path, model: str, machine: str) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0/information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 12\n")
    assert machines.this_one(tmp_path) == machine


def test_a_machine_without_a_gpu(tmp_path: Path) -> None:
    assert machines.this_one(tmp_path / "nowhere") == "cpu"


def test_every_machine_that_may_be_named_is_known() -> None:
    assert set(get_args(Machine)) == {"auto", "cpu", *machines.PEAK}


@pytest.mark.parametrize(("flags", "size", "speed"), [("avx2 avx512f amx_bf16", 2, 80e9), ("avx2 avx512f", 4, 40e9), ("avx2", 4, 20e9)])
def test_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, size: int, speed: float) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(processors, "CPUINFO", tmp_path / "cpuinfo")
    assert (machines.bytes_a_number("cpu", "auto"), machines.speed("cpu", "auto")) == (size, speed)
    assert machines.bytes_a_number("cpu", "float32") == 4
    assert machines.speed("cpu", "float32") <= 40e9


def test_gpus() -> None:
    assert machines.bytes_a_number("L4", "auto") == 2
    assert machines.speed("H100", "float32") < machines.speed("H100", "auto") < machines.PEAK["H100"]
