"""Sources that are not fetched again: against a server that counts what it sends, and cuts connections in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from full_disk import no_room_beyond
from record_files import encoded, receipt, rows
from web_servers import Answer, Handler, answering, running

from llamaflow import apis, client, webpages
from llamaflow.client import Client
from llamaflow.source_cache import SourceCache

ROOT = Path(__file__).resolve().parents[2]
BODY = encoded([{"text": f"Text number {number}."} for number in range(2000)], "jsonl")
OTHER = encoded([{"text": f"Other text {number}."} for number in range(2000)], "jsonl")
LAST_MODIFIED = "Sun, 22 Nov 2026 10:00:00 GMT"
JUST_NOW = "Sun, 22 Nov 2099 12:00:00 GMT"  # not past when the server says it


class Site:
    """One file for every path. Understands conditions and ranges (RFC 9110), and cuts the first `cuts` answers in the middle."""

    def __init__(self, body: bytes = BODY, **headers: str) -> None:
        self.body, self.headers = body, headers or {"ETag": '"one"'}
        self.cuts = 0
        self.obeys_if_range, self.at_most = True, len(body)
        self.statuses: list[int] = []
        self.sent = 0

    def __call__(self, path: str, asked: Message) -> Answer:
        answer = self._answer(asked)
        self.statuses.append(answer[0])
        if self.cuts:
            self.cuts -= 1
            answer = (answer[0], {"Content-Length": str(len(answer[2])), "Connection": "close"} | answer[1], answer[2][: len(answer[2]) // 2])
        self.sent += len(answer[2])
        return answer

    def _answer(self, asked: Message) -> Answer:
        etag, modified = self.headers.get("ETag"), self.headers.get("Last-Modified")
        if (asked["If-None-Match"] and asked["If-None-Match"] == etag) or (not etag and modified and asked["If-Modified-Since"] == modified):
            return 304, {}, b""
        is_same = not self.obeys_if_range or asked["If-Range"] in (etag or modified,)
        if asked["Range"] and is_same:
            start = int(asked["Range"].removeprefix("bytes=").removesuffix("-"))
            rest = self.body[start : start + self.at_most]
            place = {"Content-Range": f"bytes {start}-{start + len(rest) - 1}/{len(self.body)}"}
            return (206, self.headers | place, rest) if rest else (416, {}, b"")
        return 200, self.headers, self.body


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LONGEST_WAIT", 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "kept here"


@pytest.fixture
def collect(run_step: Any, tmp_path: Path, cache: Path) -> Callable[..., Any]:
    """Collect an address in a new directory, as a new run does: its counts, with the records' texts."""

    def run(address: str, **source: Any) -> Any:
        outdir = tmp_path / f"run {len(list(tmp_path.glob('run *')))}"
        outdir.mkdir()
        run_step("collect_source", ["--outdir", outdir], {"source": {"id": "faq", "path": address, **source}, "source_cache": str(cache)})
        assert sorted(file.name for file in outdir.iterdir()) == ["collect_source.dropped.parquet", "collect_source.json", "collected.parquet"]
        return receipt(outdir / "collect_source.json")["counts"] | {"texts": [row["text"] for row in rows(outdir / "collected.parquet")]}

    return run


@pytest.fixture
def _one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 1)


def texts_of(body: bytes) -> list[str]:
    return [json.loads(line)["text"] for line in body.splitlines()]


def kept(cache: Path, name: str = "file") -> list[Path]:
    return [file for file in cache.rglob(name) if file.is_file()]


