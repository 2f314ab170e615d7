"""Configurations of axolotl and LLaMA-Factory, and what lies beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from tiny import ROOT

# laid out as the examples that come with the tools
DATA = ROOT / "tests/data/importers"
EXAMPLES = {path.stem.partition("-")[2]: path.read_text() for path in sorted(DATA.glob("*.yaml"))}
QLORA, CHAT, FULL = (EXAMPLES[name] for name in ("qlora", "chat", "full"))  # axolotl's
LORA, QUANTISED, FREEZE = (EXAMPLES[name] for name in ("lora", "quantised", "freeze"))  # LLaMA-Factory's


def lay_out(root: Path) -> None:
    (root / "data").mkdir()
    (root / "files").mkdir()
    for name in ("a.jsonl", "b.csv", "README"):
        (root / "files" / name).write_text("")
    shutil.copy(DATA / "dataset_info.json", root / "data")


def keys_of(*texts: str) -> set[str]:
    return {key for text in texts for key in yaml.safe_load(text)}
