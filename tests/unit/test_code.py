"""A step's digest of code changes with what the step imports, directly or not, and with nothing else."""

from __future__ import annotations

import ast
import functools
import shutil
from pathlib import Path

import pytest
from tiny import ROOT

from check_params import GROUPS_OF_STEPS
from llamaflow.code import digest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "bin", tmp_path / "bin", ignore=shutil.ignore_patterns("__pycache__")))


@functools.cache
def here() -> dict[str, str]:
    return {step: digest(step) for step in GROUPS_OF_STEPS}


def changed_by(root: Path, file: str) -> set[str]:
    """Steps whose digest an edit of a file changes."""
    with (root / file).open("a") as source:
        source.write("# edited\n")
    return {step for step in GROUPS_OF_STEPS if digest(step, root) != here()[step]}


def test_the_digest_does_not_depend_on_the_place(root: Path) -> None:
    assert {step: digest(step, root) for step in GROUPS_OF_STEPS} == here()
    assert len(set(here().values())) == len(GROUPS_OF_STEPS)


def test_statistics(root: Path) -> None:
    changed = changed_by(root, "llamaflow/stats.py")
    assert {"rank_trials", "evaluate_model"} <= changed
    assert changed.isdisjoint({"fetch_model", "plan_trials", "tokenize_dataset", "train_trials", "merge_model", "collect_source"})


def test_imports_inside_functions_and_through_others(root: Path) -> None:
    changed = changed_by(root, "llamaflow/techniques.py")
    assert {"train_trials", "evaluate_model", "merge_model"} <= changed
    assert changed.isdisjoint({"plan_trials", "tokenize_dataset", "rank_trials"})


def test_what_one_step_alone_imports(root: Path) -> None:
    assert changed_by(root, "llamaflow/training.py") == {"train_trials"}


def test_a_step_changes_itself_only(root: Path) -> None:
    assert changed_by(root, "merge_model.py") == {"merge_model"}


def test_what_all_share(root: Path) -> None:
    assert changed_by(root, "llamaflow/steps.py") == set(GROUPS_OF_STEPS)


def test_every_step_is_known() -> None:
    steps = {file.stem for file in (ROOT / "bin").glob("*.py") if "@exits_cleanly" in file.read_text(encoding="utf-8")}
    assert set(GROUPS_OF_STEPS) == steps - {"check_params"}


def test_no_relative_imports() -> None:
    """The digest would not see them."""
    for file in (ROOT / "bin").rglob("*.py"):
        assert not [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.ImportFrom) and node.level]
