"""What is particular to a file format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llamaflow import sections, textfiles
from llamaflow.errors import DataError
from llamaflow.formats import rows_of
from llamaflow.textfiles import Unusable


def read(path: Path, file_format: str, content: str) -> list[tuple[int, Any]]:
    path.write_text(content, encoding="utf-8", newline="")
    return [(number, (row.reason, row.detail) if isinstance(row, Unusable) else row) for number, row in rows_of(path, file_format)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.data"


def test_jsonl_has_line_numbers_and_skips_blank_lines(path: Path) -> None:
    assert read(path, "jsonl", '{"a": 1}\r\n\r\n{"a": "\u2028"}') == [(1, {"a": 1}), (3, {"a": "\u2028"})]


def test_deeply_nested_json_is_one_unusable_row(path: Path) -> None:
    (first, (reason, _)), second = read(path, "jsonl", "[" * 100_000 + '\n{"a": 1}\n')
    assert (first, reason, second) == (1, "not valid JSON", (2, {"a": 1}))


def test_overlong_line_is_one_unusable_row(path: Path) -> None:
    size = textfiles.LINE_BYTES + 5_000_000
    path.write_text(json.dumps({"a": "x" * size}) + '\n{"a": 1}\n')
    (_, first), second = rows_of(path, "jsonl")
    assert isinstance(first, Unusable)
    assert first.reason == "line longer than 64 MiB"
    assert second == (2, {"a": 1})


def test_json_list_inside_an_object(path: Path) -> None:
    assert read(path, "json", '{"version": 1, "data": [{"a": 1}]}') == [(1, {"a": 1})]


def test_json_lines_under_a_json_name(path: Path) -> None:
    assert read(path, "json", '{"a": [{"b": 1}]}\n{"a": 2}\n') == [(1, {"a": [{"b": 1}]}), (2, {"a": 2})]


def test_json_on_one_line_is_not_json_lines(path: Path) -> None:
    assert read(path, "json", '{"data": [{"a": 1}]}\n\n') == [(1, {"a": 1})]


@pytest.mark.parametrize("content", ['{"a": 1}', '{"a": [{"b": 1}], "c": [{"d": 1}]}', '"text"', '{"text": {"0": "pandas"}}'])
def test_json_without_one_list(path: Path, content: str) -> None:
    with pytest.raises(DataError, match="array of objects"):
        read(path, "json", content)


def test_damaged_json_is_refused_with_the_place(path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.data:2: not valid JSON .*column 10"):
        read(path, "json", '[{"a": 1},\n {"a": 2 "b": 3}]')


def test_csv_cells_over_several_lines_count_from_their_first(path: Path) -> None:
    assert read(path, "csv", 'a,b\r\n"x\r\ny",1\r\n\r\nz,2\r\n') == [(2, {"a": "x\ny", "b": "1"}), (5, {"a": "z", "b": "2"})]


def test_csv_with_semicolons(path: Path) -> None:
    assert read(path, "csv", "a;b\nx, y;1\n") == [(2, {"a": "x, y", "b": "1"})]


def test_csv_rows_that_do_not_fit_the_header(path: Path) -> None:
    fault = "wrong number of cells"
    assert read(path, "csv", "a,b\n1,2,3\n4\n5,6\n") == [
        (2, (fault, "3, but the header has 2")),
        (3, (fault, "1, but the header has 2")),
        (4, {"a": "5", "b": "6"}),
    ]


def test_csv_goes_on_after_a_malformed_row(path: Path) -> None:
    (number, (reason, _)), good = read(path, "csv", 'a,b\n"x" y,1\n5,6\n')
    assert (number, reason, good) == (2, "malformed CSV row", (3, {"a": "5", "b": "6"}))


def test_csv_with_an_open_quote_names_the_row_where_it_opens(path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.data:3: a quote .* never closed"):
        read(path, "csv", 'a,b\n1,2\n"3,4\n5,6\n7,8\n')


def test_tsv_keeps_quotes_that_belong_to_the_text(path: Path) -> None:
    content = 'a\tb\n"Yes" he said\t"an ""odd"" one"\n"one" and "two"\t"\n'
    assert read(path, "tsv", content) == [(2, {"a": '"Yes" he said', "b": 'an "odd" one'}), (3, {"a": '"one" and "two"', "b": '"'})]


def test_short_text_is_one_record(path: Path) -> None:
    ((number, row),) = read(path, "txt", "\n\none\n\ntwo\nthree\n\n")
    assert (number, row["text"]) == (3, "one\n\ntwo\nthree\n")


def test_long_text_is_cut_between_paragraphs(path: Path) -> None:
    paragraph = "word " * 200
    found = read(path, "txt", "\n\n".join([paragraph] * 20))
    assert [number for number, _ in found] == [1, 9, 17, 25, 33]
    assert "\n\n".join(row["text"].rstrip("\n") for _, row in found) == "\n\n".join([paragraph] * 20)


def test_long_text_without_paragraphs_is_cut_between_lines(path: Path) -> None:
    found = read(path, "txt", "\n".join(["x" * 999] * 20))
    assert [len(row["text"]) for _, row in found] == [7999, 7999, 3999]
    assert sections.TEXT_CHARACTERS == 4000


def test_markdown_sections_stand_under_their_headings(path: Path) -> None:
    content = "intro\n# A\n\n## B\nb\n```sh\n# no heading\n```\n## C ##\n\nc\n# D#\nd\n#hashtag\n"
    assert [(number, row["text"], str(row["title"]), str(row["heading"])) for number, row in read(path, "markdown", content)] == [
        (1, "intro", "document without title", "section without heading"),
        (4, "# A\n\n## B\n\nb\n```sh\n# no heading\n```", "A", "B"),
        (9, "# A\n\n## C ##\n\nc", "A", "C"),
        (12, "# D#\n\nd\n#hashtag", "A", "D#"),
    ]


def test_parquet_row_numbers_go_on_over_row_groups(path: Path) -> None:
    pq.write_table(pa.table({"a": range(1500)}), path, row_group_size=700)
    assert [(number, row) for number, row in rows_of(path, "parquet")] == [(number, {"a": number - 1}) for number in range(1, 1501)]


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow(path: Path, kind: str) -> None:
    table = pa.Table.from_pylist([{"text": "one"}, {"text": "two"}])
    with path.open("wb") as sink, (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    assert list(rows_of(path, "arrow")) == [(1, {"text": "one"}), (2, {"text": "two"})]


def test_what_is_no_arrow_file(path: Path) -> None:
    path.write_bytes(b"ARROW1 and then nothing")
    with pytest.raises(DataError, match="is not an Arrow file"):
        list(rows_of(path, "arrow"))
