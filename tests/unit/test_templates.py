"""Templates and labels of the samplesheet: what is understood, what is refused, and the records that come of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from record_files import encoded, rows

from llamaflow.rows import shape_for, to_record
from llamaflow.sources import Source, words_of
from llamaflow.templates import columns_of, parts_of
from llamaflow.textfiles import Unusable

NAMES = st.text(st.characters(blacklist_characters="[]{}:!", blacklist_categories=["Cs"]), min_size=1).filter(str.strip)
PLAIN = st.text(st.characters(blacklist_characters="\\", blacklist_categories=["Cs"]))
Collect = Callable[..., list[dict[str, Any]]]


@given(st.lists(st.tuples(PLAIN, NAMES)), PLAIN)
def test_what_is_written_is_what_is_read(pairs: list[tuple[str, str]], end: str) -> None:
    doubled = [(plain.replace("{", "{{").replace("}", "}}"), name) for plain, name in [*pairs, (end, "")]]
    parts = parts_of("".join(plain + (f"{{{name}}}" if name else "") for plain, name in doubled))
    assert (
        "".join(plain + ("" if name is None else f"\0{name}\0") for plain, name in parts)
        == "".join(plain + f"\0{name.strip().lower()}\0" for plain, name in pairs) + end
    )


@given(st.text(st.sampled_from("{}[]!:.\\na ")) | st.text())
def test_any_text_is_a_template_or_refused(text: str) -> None:
    with suppress(ValueError):
        columns_of(text)


@pytest.mark.parametrize("template", ["{", "}", "{}", "{ }", "{a!r}", "{a:>9}", "{a[0]}", "{a:{b}}", "{a"])
def test_only_plain_names(template: str) -> None:
    with pytest.raises(ValidationError, match=r"between braces|a brace"):
        Source(id="s", path="a.csv", text=template)


def test_a_name_with_dots_is_a_name() -> None:
    """No attribute is looked up: flattened tables have such columns."""
    assert columns_of("{a.__class__}: {b}", "{B }") == ("a.__class__", "b")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"prompt": "{a}"}, "prompt and completion need each other"),
        ({"completion": "{a}"}, "prompt and completion need each other"),
        ({"system": "Be kind."}, "and system needs them"),
        ({"prompt": "{a}", "completion": "{b}", "text": "{c}"}, "a source has one of them"),
        ({"prompt": "{a}", "completion": "Yes."}, "'Yes.' names no column"),
        ({"text": "a"}, "'a' names no column"),
        ({"text": "{a}", "type": "chat"}, "records of type text, not chat"),
        ({"labels": "0"}, "expected a word for each code"),
        ({"labels": "0=a,0=b"}, "a code is there twice"),
        ({"labels": "0=a,"}, "expected a word for each code"),
    ],
)
def test_what_does_not_fit_together(source: dict[str, str], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Source(id="s", path="a.csv", **source)  # type: ignore[arg-type]


@pytest.fixture
def collect(run_step: Any, tmp_path: Path) -> Collect:
    """Collect a CSV of these rows, and return the records."""

    def run(table: list[dict[str, Any]], **source: Any) -> list[dict[str, Any]]:
        (tmp_path / "a.csv").write_bytes(encoded(table, "csv"))
        settings = {"source": {"id": "faq", "path": "a.csv", **source}, "collection": {"max_dropped_fraction": 0.5}}
        run_step("collect_source", ["--path", tmp_path / "a.csv", "--outdir", tmp_path], settings)
        return rows(tmp_path / "collected.parquet")

    return run


TABLE = [{" Frage ": "When?", "antwort": "{Frage} is no column here", "amt": "HR", "label": 1}, {" Frage ": "Who?", "antwort": " ", "amt": "HR", "label": 1}]


def test_columns_as_a_conversation(collect: Collect, tmp_path: Path) -> None:
    (record,) = collect(TABLE, system="You are {{{AMT}}}.", prompt=r"[{amt}]\n{FRAGE}", completion="{antwort}")
    assert [(turn["role"], turn["content"]) for turn in record["messages"]] == [
        ("system", "You are {HR}."),
        ("user", "[HR]\nWhen?"),
        ("assistant", "{Frage} is no column here"),
    ]
    assert (record["type"], record["label"]) == ("chat", "1")
    assert [row["reason"] for row in rows(tmp_path / "collect_source.dropped.parquet")] == ["column 'antwort' has no value"]


def test_columns_as_a_text(collect: Collect) -> None:
    assert [record["text"] for record in collect(TABLE, text="{frage} {amt}")] == ["When? HR", "Who? HR"]


def test_a_column_that_is_not_there(collect: Collect, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        collect(TABLE, prompt="{question}", completion="{antwort}")
    assert stopped.value.code == 65
    assert "Found: amt, antwort, frage, label. Expected question + antwort, which its templates in the samplesheet name." in capsys.readouterr().err


def test_words_for_labels(collect: Collect, tmp_path: Path) -> None:
    table = [{"text": name, "label": code} for name, code in (("a", 0), ("b", "1.0"), ("c", " POS "), ("d", 7))]
    records = collect(table, labels="0=negative, 1=neutral, pos=positive")
    assert [(record["label"], record["messages"][1]["content"]) for record in records] == [(word, word) for word in ("negative", "neutral", "positive")]
    assert [row["reason"] for row in rows(tmp_path / "collect_source.dropped.parquet")] == ["unknown label"]


def test_words_for_labels_in_templates() -> None:
    source = Source(id="s", path="a.csv", prompt="Mood of {t}?", completion="{label}", labels="true=good,false=bad")
    row = {"t": "Yay", "label": True}
    shape = shape_for(row, source)
    assert shape
    made = to_record(row, shape, source, "a:1")
    assert (made["messages"][1]["content"], made["label"], made["liked"]) == ("good", "good", None)


def test_words_for_labels_where_there_are_none(collect: Collect, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        collect([{"question": "A?", "answer": "B."}], labels="0=a")
    assert "labels has words for the column label, and a.csv has none. Found: answer, question." in capsys.readouterr().err


@pytest.mark.parametrize("value", [["a"], {"a": 1}, None, True])
def test_a_cell_that_is_no_text(value: Any) -> None:
    source = Source(id="s", path="a.jsonl", text="{a}")
    shape = shape_for({"a"}, source)
    assert shape
    with pytest.raises(Unusable, match="column 'a'"):
        to_record({"a": value}, shape, source, "a:1")


def test_no_labels_no_words() -> None:
    assert words_of("") == {}


def test_a_manual_as_questions_and_answers(run_step: Any, tmp_path: Path) -> None:
    """Sections without what the template asks for are left out by its choice: they do not count against the source."""
    (tmp_path / "leave.md").write_text("# Leave\n\nIntroduction.\n\n## Selling days ##\n\nUp to ten.\n\n### When\n\nIn March.\n")
    source = {"id": "manual", "path": "leave.md", "prompt": "What does {title} say about {heading}?", "completion": "{body}"}
    run_step("collect_source", ["--path", tmp_path / "leave.md", "--outdir", tmp_path], {"source": source, "collection": {"max_dropped_fraction": 0}})
    assert [[turn["content"] for turn in record["messages"]] for record in rows(tmp_path / "collected.parquet")] == [
        ["What does Leave say about Selling days?", "Up to ten."],
        ["What does Leave say about Selling days > When?", "In March."],
    ]
    assert [row["reason"] for row in rows(tmp_path / "collect_source.dropped.parquet")] == ["section without heading"]


def test_a_text_without_headings_is_no_manual(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("Only text.\n")
    source = {"id": "manual", "path": "a.txt", "prompt": "{heading}?", "completion": "{body}"}
    with pytest.raises(SystemExit) as stopped:
        run_step("collect_source", ["--path", tmp_path / "a.txt", "--outdir", tmp_path], {"source": source})
    assert stopped.value.code == 65
    assert "no record could be made of it: 1 x section without heading" in capsys.readouterr().err
