"""Parameters of a launch as text: what is read from it, and which words in it are local paths."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchpad import params
from launchpad.errors import ApiError

MANY = "!&*[]{}:,-?|>'\"%@`#\t\n 0123456789eE.+axnully~"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, {}),
        ("  \n", {}),
        ('{"a": 1, "b": [true, null]}', {"a": 1, "b": [True, None]}),
        ('{\n\t"a": 1\n}', {"a": 1}),
        ("a: 1e-3\nb: 5E-4\nc: .5e1\nd: -1e+2", {"a": 0.001, "b": 0.0005, "c": 5.0, "d": -100.0}),
        ("a: 2026-11-22\nb: 2026-11-22 11:14:16", {"a": "2026-11-22", "b": "2026-11-22 11:14:16"}),
        ("a: 1e5x\nb: 'yes'\nc: https://x/y", {"a": "1e5x", "b": "yes", "c": "https://x/y"}),
    ],
)
def test_json_and_yaml_are_read_alike(text: str | None, found: dict[str, Any]) -> None:
    assert params.parse(text) == found


@given(st.text() | st.text(alphabet=MANY) | st.builds(lambda name, word: f"a: !!{name} {word}", st.sampled_from(["int", "float", "bool", "null", "binary", "timestamp", "set", "omap", "pairs", "map", "seq", "str"]), st.text("x1[]{}", max_size=4)))  # fmt: skip
def test_any_text_is_a_mapping_of_plain_values_or_refused(text: str) -> None:
    with suppress(ApiError):
        found = params.parse(text)
        assert isinstance(found, dict)
        json.dumps(found, allow_nan=False).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")), st.lists, max_leaves=5
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), json_values))
def test_json_comes_through_unchanged(values: dict[str, Any]) -> None:
    assert params.parse(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("/etc/passwd", ["/etc/passwd"]),
        (["a", {"b": "/x"}, "c, /y z"], ["/x", "/y z"]),
        ("file:x", ["file:x"]),
        ("~/x", ["~/x"]),
        ("$HOME/x", ["$HOME/x"]),
        ("a/../../b", ["a/../../b"]),
        ("FILE:/x", ["FILE:/x"]),
        ("local:///x", ["local:///x"]),
        ("filecache::/x", ["filecache::/x"]),
        ("https://host/a/../b", []),
        ("postgresql://host/x", []),
        ("s3://bucket/x", []),
        ("a/b.csv", []),
        ("lr=1e-4 a..b", []),
        (7, []),
    ],
)
def test_words_that_are_local_paths(value: Any, found: list[str]) -> None:
    assert list(params.local_paths(value)) == found


def test_paths_are_within_a_directory_where_they_really_are(tmp_path: Path) -> None:
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    own.mkdir()
    foreign.mkdir()
    (own / "link").symlink_to(foreign)
    for path in (own, own / "x", own / ".." / "own" / "x", Path(f"file://{own}/x"), Path(f"file:{own}/x")):
        assert params.within(str(path).replace("file:/", "file:///", 1) if "file:" in str(path) else str(path), [own])
    for path in (foreign, own / ".." / "foreign", own / "link" / "x", tmp_path / "own2", Path("own"), Path("~")):
        assert not params.within(str(path), [own])
