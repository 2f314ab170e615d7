"""Settings from standard input, and receipts."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path

import pytest
from tiny import json_of

from llamaflow.errors import UsageError
from llamaflow.steps import read_settings, receipt


def given(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, '{"cleaning": {"min_characters": 3}}')
    assert read_settings() == {"cleaning": {"min_characters": 3}}
    given(monkeypatch, "")
    assert read_settings() == {}
    monkeypatch.setattr(sys, "stdin", None)
    assert read_settings() == {}


@pytest.mark.parametrize("text", ["[1]", "{", "3"])
def test_settings_that_are_no_object(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, text)
    with pytest.raises(UsageError, match="one JSON object"):
        read_settings()


def test_receipt(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a")
    with receipt("some_step", {"code": "x"}, tmp_path) as written:
        written.add_input(tmp_path / "in.txt")
        (tmp_path / "out.txt").write_text("b")
        written.add_output(tmp_path / "out.txt")
        written.counts = {"rows": 1}
    found = json_of(tmp_path / "some_step.json")
    assert found["step"] == "some_step"
    assert found["settings"] == {"code": "x"}
    assert found["inputs"] == {"in.txt": hashlib.sha256(b"a").hexdigest()}
    assert found["outputs"] == {"out.txt": hashlib.sha256(b"b").hexdigest()}
    assert found["counts"] == {"rows": 1}
    assert found["seconds"] >= 0
    assert found["peak_memory_bytes"] > 2**20
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_step_that_fails_leaves_no_receipt(tmp_path: Path) -> None:
    with pytest.raises(KeyError), receipt("some_step", {}, tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
