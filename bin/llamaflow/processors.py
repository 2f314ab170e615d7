"""What this machine's processor can do, without torch."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FAST_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # without them bfloat16 is slower than float32


def flags() -> str:
    """The processor's features, among other words; empty where the system does not tell."""
    return CPUINFO.read_text() if CPUINFO.exists() else ""


def has_fast_bfloat16() -> bool:
    found = flags()
    return any(flag in found for flag in FAST_BFLOAT16)
