"""What every step does alike: settings from standard input, a receipt of what it did.

A step is a script in bin/ with parse_args(argv), run(...) and main(argv=None). Paths come as arguments; settings come as
one JSON object on standard input, so that no value of a user's ever meets a shell. The object holds the groups of
parameters that the step needs (see params.py) and whatever else the workflow hands over.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from llamaflow import __version__
from llamaflow.energy import EnergyMeter
from llamaflow.errors import UsageError
from llamaflow.files import sha256, write_json

REPORTED_PACKAGES = (
    "bitsandbytes",
    "datasets",
    "evaluate",
    "ftfy",
    "httpx",
    "multiqc",
    "numpy",
    "optuna",
    "peft",
    "pyarrow",
    "pydantic",
    "sacrebleu",
    "torch",
    "transformers",
    "trl",
)


def read_settings(file: Path | None = None) -> dict[str, Any]:
    """Read the JSON object on standard input, or in a file; nothing there means no settings."""
    text = file.read_text(encoding="utf-8") if file else "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    try:
        settings = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise UsageError(f"standard input must be one JSON object with the step's settings: {error}") from error
    if not isinstance(settings, dict):
        raise UsageError("standard input must be one JSON object with the step's settings")
    return settings


def say(text: str) -> None:
    """Print a line of progress. Nextflow's wrapper takes its end of the pipe away before a step has saved its work: then nobody reads it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for what is printed from now on, and at exit


@dataclass
class Receipt:
    """What a step did: written as <step>.json beside its results."""

    step: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None  # measured, unless the step does several things at once and knows what this one took
    peak_memory_bytes: int = 0  # of helping processes, beside what they share with this one; its own are added

    def add_input(self, path: Path) -> None:
        self.inputs[path.name] = sha256(path)

    def add_output(self, path: Path) -> None:
        self.outputs[path.name] = sha256(path)


@contextmanager
def receipt(step: str, settings: Mapping[str, Any], directory: Path = Path(), meter: EnergyMeter | None = None) -> Iterator[Receipt]:
    """Measure a step and, if it ends well, write its receipt to <directory>/<step>.json.

    seconds is wall time, peak_memory_bytes the largest resident set of the process or one of its ended children, energy_joules that of the
    machine's processors meanwhile (null if unknown). A step that sets the seconds of a part of its work gives the meter of the whole.
    """
    written, start, own = Receipt(step, settings), time.monotonic(), EnergyMeter()
    try:
        yield written
        energy = own.joules() if written.seconds is None else meter.joules(written.seconds) if meter else None
    finally:
        own.stop()
    measured = {
        "seconds": round(written.seconds or time.monotonic() - start, 3),
        "peak_memory_bytes": written.peak_memory_bytes
        + 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)),
        "energy_joules": energy if energy is None else round(energy, 1),
    }
    write_json(directory / f"{step}.json", {**vars(written), **measured, "versions": versions()})


def versions() -> dict[str, str]:
    """Versions of Python, LlamaFlow and of the packages that this process has imported."""
    loaded = {name: metadata.version(name) for name in REPORTED_PACKAGES if name in sys.modules}
    return {"python": platform.python_version(), "llamaflow": __version__, **loaded}
