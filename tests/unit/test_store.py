"""The checkpoint store: entries are whole, and used only for what they were made for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from full_disk import no_room_beyond

from llamaflow.errors import as_llamaflow_error
from llamaflow.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/a.txt").write_text("first")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_entry_comes_back_under_its_key_only(store: Store, source: Path, tmp_path: Path) -> None:
    store.keep("trial", "trained", "key", source)
    assert store.find("trial", "trained", "other") is None
    assert store.find("trial", "evaluation", "key") is None
    assert not store.restore("trial", "trained", "other", tmp_path / "target")
    assert store.restore("trial", "trained", "key", tmp_path / "target")
    assert files(tmp_path / "target") == ["sub/a.txt"]


def test_a_new_entry_replaces_the_old_one(store: Store, source: Path) -> None:
    store.keep("trial", "trained", "key", source)
    (source / "sub/a.txt").rename(source / "b.txt")
    store.keep("trial", "trained", "key-2", source)
    entry = store.find("trial", "trained", "key-2")
    assert entry is not None
    assert files(entry) == ["b.txt", "store_key"]
    assert store.find("trial", "trained", "key") is None
    assert [path.name for path in entry.parent.iterdir()] == ["trained"]


def test_removing_the_source_or_the_entry_leaves_the_other(store: Store, source: Path, tmp_path: Path) -> None:
    store.keep("trial", "trained", "key", source)
    shutil.rmtree(source)
    assert store.restore("trial", "trained", "key", tmp_path / "target")
    store.drop("trial", "trained")
    assert store.find("trial", "trained", "key") is None
    assert (tmp_path / "target/sub/a.txt").read_text() == "first"
    store.drop("trial", "trained")


def test_an_entry_without_a_key_is_not_whole(store: Store, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "store/trial/trained")
    assert store.find("trial", "trained", "") is None


def test_no_directory_keeps_nothing(source: Path, tmp_path: Path) -> None:
    for nothing in (Store(None), Store("")):
        nothing.keep("trial", "trained", "key", source)
        nothing.drop("trial", "trained")
        assert not nothing.restore("trial", "trained", "key", tmp_path / "target")


def test_another_disk(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hard links do not work, files are copied."""

    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    store.keep("trial", "trained", "key", source)
    assert (store.find("trial", "trained", "key") or Path()).joinpath("sub/a.txt").read_text() == "first"


def test_a_full_disk_leaves_the_old_entry(store: Store, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_another_disk(store, source, monkeypatch)
    (source / "large").write_bytes(bytes(100_000))
    with no_room_beyond(1000), pytest.raises(OSError) as failed:
        store.keep("trial", "trained", "key-2", source)
    assert "no room left" in str(as_llamaflow_error(failed.value))
    assert files(tmp_path / "store") == ["trial/trained/store_key", "trial/trained/sub/a.txt"]
    assert store.find("trial", "trained", "key") is not None
