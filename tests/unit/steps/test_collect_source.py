"""collect_source: files of every format become records, and what cannot is dropped with a reason or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_files import ENDINGS, PACKERS, encoded, receipt, rows
from web_servers import Answer, serving

Collect = Callable[..., list[dict[str, Any]]]
FAQ = [{"question": "Férias?", "answer": "30 dias.\n\nA cada ano."}, {"question": 'The "form"?', "answer": "F-1; see 2.3, please"}]


@pytest.fixture
def collect(run_step: Any, tmp_path: Path) -> Collect:
    """Write a file, collect it, and return its records."""

    def run(name: str, content: bytes | str, collection: Any = None, **source: Any) -> list[dict[str, Any]]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        settings = {"source": {"id": "faq", "path": name, **source}, "collection": collection or {}}
        run_step("collect_source", ["--path", path, "--outdir", tmp_path], settings)
        return rows(tmp_path / "collected.parquet")

    return run


@pytest.fixture
def refused(collect: Collect, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Collect what cannot be used: the message of the data error."""

    def run(*args: Any, **options: Any) -> str:
        with pytest.raises(SystemExit) as stopped:
            collect(*args, **options)
        assert stopped.value.code == 65
        return capsys.readouterr().err

    return run


def said(record: dict[str, Any], field: str = "messages") -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in record[field]]


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("file_format", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_tables_in_every_format_and_compression(collect: Collect, file_format: str, packing: str) -> None:
    table = [{**row, "answer": row["answer"].replace("\n", " ")} for row in FAQ] if file_format == "tsv" else FAQ
    records = collect(f"faq{ENDINGS[file_format]}{packing}", PACKERS[packing](encoded(table, file_format)))
    assert [said(record) for record in records] == [[("user", row["question"]), ("assistant", row["answer"])] for row in table]
    assert {record["type"] for record in records} == {"chat"}


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("file_format", ["txt", "markdown"])
def test_texts_in_every_compression(collect: Collect, file_format: str, packing: str) -> None:
    (record,) = collect(f"rules{ENDINGS[file_format]}{packing}", PACKERS[packing]("# Regras\n\nSão duas.\n".encode()))
    assert (record["type"], record["text"]) == ("text", "# Regras\n\nSão duas.")


def test_format_of_the_samplesheet_wins_over_the_ending(collect: Collect) -> None:
    assert len(collect("faq.data", encoded(FAQ, "jsonl"), format="jsonl")) == 2


def test_record_is_complete(collect: Collect) -> None:
    row = {"Question": "A?", "answer": "B.", "split": "dev", "license": "MIT", "subject_id": 7, "url": "u", "created_at": "2026-01-01", "score": 1}
    (record,) = collect("faq.jsonl", json.dumps(row), language="pt", license="CC0-1.0", split="train")
    assert len(record["id"]) == 32
    assert (record["source"], record["split"], record["label"]) == ("faq", "validation", None)
    assert record["meta"] == {
        "location": "faq.jsonl:1",
        "document_id": None,
        "subject_id": "7",
        "license": "MIT",
        "language": "pt",
        "created_at": "2026-01-01",
        "url": "u",
        "replaces": None,
    }


def test_sections_of_a_file_are_one_document_and_rows_of_a_table_are_none(collect: Collect) -> None:
    sections = collect("rules.md", "# Rules\n\n## One\n\nA.\n\n## Two\n\nB.\n", prompt="{heading}?", completion="{body}")
    assert [record["meta"]["document_id"] for record in sections] == ["rules.md"] * 2
    assert [record["meta"]["document_id"] for record in collect("faq.csv", encoded(FAQ, "csv"))] == [None, None]
    tickets = [row | {"document_id": number} for number, row in enumerate(FAQ)]
    assert [record["meta"]["document_id"] for record in collect("tickets.jsonl", encoded(tickets, "jsonl"))] == ["0", "1"]


def test_split_of_the_source_is_the_default(collect: Collect) -> None:
    assert {record["split"] for record in collect("faq.csv", encoded(FAQ, "csv"), split="test")} == {"test"}


def test_receipt_counts(collect: Collect, tmp_path: Path) -> None:
    content = b'{"text": "a", "extra": 1}\n' * 9 + b"{\n"
    collect("a.jsonl", content)
    made = receipt(tmp_path / "collect_source.json")
    assert made["counts"]["records"] == 9
    assert made["counts"]["dropped"] == {"not valid JSON": 1}
    assert made["counts"]["sources"] == {"faq": {"kept": 9, "dropped": {"not valid JSON": 1}}}
    assert made["counts"]["ignored_columns"] == ["extra"]
    assert made["counts"]["bytes"] == len(content)
    assert made["counts"]["sha256"] == made["inputs"]["a.jsonl"]
    (dropped,) = rows(tmp_path / "collect_source.dropped.parquet")
    assert dropped == {"source": "faq", "location": "a.jsonl:10", "step": "collect_source", "reason": "not valid JSON", "subject_id": None, "record": "{"}


def test_too_many_malformed_lines_are_shown(refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused("a.jsonl", '{"text": "a"}\n' * 6 + '{"text": \n[1]\n{"text": null}\n{"text": ["x"]}\n')
    assert "4 of 10 records (40.0%)" in message
    assert "a.jsonl:7: not valid JSON (Expecting value, column 10)" in message
    assert "a.jsonl:8: not a JSON object" in message
    assert "a.jsonl:9: column 'text' has no value" in message
    assert "a.jsonl:10" not in message
    assert "--max_dropped_fraction" in message
    assert not list(tmp_path.glob("*.parquet*"))


def test_max_dropped_fraction_is_obeyed(collect: Collect) -> None:
    assert len(collect("a.jsonl", '{"text": "a"}\n' * 6 + "{\n" * 4, {"max_dropped_fraction": 0.4})) == 6


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.md"])
def test_empty_file(refused: Callable[..., str], name: str, content: bytes) -> None:
    assert f"{name} has no rows" in refused(name, content)


def test_all_rows_unusable_is_refused_whatever_the_fraction(refused: Callable[..., str]) -> None:
    assert "2 of 2 records" in refused("a.jsonl", "{\n[]\n", {"max_dropped_fraction": 1.0})


def test_unknown_columns_are_named_with_what_is_expected(refused: Callable[..., str]) -> None:
    message = refused("a.csv", "frage,antwort\nA?,B.\n")
    assert "antwort, frage" in message
    assert "question + answer" in message


def test_unknown_columns_are_refused_without_reading_on(refused: Callable[..., str]) -> None:
    # the byte that is not UTF-8 comes after 2,000 rows
    assert "not understood" in refused("a.csv", b"frage,antwort\n" + b"A?,B.\n" * 2000 + b"\xff\xff,x\n")


def test_columns_must_fit_the_type_of_the_samplesheet(refused: Callable[..., str]) -> None:
    message = refused("a.csv", "question,answer\nA?,B.\n", type="preference")
    assert "type preference" in message
    assert "Expected one of: chosen + rejected." in message


@pytest.mark.parametrize(("encoding", "name"), [("utf-8-sig", "a.csv"), ("utf-16", "a.csv"), ("utf-16", "a.jsonl"), ("utf-32", "a.csv")])
def test_marked_encodings(collect: Collect, encoding: str, name: str) -> None:
    content = encoded([{"text": "Férias — 30 dias"}], name.split(".")[1]).decode()
    assert [record["text"] for record in collect(name, content.encode(encoding))] == ["Férias — 30 dias"]


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", "text\nabcd\nfé\nx", "line 3, byte 11"),
        ("a.jsonl", '{"text":"a"}\n{"text":"é"}', "line 2, byte 22"),
        ("a.json", '[{"text":1},\n"é"]', "line 2, byte 14"),
        ("a.md", "é", "line 1, byte 0"),
    ],
)
def test_other_encoding_is_refused_with_the_place_and_the_remedy(refused: Callable[..., str], name: str, content: str, place: str) -> None:
    message = refused(name, content.encode("latin-1"))
    assert f"{name}: {place}: 0xE9 is not UTF-8" in message
    assert f"iconv -f WINDOWS-1252 -t UTF-8 {name}" in message


