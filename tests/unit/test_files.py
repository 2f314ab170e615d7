"""Hashes and atomic writes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llamaflow.files import read_json, sha256, short_hash, write_json, write_text


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"x" * 100_000).hexdigest()


def test_sha256_of_a_directory_tells_names_and_contents(tmp_path: Path) -> None:
    def directory(name: str, **files: str) -> str:
        for file, text in files.items():
            path = tmp_path / name / file.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return sha256(tmp_path / name)

    first = directory("first", a="1", sub_b="2")
    assert directory("second", sub_b="2", a="1") == first
    assert len({first, directory("third", a="2", sub_b="1"), directory("fourth", a="1", b="2"), directory("fifth", a="1")}) == 4


def test_short_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert short_hash({"a": 1, "b": [1.5, None]}) == short_hash({"b": [1.5, None], "a": 1})
    assert short_hash({"a": 1}) != short_hash({"a": 2})
    assert len(short_hash({}, 12)) == 12


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert read_json(path) == {"é": 1}


def test_a_write_does_not_go_through_a_hard_link(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    write_text(tmp_path / "b", "new")
    assert (tmp_path / "a").read_text() == "old"
