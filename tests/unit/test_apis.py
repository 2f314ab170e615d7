"""APIs as sources: each way to go on, and servers that misbehave."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from record_files import receipt, rows
from web_servers import Answer, answering, serving

from llamaflow import apis
from llamaflow.apis import Api, at
from llamaflow.errors import DataError, TemporaryError, UsageError
from llamaflow.source_cache import SourceCache
from llamaflow.sources import Source

ALL = [{"text": f"Answer {number}."} for number in range(5)]
Said = list[Any]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apis, "PAUSE", 0.0)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Said]:
    def of(address: str, **columns: str) -> Said:
        return [row for _, row in Api(Source(id="faq", path=address, **columns), tmp_path, SourceCache(None)).rows()]

    return of


def answer(value: Any, **headers: str) -> Answer:
    return 200, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


def paged(path: str, _: Message) -> Answer:
    """Two of five rows at a time, and everything by which an API may tell that there are more."""
    asked = {name: int(values[0]) for name, values in parse_qs(urlsplit(path).query).items()}
    start = asked.get("offset", asked.get("after", 2 * asked.get("page", 1) - 2))
    end = start + 2
    more = end < len(ALL)
    value = {"data": {"items": ALL[start:end], "nextLink": f"/items?offset={end}" if more else None}, "@odata.nextLink": f"?after={end}" if more else ""}
    if "after" in asked and more:
        value["cursor"] = end
    if not asked:
        value["cursor"] = 2
    return answer(value, **({"Link": f'</items?offset={end}>; rel="next", </items>; rel="first"'} if more else {}))


@pytest.mark.parametrize("pages", ["link", "page", "offset", "next:data.nextLink", "next:@odata.nextLink", "cursor:after:cursor"])
def test_every_way_to_go_on(read: Callable[..., Said], pages: str) -> None:
    with answering(paged) as address:
        assert read(f"{address}/items", rows="data.items", pages=pages) == ALL


@pytest.mark.parametrize(
    ("query", "pages", "expected"),
    [
        ("?q=a%20b", "page", ["q=a+b&page=1", "q=a+b&page=2"]),
        ("?page=7", "page", ["page=7", "page=8"]),
        ("?p=0", "page:p", ["p=0", "p=1"]),
        ("", "offset:skip", ["skip=0", "skip=5"]),
        ("?offset=10", "offset", ["offset=10", "offset=15"]),
    ],
)
def test_numbers_are_counted_up_from_the_address(read: Callable[..., Said], query: str, pages: str, expected: list[str]) -> None:
    with serving(answer(ALL), answer([])) as (address, asked):
        assert read(f"{address}/items{query}", pages=pages) == ALL
    assert asked == [f"/items?{each}" for each in expected]


@pytest.mark.parametrize("last", [answer({"items": None}), answer({"items": []}), (404, {}, b"")])
def test_the_end_of_numbered_pages(read: Callable[..., Said], last: Answer) -> None:
    with serving(answer({"items": ALL}), last) as (address, asked):
        assert read(address, rows="items", pages="page") == ALL
    assert len(asked) == 2


def test_one_answer_without_pages(read: Callable[..., Said]) -> None:
    with serving(answer({"items": ALL}, Link='</more>; rel="next"')) as (address, asked):
        assert read(address, rows="items") == ALL
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [("data.items", [1]), ("edges.node", [{"a": 1}, None]), ("edges.-1", {"b": 2}), ("edges.0.node.a", 1), ("x.y", 3), ("data.items.0", 1)],
)
def test_a_path_into_an_answer(path: str, expected: Any) -> None:
    assert at({"data": {"items": [1]}, "edges": [{"node": {"a": 1}}, {"b": 2}], "x.y": 3}, path) == expected


@pytest.mark.parametrize("path", ["data.nothing", "data.items.7", "data.items.0.a", "edges"])
def test_a_path_that_leads_nowhere(path: str) -> None:
    with pytest.raises(LookupError):
        at({"data": {"items": [1]}}, path)


# ---- servers that misbehave ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "columns", "kind", "words"),
    [
        ([answer({"items": ALL, "next": "/?again"})], {"rows": "items", "pages": "next:next"}, DataError, "brings rows that came before after page 2"),
        ([answer({"items": [], "next": "/"})], {"rows": "items", "pages": "next:next"}, DataError, "asks for the same address again after page 1"),
        ([answer(ALL)], {"pages": "page"}, DataError, "brings rows that came before"),
        ([(200, {"Content-Type": "text/html"}, b"<html>")], {"pages": "page"}, DataError, "a web page, not JSON"),
        ([(200, {}, b'{"items": [')], {"pages": "link"}, DataError, "page 1 is not valid JSON .* It begins with: {"),
        ([(200, {}, b"\xff\xfe\xfa")], {"pages": "link"}, DataError, "page 1 is not valid JSON"),
        ([(200, {}, b"[" * 100_000)], {"pages": "link"}, DataError, "page 1 is not valid JSON"),
        ([answer({"error": "quota", "items": 3})], {"rows": "items"}, DataError, "page 1 is no list at items, but 3"),
        ([answer({"error": "quota"})], {"rows": "items"}, DataError, "an object with error. Say in the column rows"),
        ([answer({"items": ALL})], {"pages": "link"}, DataError, "page 1 is no list as a whole, but an object with items"),
        ([answer({"items": ALL, "next": {"a": 1}})], {"rows": "items", "pages": "next:next"}, DataError, "no text or number at next"),
        ([answer({"items": ALL, "next": "\n"})], {"rows": "items", "pages": "next:next"}, DataError, "leads to what is no address"),
        ([answer({"items": ALL, "next": "file:///etc/passwd"})], {"rows": "items", "pages": "next:next"}, UsageError, "not an address that can be downloaded"),
        ([answer(ALL), (403, {}, b"")], {"pages": "page"}, UsageError, r"access is denied \(HTTP 403\)"),
        ([(404, {}, b"")], {"pages": "page"}, UsageError, "there is no such file"),
        ([(401, {}, b"")], {"pages": "page"}, UsageError, "it needs a login"),
        ([answer(ALL), (503, {"Retry-After": "0"}, b"")], {"pages": "page"}, TemporaryError, "503 Service Unavailable, 5 times"),
    ],
)
def test_answers_that_cannot_be_used(read: Callable[..., Said], answers: list[Answer], columns: dict[str, str], kind: type[Exception], words: str) -> None:
    with serving(*answers) as (address, _), pytest.raises(kind, match=words):
        read(f"{address}/", **columns)


def test_a_number_that_is_none(read: Callable[..., Said]) -> None:
    with serving() as (address, asked), pytest.raises(DataError, match="page=last, where a number is expected"):
        read(f"{address}/?page=last", pages="page")
    assert not asked


def test_an_answer_that_is_too_large(read: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apis, "ANSWER_BYTES", 1 << 20)
    with serving((200, {}, b" " * (2 << 20))) as (address, _), pytest.raises(DataError, match="more than 1 MiB"):
        read(address, rows="items")


@pytest.mark.parametrize("first", [(429, {"Retry-After": "0"}, b""), (200, {"Content-Length": "9999", "Connection": "close"}, b'[{"text":')])
def test_a_page_is_asked_for_again(read: Callable[..., Said], first: Answer) -> None:
    with serving(answer(ALL[:2]), first, answer(ALL[2:]), answer([])) as (address, asked):
        assert read(address, pages="page") == ALL
    assert asked == ["/?page=1", "/?page=2", "/?page=2", "/?page=3"]


# ---- secrets ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "name", "sent"), [("t0ken", "Authorization", "Bearer t0ken"), ("X-Api-Key: t0ken\n", "X-Api-Key", "t0ken")])
def test_the_secret_reaches_its_server_and_no_other(read: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, value: str, name: str, sent: str) -> None:
    monkeypatch.setenv("FAQ_TOKEN", value)
    seen: list[str | None] = []

    def record(path: str, headers: Message) -> Answer:
        seen.append(headers[name])
        return (302, {"Location": f"{other}/moved"}, b"") if path == "/away" else answer(ALL)

    with answering(record) as other, answering(record) as address:
        assert read(f"{address}/here", pages="link", secret="FAQ_TOKEN") == ALL
        assert read(f"{address}/away", pages="link", secret="FAQ_TOKEN") == ALL
    assert seen == [sent, sent, None]


def test_a_next_page_on_another_server_does_not_see_the_secret(read: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAQ_TOKEN", "t0ken")
    with serving(answer([])) as (other, asked), serving(answer({"items": ALL, "next": f"{other}/2?key=k"})) as (address, _):
        with pytest.raises(DataError, match=f"leads to another server, {other}, which must not see the secret"):
            read(address, rows="items", pages="next:next", secret="FAQ_TOKEN")
        assert not asked


@pytest.mark.parametrize(("value", "words"), [(None, "is not set"), ("", "is not set"), ("two\nlines", "more than one line")])
def test_a_secret_that_cannot_be_sent(read: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, value: str | None, words: str) -> None:
    monkeypatch.delenv("FAQ_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("FAQ_TOKEN", value)
    with pytest.raises(UsageError, match=words) as refused:
        read("http://127.0.0.1:9/", pages="link", secret="FAQ_TOKEN")
    assert "lines" not in str(refused.value).replace("more than one line", "")


# ---- the step --------------------------------------------------------------------------------------------------------------------


def test_collecting_an_api(run_step: Any, tmp_path: Path) -> None:
    good = [{"question": f"Why {number}?", "answer": "So.", "votes": 1} for number in range(20)]
    first, second = answer({"items": good, "next": "/more"}), answer({"items": ["odd"]})
    with serving(first, second) as (address, _):
        source = {"id": "faq", "path": f"{address}/v1/items", "rows": "items", "pages": "next:next"}
        run_step("collect_source", ["--outdir", tmp_path], {"source": source})
    assert [record["meta"]["location"] for record in rows(tmp_path / "collected.parquet")][:2] == ["items:1:1", "items:1:2"]
    made = receipt(tmp_path / "collect_source.json")
    assert made["counts"].items() >= {"pages": 2, "bytes": len(first[2] + second[2]), "ignored_columns": ["votes"], "dropped": {"not a JSON object": 1}}.items()
    assert made["inputs"] == {source["path"]: made["counts"]["sha256"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collect_source.dropped.parquet", "collect_source.json", "collected.parquet"]