def test_damaged_utf_16_is_refused(refused: Callable[..., str]) -> None:
    assert "begins like UTF-16 but is not" in refused("a.csv", "text\nabc\n".encode("utf-16")[:-1])


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_binary_file_is_refused(refused: Callable[..., str], name: str) -> None:
    assert "is not a text file" in refused(name, b"PK\x03\x04\x00\x00stuff")


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_cut_off_archive_is_refused(refused: Callable[..., str], packing: str) -> None:
    packed = PACKERS[packing](encoded([{"text": f"{number} {number**7}"} for number in range(3000)], "jsonl"))
    assert "is damaged or was cut off" in refused(f"a.jsonl{packing}", packed[: len(packed) // 2])


def test_not_parquet(refused: Callable[..., str]) -> None:
    assert "a.parquet is not a Parquet file" in refused("a.parquet", "question,answer\nA?,B.\n" * 9)


@pytest.mark.parametrize(
    ("args", "source", "expected"),
    [
        (["--path", "gone.csv"], {"path": "gone.csv"}, "is not there"),
        ([], {"path": "gone.csv"}, "is not there"),
        (["--path", __file__], {"path": "a.py"}, "column format"),
    ],
)
def test_wrong_path(run_step: Any, capsys: pytest.CaptureFixture[str], args: list[str], source: dict[str, str], expected: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_step("collect_source", args, {"source": {"id": "faq", **source}})
    assert stopped.value.code == 64
    assert expected in capsys.readouterr().err


# ---- http -----------------------------------------------------------------------------------------------------------------------

GOOD: Answer = (200, {}, encoded(FAQ, "csv"))
BUSY: Answer = (503, {"Retry-After": "0"}, b"later")


def collect_address(run_step: Any, address: str, outdir: Path) -> None:
    run_step("collect_source", ["--outdir", outdir], {"source": {"id": "faq", "path": address}})


def test_download(run_step: Any, tmp_path: Path) -> None:
    with serving(GOOD) as (address, asked):
        collect_address(run_step, f"{address}/data/faq.csv?version=2", tmp_path)
    assert asked == ["/data/faq.csv?version=2"]
    assert [record["meta"]["location"] for record in rows(tmp_path / "collected.parquet")] == ["faq.csv:2", "faq.csv:5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collect_source.dropped.parquet", "collect_source.json", "collected.parquet"]


@pytest.mark.parametrize("first", [BUSY, (429, {"Retry-After": "0"}, b""), (200, {"Content-Length": "9999", "Connection": "close"}, b"cut off")])
def test_download_is_tried_again(run_step: Any, tmp_path: Path, first: Answer) -> None:
    with serving(first, GOOD) as (address, asked):
        collect_address(run_step, f"{address}/faq.csv", tmp_path)
    assert len(asked) == 2
    assert len(rows(tmp_path / "collected.parquet")) == 2


def test_a_web_page_is_read_if_one_is_asked_for(run_step: Any, tmp_path: Path) -> None:
    page = b"<html><body><main><h1>Leave</h1><p>Thirty days a year, no less, whoever asks for them.</p></main></body></html>"
    with serving((200, {"Content-Type": "text/html"}, page)) as (address, _):
        run_step("collect_source", ["--outdir", tmp_path], {"source": {"id": "faq", "path": f"{address}/leave", "format": "html"}})
    (record,) = rows(tmp_path / "collected.parquet")
    assert record["text"] == "# Leave\n\nThirty days a year, no less, whoever asks for them."


def test_download_follows_redirects(run_step: Any, tmp_path: Path) -> None:
    with serving((302, {"Location": "/real"}, b""), GOOD) as (address, asked):
        collect_address(run_step, f"{address}/faq.csv", tmp_path)
    assert asked == ["/faq.csv", "/real"]


@pytest.mark.parametrize(
    ("answer", "code", "expected", "times"),
    [
        ((404, {}, b""), 64, "there is no such file (HTTP 404)", 1),
        ((403, {}, b""), 64, "access is denied (HTTP 403)", 1),
        ((200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>"), 64, "is a web page", 1),
        (BUSY, 75, "503 Service Unavailable, 5 times", 5),
    ],
)
def test_failed_download(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: Answer, code: int, expected: str, times: int) -> None:
    with serving(answer) as (address, asked), pytest.raises(SystemExit) as stopped:
        collect_address(run_step, f"{address}/faq.csv", tmp_path)
    assert (stopped.value.code, len(asked)) == (code, times)
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---- on_source_error ------------------------------------------------------------------------------------------------------------

SKIP = {"collection": {"on_source_error": "skip"}}


@pytest.mark.parametrize(("content", "expected"), [(None, "faq.csv is not there"), ("frage\nA?\n", "not understood"), ("text\n", "has no rows")])
def test_a_source_that_cannot_be_read_is_skipped(run_step: Any, tmp_path: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "faq.csv").write_text(content)
    run_step("collect_source", ["--path", tmp_path / "faq.csv", "--outdir", tmp_path], SKIP | {"source": {"id": "faq", "path": "faq.csv"}})
    assert not list(tmp_path.glob("collected*"))
    (dropped,) = rows(tmp_path / "collect_source.dropped.parquet")
    assert (dropped["source"], dropped["location"], dropped["reason"]) == ("faq", "faq.csv", "source that cannot be read")
    assert expected in dropped["record"]
    counts = receipt(tmp_path / "collect_source.json")["counts"]
    assert counts["sources"] == {"faq": {"kept": 0, "dropped": {"source that cannot be read": 1}}}
    assert expected in counts["error"]


def test_the_receipt_of_a_skipped_source_shows_no_records(run_step: Any, tmp_path: Path) -> None:
    (tmp_path / "faq.jsonl").write_text('{"text": "a", "split": "of Ann"}\n')
    run_step("collect_source", ["--path", tmp_path / "faq.jsonl", "--outdir", tmp_path], SKIP | {"source": {"id": "faq", "path": "faq.jsonl"}})
    assert "of Ann" not in (tmp_path / "collect_source.json").read_text()


def test_what_may_succeed_later_is_skipped_at_the_last_attempt_only(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(BUSY) as (address, _):
        settings = SKIP | {"source": {"id": "faq", "path": f"{address}/faq.csv"}}
        with pytest.raises(SystemExit) as stopped:
            run_step("collect_source", ["--outdir", tmp_path], settings)
        assert (stopped.value.code, list(tmp_path.iterdir())) == (75, [])
        run_step("collect_source", ["--outdir", tmp_path, "--last-attempt"], settings)
    assert "503" in receipt(tmp_path / "collect_source.json")["counts"]["error"]
    assert "skipped: " in capsys.readouterr().out
