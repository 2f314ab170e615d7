"""Columns in, records out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamaflow.rows import shape_of, to_record
from llamaflow.sources import Source
from llamaflow.textfiles import Unusable

PAIR = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]
USER, ASSISTANT = ([turn] for turn in PAIR)
OTHER = [{"role": "assistant", "content": "C."}]
SYSTEM = [{"role": "system", "content": "Be kind."}]


def record(row: dict[str, Any], **source: Any) -> dict[str, Any]:
    made = Source(id="s", path="p.csv", **source)
    shape = shape_of(row, made.type)
    assert shape is not None
    return to_record(row, shape, made, "p.csv:2")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": PAIR}, PAIR),
        ({"messages": json.dumps(PAIR)}, PAIR),
        ({"messages": PAIR, "system": "Be kind."}, SYSTEM + PAIR),
        ({"messages": SYSTEM + PAIR, "system": "Be rude."}, SYSTEM + PAIR),
        ({"messages": [{"role": "User", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "?"}]}, *ASSISTANT]}, PAIR),
        ({"prompt": "A?", "completion": "B."}, PAIR),
        ({"prompt": USER, "completion": ASSISTANT}, PAIR),
        ({"prompt": json.dumps(SYSTEM + USER), "completion": "B."}, SYSTEM + PAIR),
        ({"prompt": "[1] A?", "completion": "[2, 3]"}, [{"role": "user", "content": "[1] A?"}, {"role": "assistant", "content": "[2, 3]"}]),
        ({"instruction": "A?", "output": "B."}, PAIR),
        ({"instruction": "A?", "input": "", "output": "B.", "history": None, "system": ""}, PAIR),
        ({"instruction": "Sum", "input": "1 2", "output": 3}, [{"role": "user", "content": "Sum\n\n1 2"}, {"role": "assistant", "content": "3"}]),
        ({"instruction": "A?", "output": "B.", "history": [["A?", "B."]], "system": "Be kind."}, SYSTEM + PAIR + PAIR),
        ({"instruction": "A?", "output": "B.", "history": '[["A?", "B."]]'}, PAIR + PAIR),
        ({"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "A?"}, {"from": "gpt", "value": "B."}]}, SYSTEM + PAIR),
        ({"question": "A?", "answer": "B."}, PAIR),
    ],
)
def test_chat(row: dict[str, Any], expected: list[dict[str, str]]) -> None:
    made = record(row)
    assert (made["type"], made["messages"], made["label"]) == ("chat", expected, None)


@pytest.mark.parametrize(("label", "expected"), [("spam", "spam"), (1, "1"), (" ham ", "ham")])
def test_label_is_also_the_answer(label: Any, expected: str) -> None:
    made = record({"text": "Buy!", "label": label})
    assert made["label"] == expected
    assert made["messages"] == [{"role": "user", "content": "Buy!"}, {"role": "assistant", "content": expected}]


def test_text_with_a_label_stays_text_where_the_samplesheet_says_so() -> None:
    made = record({"text": "Buy!", "label": "spam"}, type="text")
    assert (made["type"], made["text"], made["label"]) == ("text", "Buy!", "spam")
    assert "messages" not in made


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "A?", "chosen": "B.", "rejected": "C."},
        {"prompt": USER, "chosen": ASSISTANT, "rejected": OTHER},
        {"chosen": PAIR, "rejected": USER + OTHER},
        {"prompt": "A?", "chosen": PAIR, "rejected": USER + OTHER, "messages": PAIR},
        {"prompt": "A?", "chosen": json.dumps(ASSISTANT), "rejected": json.dumps(OTHER)},
    ],
)
def test_preference(row: dict[str, Any]) -> None:
    made = record(row)
    assert (made["type"], made["prompt"], made["chosen"], made["rejected"]) == ("preference", USER, ASSISTANT, OTHER)


def test_equal_answers_keep_their_last_turn() -> None:
    made = record({"chosen": PAIR, "rejected": PAIR})
    assert (made["prompt"], made["chosen"], made["rejected"]) == (USER, ASSISTANT, ASSISTANT)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": None}, "column 'text' has no value"),
        ({"text": float("nan")}, "column 'text' has no value"),
        ({"text": {"a": 1}}, "column 'text' is not plain text"),
        ({"text": "a", "label": None}, "column 'label' has no value"),
        ({"text": "a", "label": " "}, "column 'label' has no value"),
        ({"text": "a", "url": ["b"]}, "column 'url' is not plain text"),
        ({"text": "half \ud800"}, "broken Unicode"),
        ({"messages": "[{'role': 'user'}]"}, "column 'messages' is not a list of messages"),
        ({"messages": ["a"]}, "column 'messages' is not a list of messages"),
        ({"messages": None}, "column 'messages' has no value"),
        ({"messages": [{"role": "user", "content": None}]}, "message without role or text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "message without role or text"),
        ({"chosen": "a", "rejected": "b"}, "preference without a prompt"),
        ({"instruction": "a", "output": "b", "history": "x"}, None),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "column 'history' is not a list of pairs"),
        ({"text": "a", "split": "holdout"}, "unknown split"),
    ],
)
def test_rows_that_cannot_become_records(row: dict[str, Any], reason: str | None) -> None:
    if reason is None:
        assert len(record(row)["messages"]) == 2
        return
    with pytest.raises(Unusable) as problem:
        record(row)
    assert problem.value.reason == reason


@pytest.mark.parametrize(
    ("given", "expected"),
    [("train", "train"), ("VAL", "validation"), ("dev", "validation"), ("valid", "validation"), ("eval", "validation"), ("test", "test"), ("", None)],
)
def test_names_of_splits(given: str, expected: str | None) -> None:
    assert record({"text": "a", "split": given})["split"] == expected


def test_no_shape_for_other_columns() -> None:
    assert shape_of({"a", "b"}, None) is None
    assert shape_of({"text"}, "chat") is None
