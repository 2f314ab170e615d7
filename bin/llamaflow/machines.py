"""How fast machines train, roughly: what a first estimate needs until trials of the same model have been timed."""

from __future__ import annotations

from pathlib import Path

from llamaflow.processors import flags, has_fast_bfloat16

# FLOPs a second of dense bfloat16 products, from NVIDIA's data sheets
PEAK = {
    "A10G": 70e12,
    "A100": 312e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX3090": 71e12,
    "RTX4090": 165e12,
    "RTX5090": 209e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}
UTILISATION = 0.25  # a guess for batches of a few thousand tokens; large models reach more, small ones less
TENSOR_FLOAT32 = 0.5  # of the speed in bfloat16
LAUNCHES = 2e-3  # seconds a layer and step at least: a GPU waits for its small kernels to be launched; a guess too
# FLOPs a second of one core, whole trainings included: 78 measured with bfloat16 on AMX, 45 with float32 on AVX-512; AVX2 is a guess
CORE = {"bfloat16": 80e9, "avx512f": 40e9, "other": 20e9}
GPUS = Path("/proc/driver/nvidia/gpus")


def this_one(gpus: Path = GPUS) -> str:
    """The first GPU of this machine if it is in the table (another one counts as an A10G), else cpu."""
    models = [file.read_text().replace(" ", "") for file in sorted(gpus.glob("*/information"))]
    if not models:
        return "cpu"
    return next((name for name in sorted(PEAK, key=len, reverse=True) if name in models[0]), "A10G")


def device(machine: str) -> str:
    return "cpu" if machine == "cpu" else "cuda"


def name(machine: str) -> str:
    return "one core of this processor" if machine == "cpu" else f"one {machine}"


def speed(machine: str, dtype: str) -> float:
    """FLOPs a second of a training in this precision (auto, float32, bfloat16)."""
    if machine != "cpu":
        return PEAK[machine] * UTILISATION * (TENSOR_FLOAT32 if dtype == "float32" else 1)
    if bytes_a_number(machine, dtype) == 2 and has_fast_bfloat16():
        return CORE["bfloat16"]
    return CORE["avx512f" if "avx512f" in flags() else "other"]


def shortest_step(machine: str, layers: int) -> float:
    """Seconds below which no optimiser step gets, however little there is to compute."""
    return 0.0 if machine == "cpu" else LAUNCHES * layers


def bytes_a_number(machine: str, dtype: str) -> int:
    """Of weights and activations; auto is bfloat16 where that is fast."""
    if dtype == "auto":
        dtype = "bfloat16" if machine != "cpu" or has_fast_bfloat16() else "float32"
    return 2 if dtype == "bfloat16" else 4
