"""The command llamaflow, as set-up installs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import ROOT


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """The command as set-up installs it, in a place whose name has a space."""
    home = tmp_path / "my programs"
    (home / ".venv/bin").mkdir(parents=True)
    (home / "bin").symlink_to(ROOT / "bin")
    for name, text in {"python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "llamaflow": (ROOT / "scripts/llamaflow.sh").read_text()}.items():
        (home / ".venv/bin" / name).write_text(text)
        (home / ".venv/bin" / name).chmod(0o755)
    return home / ".venv/bin/llamaflow"


def test_the_command(command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faq.jsonl").touch()

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([command, *arguments], capture_output=True, text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, timeout=60)

    Path("my config.yml").write_text((ROOT / "tests/data/importers/axolotl-qlora.yaml").read_text())
    done = call("import-config", "my config.yml", "--output", "new place/my.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("axolotl configuration my config.yml: 21 parameters in new place/my.yaml\napproximated:\n")
    assert yaml.safe_load(Path("new place/my.yaml").read_text())["input"] == "faq.jsonl"
    refused = call("import-config", "nothing.yml")
    assert (refused.returncode, refused.stderr) == (64, "error: there is no file nothing.yml. Check the spelling.\n")
    assert "find-subjects FILE" in call().stdout
    assert call("train").returncode == 64
