"""Model references: all kinds, and what is none of them."""

from __future__ import annotations

import pytest

from llamaflow.errors import UsageError
from llamaflow.references import ModelReference, parse_reference, parse_references


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/Model-1.5B", ModelReference("Model-1.5B", "hub", "owner/Model-1.5B")),
        ("gpt2", ModelReference("gpt2", "hub", "gpt2")),
        ("owner/name@refs/pr/1", ModelReference("name", "hub", "owner/name", "refs/pr/1")),
        ("owner/name@", ModelReference("name", "hub", "owner/name")),
        ("./models/tiny", ModelReference("tiny", "path", "./models/tiny")),
        ("../tiny/", ModelReference("tiny", "path", "../tiny/")),
        ("~/tiny", ModelReference("tiny", "path", "~/tiny")),
        ("/data/my model", ModelReference("my-model", "path", "/data/my model")),
        ("models/tiny.Q4_1.gguf", ModelReference("tiny.Q4_1", "path", "models/tiny.Q4_1.gguf")),
        ("/", ModelReference("model", "path", "/")),
        ("pkg://weights/tiny.gguf", ModelReference("tiny", "package", "pkg://weights/tiny.gguf")),
        ("pkg://weights/sub/tiny", ModelReference("tiny", "package", "pkg://weights/sub/tiny")),
    ],
)
def test_kinds(text: str, expected: ModelReference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "pkg://weights",
        "pkg://weights/../../secret",
        "pkg://../weights/a",
        "pkg://weights//a",
        "pkg:///a",
        "a/b/c",
        "owner name",
        "@main",
        "-x/y",
        "owner/",
        "s3://bucket/model",
        "",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--models: "):
        parse_reference(text)


def test_the_same_model_twice_is_one() -> None:
    assert [reference.id for reference in parse_references(("owner/a", "owner/b", "owner/a"))] == ["a", "b"]


def test_two_models_of_one_name() -> None:
    with pytest.raises(UsageError, match="would both be called tiny"):
        parse_references(("owner/tiny", "./tiny", "owner/other"))
