"""What each process runs in and on, as Nextflow itself resolves it; no container engine is needed for that."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = re.findall(r"^    version\s*=\s*'(.*)'", (ROOT / "nextflow.config").read_text(), re.MULTILINE)[0]


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Image by process."""
    directory = tmp_path_factory.mktemp("inspect")
    command = ["nextflow", "-q", "inspect", str(ROOT), "-profile", "docker", "--outdir", "x", "--input", "x.jsonl", "--models", "a/b"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    processes: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("{") :])["processes"]
    return {process["name"]: process["container"] for process in processes}


def test_every_module_is_used_and_has_an_image_of_its_own_and_this_version(inspected: dict[str, str]) -> None:
    steps = [directory.parent.name for directory in ROOT.glob("modules/local/*/main.nf")]
    assert inspected == {step.upper(): f"ghcr.io/llamaflow/{step}:{VERSION}" for step in steps}
