"""publish_model: a release whose manifest is true, an index of everything, or the reason why there is no release."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import json_of

PARITY = {"passed": True, "relative_difference": 0.01, "allowed_relative_difference": 0.1}
WINNER = {"trial_id": "tiny-lora-r8-0a1b2c3d", "passed": True, "reason": "It is better."}


class Publish:
    def __init__(self, run_step: Any, folder: Path) -> None:
        self.run_step, self.folder, self.out = run_step, folder, folder / "out"
        self.out.mkdir()
        self.write("results/leaderboard.csv", "rank\n")
        self.write("results/data/train.parquet", "records")
        self.write(f"results/trials/{WINNER['trial_id']}/trial.json", "{}")
        self.write("elsewhere/metrics.json", "{}")
        (folder / "results/evaluations").mkdir()
        (folder / "results/evaluations/base-tiny").symlink_to(folder / "elsewhere")

    def write(self, path: str, text: str) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def parts(self, parity: dict[str, Any], *, adapter: bool = True) -> list[Path]:
        trial = f"parts/{WINNER['trial_id']}"
        self.write("parts/merged/model.safetensors", "weights")
        self.write("parts/merged/config.json", "{}")
        self.write("parts/README.md", "# Card")
        self.write("parts/parity.json", json.dumps(parity))
        self.write(f"{trial}/trial.json", '{"trial": 1}')
        if adapter:
            self.write(f"{trial}/adapter/adapter_model.safetensors", "adapter")
        return sorted((self.folder / "parts").iterdir())

    def __call__(self, winner: dict[str, Any] | None = None, parity: dict[str, Any] | None = None, *, adapter: bool = True, **export: Any) -> dict[str, Any]:
        """Publish; returns index.json."""
        found = WINNER | (winner or {})
        args: list[Any] = ["--winner", self.write("winner.json", json.dumps(found)), "--results", self.folder / "results", "--outdir", self.out]
        if found["passed"]:
            args += ["--parts", *self.parts(PARITY | (parity or {}), adapter=adapter)]
        self.run_step("publish_model", args, {"export": export})
        index: dict[str, Any] = json_of(self.out / "index.json")
        return index


@pytest.fixture
def publish(run_step: Any, tmp_path: Path) -> Publish:
    return Publish(run_step, tmp_path)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_release(publish: Publish, capsys: pytest.CaptureFixture[str]) -> None:
    index = publish(release_name="faq")
    assert (index["published"], index["winner"], index["reason"]) == (True, WINNER["trial_id"], "It is better.")
    assert index["release"] == "release/faq/0a1b2c3d", "by default the version is the winner's hash"
    release = publish.out / index["release"]
    names = {"model.safetensors", "config.json", "README.md", "parity.json", "trial.json", "adapter/adapter_model.safetensors", "manifest.json"}
    assert {str(file.relative_to(release)) for file in release.rglob("*") if file.is_file()} == names
    assert list((publish.out / "release/faq").iterdir()) == [release]
    assert "Released release/faq/0a1b2c3d: It is better." in capsys.readouterr().out


def test_the_manifest_is_true(publish: Publish) -> None:
    release = publish.out / publish(release_name="faq", release_version="1.0")["release"]
    assert release.name == "1.0"
    manifest = json_of(release / "manifest.json")
    assert (manifest["name"], manifest["version"], manifest["trial_id"]) == ("faq", "1.0", WINNER["trial_id"])
    files = {str(file.relative_to(release)): file for file in release.rglob("*") if file.is_file() and file.name != "manifest.json"}
    assert manifest["files"] == {name: {"sha256": digest(file), "bytes": file.stat().st_size} for name, file in files.items()}


def test_the_index_names_every_file_in_the_output_directory(publish: Publish) -> None:
    index = publish()
    listed = {entry["path"]: entry for entry in index["files"]}
    assert len(listed) == len(index["files"])
    assert set(listed) == {
        "leaderboard.csv",
        "data/train.parquet",
        "evaluations/base-tiny/metrics.json",
        f"trials/{WINNER['trial_id']}/trial.json",
        *(f"{index['release']}/{file.relative_to(publish.out / index['release'])}" for file in (publish.out / index["release"]).rglob("*") if file.is_file()),
    }
    for path, entry in listed.items():
        file = (publish.out if path.startswith("release/") else publish.folder / "results") / path
        assert (entry["sha256"], entry["bytes"]) == (digest(file), file.stat().st_size)


def test_a_whole_model_has_no_adapter(publish: Publish) -> None:
    assert not (publish.out / publish(adapter=False)["release"] / "adapter").exists()


def test_publishing_changes_none_of_its_parts(publish: Publish) -> None:
    publish()
    assert {path.name for path in (publish.folder / "parts/merged").iterdir()} == {"model.safetensors", "config.json"}


def test_the_gate_said_no(publish: Publish, capsys: pytest.CaptureFixture[str]) -> None:
    index = publish({"passed": False, "reason": "It may be luck."})
    assert (index["published"], index["release"], index["reason"]) == (False, None, "It may be luck.")
    assert not (publish.out / "release").exists()
    assert "leaderboard.csv" in {entry["path"] for entry in index["files"]}
    assert "Nothing released: It may be luck." in capsys.readouterr().out
    assert json_of(publish.out / "publish_model.json")["counts"] == {"files": 4, "published": False}


def test_nothing_could_be_compared(publish: Publish) -> None:
    index = publish({"trial_id": None, "passed": False, "reason": "None of the 2 trials has a result."})
    assert (index["published"], index["winner"]) == (False, None)


def test_a_merge_that_answers_differently_is_not_released(publish: Publish) -> None:
    index = publish(parity={"passed": False, "relative_difference": 0.42})
    assert (index["published"], index["release"]) == (False, None)
    assert "logits differ by 0.42 of their spread, 0.1 is allowed (--parity_max_difference)" in index["reason"]
    assert not (publish.out / "release").exists()