# ---- unchanged, or not -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validator", [{"ETag": '"one"'}, {"ETag": 'W/"one"'}, {"Last-Modified": LAST_MODIFIED}])
def test_what_is_unchanged_is_not_fetched_again(collect: Any, validator: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(**validator)
    with answering(site) as address:
        first, second = collect(f"{address}/a.jsonl"), collect(f"{address}/a.jsonl")
    assert (site.statuses, site.sent) == ([200, 304], len(BODY))
    assert first["texts"] == second["texts"] == texts_of(BODY)
    assert (first["fetched"], first["unchanged"], first["unchanged_since"]) == (1, 0, None)
    assert (second["fetched"], second["unchanged"]) == (0, 1)
    assert second["unchanged_since"].startswith("20")
    assert f"unchanged since {second['unchanged_since']}" in capsys.readouterr().out
    assert first["sha256"] == second["sha256"]


def test_what_has_changed_is_fetched_once(collect: Any) -> None:
    site = Site()
    with answering(site) as address:
        collect(f"{address}/a.jsonl")
        site.body, site.headers = OTHER, {"ETag": '"two"'}
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(OTHER)
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(OTHER)
    assert site.statuses == [200, 200, 304]


@pytest.mark.parametrize("headers", [{"X-Nothing": "to go by"}, {"ETag": '"one"', "Cache-Control": "private, no-store"}])
def test_what_cannot_or_must_not_be_kept(collect: Any, cache: Path, headers: dict[str, str]) -> None:
    site = Site(**headers)
    with answering(site) as address:
        assert collect(f"{address}/a.jsonl")["texts"] == collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
    assert site.statuses == [200, 200]
    assert not kept(cache)
    assert not kept(cache, "part")


def test_without_a_cache_nothing_is_asked_differently(run_step: Any, tmp_path: Path) -> None:
    site = Site()
    with answering(site) as address:
        for _ in range(2):
            run_step("collect_source", ["--outdir", tmp_path], {"source": {"id": "faq", "path": f"{address}/a.jsonl"}})
    assert site.statuses == [200, 200]
    assert "fetched" not in receipt(tmp_path / "collect_source.json")["counts"]


def test_a_copy_that_was_damaged_is_not_used(collect: Any, cache: Path) -> None:
    site = Site()
    with answering(site) as address:
        collect(f"{address}/a.jsonl")
        (file,) = kept(cache)
        file.write_bytes(b"x" + BODY[1:])
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
        kept(cache, "file.json")[0].write_text("{")
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
    assert site.statuses == [200, 200, 200]


def test_an_address_that_is_gone_is_refused_also_if_there_is_a_copy(collect: Any) -> None:
    site = Site()
    with answering(lambda path, headers: site(path, headers) if len(site.statuses) < 1 else (404, {}, b"")) as address:
        collect(f"{address}/a.jsonl")
        with pytest.raises(SystemExit) as stopped:
            collect(f"{address}/a.jsonl")
    assert stopped.value.code == 64


# ---- interrupted -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validator", [{"ETag": '"one"'}, {"Last-Modified": LAST_MODIFIED}])
def test_what_was_interrupted_goes_on_where_it_was(collect: Any, validator: dict[str, str]) -> None:
    site = Site(**validator)
    site.cuts = 1
    with answering(site) as address:
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
    assert (site.statuses, site.sent) == ([200, 206], len(BODY))


@pytest.mark.usefixtures("_one_attempt")
def test_a_later_task_goes_on_where_an_earlier_one_was(collect: Any) -> None:
    site = Site()
    site.cuts = 2
    with answering(site) as address:
        for _ in range(2):
            with pytest.raises(SystemExit) as stopped:
                collect(f"{address}/a.jsonl")
            assert stopped.value.code == 75
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
        collect(f"{address}/a.jsonl")
    assert (site.statuses, site.sent) == ([200, 206, 206, 304], len(BODY))


@pytest.mark.usefixtures("_one_attempt")
@pytest.mark.parametrize("validator", [{"ETag": 'W/"one"'}, {"Last-Modified": JUST_NOW}, {"ETag": '"one"', "Content-Encoding": "identity"}])
def test_what_may_be_other_bytes_begins_anew(collect: Any, validator: dict[str, str]) -> None:
    site = Site(**validator)
    site.cuts = 1
    with answering(site) as address:
        with pytest.raises(SystemExit):
            collect(f"{address}/a.jsonl")
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
    assert site.statuses == [200, 200]


@pytest.mark.parametrize(("obeys_if_range", "statuses"), [(True, [200, 200]), (False, [200, 206, 200])])
def test_a_file_that_changes_between_its_halves(collect: Any, monkeypatch: pytest.MonkeyPatch, obeys_if_range: bool, statuses: list[int]) -> None:
    site = Site()
    site.cuts, site.obeys_if_range = 1, obeys_if_range
    with answering(site) as address:
        monkeypatch.setattr(client, "ATTEMPTS", 1)
        with pytest.raises(SystemExit):
            collect(f"{address}/a.jsonl")
        monkeypatch.setattr(client, "ATTEMPTS", 2)
        site.body, site.headers = OTHER, {"ETag": '"two"'}
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(OTHER)
    assert site.statuses == statuses


def test_a_server_that_gives_less_than_the_rest(collect: Any) -> None:
    site = Site()
    site.cuts, site.at_most = 1, 10
    with answering(site) as address:
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
    assert site.statuses == [200, 206, 200]


def test_all_had_come_when_it_was_interrupted(collect: Any, cache: Path) -> None:
    site = Site()
    with answering(site) as address:
        collect(f"{address}/a.jsonl")
        (file,) = kept(cache)
        file.rename(file.with_name("part"))
        file.with_name("part.json").write_text(json.dumps({"headers": {"etag": '"one"'}}))
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
    assert site.statuses == [200, 416, 200]


@pytest.mark.slow
def test_a_task_that_is_killed(cache: Path, tmp_path: Path, collect: Any) -> None:
    site, is_over = Site(), threading.Event()

    class Stalling(Handler):
        """Sends half of the first answer, and then nothing."""

        def do_GET(self) -> None:  # noqa: N802
            status, headers, body = site(self.path, self.headers)
            if status == 200:
                headers, body = {**headers, "Content-Length": str(len(BODY))}, BODY[: len(BODY) // 2]
            self.send(status, headers, body)
            if status == 200:
                is_over.wait()

    with running(Stalling) as address:
        settings = json.dumps({"source": {"id": "faq", "path": f"{address}/a.jsonl"}, "source_cache": str(cache)})
        with subprocess.Popen([sys.executable, ROOT / "bin/collect_source.py"], cwd=tmp_path, stdin=subprocess.PIPE, text=True) as task:
            assert task.stdin
            task.stdin.write(settings)
            task.stdin.close()
            while not any(file.stat().st_size for file in kept(cache, "part")):
                time.sleep(0.02)
            task.kill()
        is_over.set()
        assert collect(f"{address}/a.jsonl")["texts"] == texts_of(BODY)
    assert site.statuses == [200, 206]


# ---- others, and what goes wrong -------------------------------------------------------------------------------------------------


def test_two_tasks_at_once_fetch_once(cache: Path, tmp_path: Path) -> None:
    site = Site()
    together = threading.Barrier(2)

    def slowly(path: str, headers: Message) -> Answer:
        time.sleep(0.2)
        return site(path, headers)

    def fetch(name: str) -> None:
        together.wait()
        with Client(address, cache=SourceCache(str(cache))) as one:
            one.fetch(f"{address}/a.jsonl", tmp_path / name)

    with answering(slowly) as address:
        tasks = [threading.Thread(target=fetch, args=(name,)) for name in ("a", "b")]
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
    assert [(tmp_path / name).read_bytes() for name in ("a", "b")] == [BODY, BODY]
    assert site.statuses == [200, 304]


def test_a_newer_copy_does_not_change_what_a_task_has(cache: Path, tmp_path: Path) -> None:
    site = Site()
    with answering(site) as address, Client(address, cache=SourceCache(str(cache))) as one:
        one.fetch(f"{address}/a", tmp_path / "a")
        site.body, site.headers = OTHER, {"ETag": '"two"'}
        one.fetch(f"{address}/a", tmp_path / "b")
        one.fetch(f"{address}/a", tmp_path / "a2")
        assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes(), (tmp_path / "a2").read_bytes()) == (BODY, OTHER, OTHER)
        one.fetch(f"{address}/a", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == OTHER


def test_a_cache_that_cannot_be_made_is_a_warning(collect: Any, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.write_text("a file")
    with answering(Site()) as address:
        counts = collect(f"{address}/a.jsonl")
    assert counts["texts"] == texts_of(BODY)
    assert (counts["fetched"], counts["unchanged"]) == (1, 0)
    assert "cannot be used (Not a directory): everything is fetched" in counts["source_cache_error"]
    said = capsys.readouterr().out
    assert "warning: --source_cache" in said
    assert "Not a directory" in said


def test_a_full_cache_is_a_warning(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = SourceCache(str(cache))
    with answering(Site()) as address, Client(address, cache=full) as one:
        with no_room_beyond(len(BODY) // 2), pytest.raises(OSError, match="File too large"):
            one.fetch(f"{address}/a.jsonl", tmp_path / "a")  # nor is there room elsewhere
        assert "File too large): everything is fetched" in capsys.readouterr().out
        assert not kept(cache, "part")
        one.fetch(f"{address}/a.jsonl", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert (full.fetched, full.unchanged) == (1, 0)


def test_no_secret_is_kept_and_only_the_owner_can_read(collect: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAQ_TOKEN", "hunter2")
    with answering(Site()) as address:
        collect(f"{address}/a.jsonl?key=pa55word", secret="FAQ_TOKEN")
    assert kept(cache)
    for file in cache.rglob("*"):
        assert not any(secret in str(file) or (file.is_file() and secret.encode() in file.read_bytes()) for secret in ("hunter2", "pa55word", "127.0.0.1"))
    assert {oct(file.stat().st_mode & 0o777) for file in kept(cache)} == {"0o600"}
    assert {oct(file.parent.stat().st_mode & 0o777) for file in kept(cache)} == {"0o700"}


def test_who_logs_in_otherwise_gets_no_copy_of_what_others_saw(collect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAQ_TOKEN", "hunter2")
    site = Site(**{"Last-Modified": LAST_MODIFIED})
    with answering(site) as address:
        collect(f"{address}/a.jsonl", secret="FAQ_TOKEN")
        collect(f"{address}/a.jsonl")
        monkeypatch.setenv("FAQ_TOKEN", "hunter3")
        collect(f"{address}/a.jsonl", secret="FAQ_TOKEN")
    assert site.statuses == [200, 200, 200]


# ---- pages -----------------------------------------------------------------------------------------------------------------------


def test_pages_of_an_api(collect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apis, "PAUSE", 0.0)
    asked: list[tuple[str, bool]] = []

    def paged(path: str, headers: Message) -> Answer:
        number = int(path.partition("page=")[2] or 1)
        is_known = headers["If-None-Match"] == f'"{number}"'
        asked.append((path, is_known))
        if is_known:
            return 304, {}, b""
        link = {"Link": f'</items?page={number + 1}>; rel="next"'} if number < 3 else {}
        return 200, {"ETag": f'"{number}"', "Content-Type": "application/json", **link}, json.dumps([{"text": f"Page {number}."}]).encode()

    with answering(paged) as address:
        first, second = (collect(f"{address}/items", pages="link") for _ in range(2))
    assert first["texts"] == second["texts"] == ["Page 1.", "Page 2.", "Page 3."]
    assert [is_known for _, is_known in asked] == [False] * 3 + [True] * 3
    assert (second["unchanged"], second["pages"], second["sha256"]) == (3, 3, first["sha256"])


def test_pages_of_a_site(collect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webpages, "PAUSE", 0.0)
    statuses: list[int] = []

    def page(path: str, headers: Message) -> Answer:
        if path == "/robots.txt":
            return 200, {"ETag": '"r"', "Content-Type": "text/plain"}, b"User-agent: *\nAllow: /\n"
        answer: Answer = (
            200,
            {"ETag": f'"{path}"', "Content-Type": "text/html"},
            f'<p>A page at {path} with words.</p><a href="/b">b</a> <a href="/robots.txt">'.encode(),
        )
        answer = (304, {}, b"") if headers["If-None-Match"] == f'"{path}"' else answer
        statuses.append(answer[0])
        return answer

    with answering(page) as address:
        first, second = (collect(f"{address}/", pages="links") for _ in range(2))
    assert first["texts"] == second["texts"]
    assert len(first["texts"]) == 3
    assert statuses == [200, 200, 304, 304]
    assert (second["fetched"], second["unchanged"]) == (1, 2), "robots.txt, which is a page too, has changed as far as the server says"
