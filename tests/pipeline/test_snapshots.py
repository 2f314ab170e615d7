"""What the scenarios of test_scenarios.yml leave behind: names and shapes, never weights or figures."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion


def names(directory: Path) -> list[str]:
    """Files below a directory; hashes of content in names are masked."""
    files = (str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file())
    return sorted(re.sub(r"[0-9a-f]{8}(?=/|\.json|$)", "<hash>", name) for name in files)


@pytest.mark.workflow("stub")
def test_stub_leaves_every_result(workflow_dir: Path, snapshot: SnapshotAssertion) -> None:
    assert names(workflow_dir / "results") == snapshot


@pytest.mark.workflow("tiny real run")
def test_results_of_a_real_run(workflow_dir: Path, snapshot: SnapshotAssertion) -> None:
    assert names(workflow_dir / "my results") == snapshot


@pytest.mark.workflow("tiny real run")
def test_tables_and_receipts(workflow_dir: Path, snapshot: SnapshotAssertion) -> None:
    results = workflow_dir / "my results"
    receipts = {file.parent.name: sorted(json.loads(file.read_text())) for file in sorted(results.glob("pipeline_info/receipts/*/*.json"))}
    columns = (results / "leaderboard.csv").read_text().splitlines()[0].split(",")
    assert {"receipts": receipts, "leaderboard": columns, "winner": sorted(json.loads((results / "winner.json").read_text()))} == snapshot


@pytest.mark.workflow("tiny real run")
def test_index_tells_the_truth(workflow_dir: Path) -> None:
    results = workflow_dir / "my results"
    index = json.loads((results / "index.json").read_text())
    assert len(index["files"]) > 20
    for entry in index["files"]:
        assert hashlib.sha256((results / entry["path"]).read_bytes()).hexdigest() == entry["sha256"], entry["path"]


@pytest.mark.workflow("tiny real run")
def test_released_model_loads_and_answers(workflow_dir: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    index = json.loads((workflow_dir / "my results" / "index.json").read_text())
    release = workflow_dir / "my results" / index["release"]
    tokenizer, model = AutoTokenizer.from_pretrained(release), AutoModelForCausalLM.from_pretrained(release)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "How many days?"}], add_generation_prompt=True, return_tensors="pt")
    assert model.generate(prompt["input_ids"], max_new_tokens=4, do_sample=False).shape[1] > prompt["input_ids"].shape[1]
