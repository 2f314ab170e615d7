"""Web pages as sources: what is read of a site, what is left alone, and why."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from record_files import receipt, rows
from web_servers import Answer, answering

from llamaflow import webpages
from llamaflow.errors import TemporaryError, UsageError
from llamaflow.source_cache import SourceCache
from llamaflow.sources import Source
from llamaflow.webpages import LeftOut, pages_of

Said = dict[str, str]
NONE: Answer = (404, {}, b"")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webpages, "PAUSE", 0.0)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Said]:
    """By path: the ending of the file that a page became, or why it was left out."""

    def of(address: str, pages: str, **columns: str) -> Said:
        found = pages_of(Source(id="site", path=address, pages=pages, **columns), tmp_path, SourceCache(None))
        host = address.split("/", 3)[2]
        return {name.partition(host)[2] or name: page.suffix if isinstance(page, Path) else page.reason for name, page in found}

    return of


@contextmanager
def site(answers: dict[str, Answer | str], asked: list[str] | None = None) -> Iterator[str]:
    """A server with these pages; HOST in them stands for its address."""

    def answer(path: str, headers: Message) -> Answer:
        found = answers.get(path, NONE)
        status, given, body = (200, {"Content-Type": "text/html; charset=utf-8"}, found.encode()) if isinstance(found, str) else found
        host = f"http://{headers['Host']}"
        return status, {name: value.replace("HOST", host) for name, value in given.items()}, body.replace(b"HOST", host.encode())

    with answering(answer, asked) as address:
        yield address


def page(*links: str) -> str:
    return "<html><body><p>A page with a sentence.</p>" + "".join(f'<a href="{link}">to</a>' for link in links) + "</body></html>"


def moved(place: str) -> Answer:
    return 302, {"Location": place}, b""


def sitemap(kind: str, *places: str) -> bytes:
    inner = "url" if kind == "urlset" else "sitemap"
    entries = "".join(f"<{inner}>\n<loc> {place}\n</loc><lastmod>2026-01-01</lastmod></{inner}>" for place in places)
    return f'<?xml version="1.0"?><{kind} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</{kind}>'.encode()


# ---- links -----------------------------------------------------------------------------------------------------------------------

DOCS: dict[str, Answer | str] = {
    "/docs/": page("a", "b#part", "./a", "../shop", "/docs/deep/c", "http://other.example/docs/", "mailto:a@b.c", "javascript:x()", "http://[", "//[x]/"),
    "/docs/a": page("/docs/a", "b", "d"),
    "/docs/b": (200, {"Content-Type": "application/pdf"}, b"%PDF"),
    "/docs/deep/c": page("e"),
    "/docs/d": page("f"),
    "/docs/deep/e": page(),
}


@pytest.mark.parametrize(("pages", "beyond"), [("links", set()), ("links:2", {"/docs/d", "/docs/deep/e"}), ("links:3", {"/docs/d", "/docs/deep/e", "/docs/f"})])
def test_links_below_the_first_page_to_a_depth(read: Callable[..., Said], pages: str, beyond: set[str]) -> None:
    with site(DOCS) as address:
        found = read(f"{address}/docs/", pages)
    assert set(found) == {"/docs/", "/docs/a", "/docs/b", "/docs/deep/c"} | beyond
    assert (found["/docs/"], found["/docs/b"]) == (".html", ".pdf")
    assert found.get("/docs/f", "page that cannot be read") == "page that cannot be read"


@pytest.mark.parametrize("start", ["/docs", "/docs/index.html", "/old"])
def test_the_directory_of_the_first_page(read: Callable[..., Said], start: str) -> None:
    with site({"/docs": page("/docs/a"), "/docs/index.html": page("a", "/docsx", "/"), "/docs/a": page(), "/old": moved("/docs")}) as address:
        assert read(f"{address}{start}", "links") == {start: ".html", "/docs/a": ".html"}


def test_an_address_without_a_path(read: Callable[..., Said]) -> None:
    with site({"/": page("/", "a"), "/a": page()}) as address:
        assert read(address, "links") == {address: ".html", "/a": ".html"}


def test_what_is_left_out(read: Callable[..., Said]) -> None:
    answers: dict[str, Answer | str] = {
        "/": page("/away", "/file:", "/picture", "/twice", "/gone", "/broken", "/private/x", "/loop", "/empty", "/a"),
        "/robots.txt": (200, {"Content-Type": "text/plain"}, b"User-agent: *\nDisallow: /\n\nUser-agent: llamaflow\nDisallow: /pri*/\n"),
        "/away": moved("http://localhost:1/"),
        "/file:": moved("file:///etc/passwd"),
        "/picture": (200, {"Content-Type": "image/png"}, b"\x89PNG"),
        "/twice": moved("/a"),
        "/broken": (500, {"Retry-After": "0"}, b""),
        "/loop": moved("/loop"),
        "/empty": (200, {"Content-Type": "text/html"}, b""),
        "/a": page(),
    }
    asked: list[str] = []
    with site(answers, asked) as address:
        assert read(f"{address}/", "links:2") == {
            "/": ".html",
            "/away": "page outside the bounds of the source",
            "/file:": "page outside the bounds of the source",
            "/picture": "page of an unknown kind",
            "/twice": "page under another address",
            "/gone": "page that cannot be read",
            "/broken": "page that cannot be read",
            "/private/x": "page that robots.txt forbids",
            "/loop": "page that cannot be read",
            "/empty": ".html",
            "/a": ".html",
        }
    assert "/private/x" not in asked
    assert asked.count("/robots.txt") == 1


def test_no_more_pages_than_a_task_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webpages, "MOST_PAGES", 3)
    with site({"/": page(*"abcdef")}) as address:
        pages = list(pages_of(Source(id="site", path=f"{address}/", pages="links"), tmp_path, SourceCache(None)))
    assert [name.removeprefix(address) for name, _ in pages] == ["/", "/a", "/b", "/"]
    assert isinstance(pages[-1][1], LeftOut)
    assert pages[-1][1].reason == "pages beyond the first 3"


# ---- sitemaps --------------------------------------------------------------------------------------------------------------------


def test_sitemaps(read: Callable[..., Said]) -> None:
    answers: dict[str, Answer | str] = {
        "/map.xml": (200, {}, sitemap("sitemapindex", "HOST/one.xml.gz", "HOST/damaged.xml", "HOST/gone.xml", "http://other.example/map.xml", "HOST/map.xml")),
        "/one.xml.gz": (200, {}, b""),
        "/damaged.xml": (200, {}, b"<urlset><url>"),
        "/a": page("/not-followed"),
        "/b.txt": (200, {"Content-Type": "text/plain"}, b"Text."),
    }
    with site(answers) as address:
        packed = sitemap("urlset", f"{address}/a", f"{address}/a", "http://other.example/c", "ftp://x", "", f"{address}/b.txt")
        answers["/one.xml.gz"] = (200, {"Content-Type": "application/gzip"}, gzip.compress(packed))
        assert read(f"{address}/map.xml", "sitemap") == {
            "/a": ".html",
            "http://other.example/c": "page outside the bounds of the source",
            "ftp://x": "page outside the bounds of the source",
            "": "page outside the bounds of the source",
            "/b.txt": ".txt",
            "/damaged.xml": "page that cannot be read",
            "/gone.xml": "page that cannot be read",
            "http://other.example/map.xml": "page outside the bounds of the source",
        }


# ---- the first address, and the server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "pages", "words"),
    [
        ({}, "links", "there is no such file"),
        ({"/": (200, {"Content-Type": "image/png"}, b"")}, "links", "is image/png, not a text or document"),
        ({"/": page(), "/robots.txt": "User-agent: *\nDisallow: /"}, "links", "robots.txt forbids http://.*/ to llamaflow"),
        ({"/": page(), "/robots.txt": "User-agent: *\nCrawl-delay: 1e9"}, "links", "asks for 1000000000 seconds between two pages"),
        ({"/": page()}, "sitemap", "is no sitemap"),
        ({"/": (200, {}, b"<rss/>")}, "sitemap", "is no sitemap"),
    ],
)
def test_a_first_address_that_cannot_be_read(read: Callable[..., Said], answers: dict[str, Answer | str], pages: str, words: str) -> None:
    with site(answers) as address, pytest.raises(UsageError, match=words):
        read(f"{address}/", pages)


@pytest.mark.parametrize("place", ["/a", "/robots.txt"])
def test_a_server_that_is_overloaded_is_asked_later(read: Callable[..., Said], place: str) -> None:
    with site({"/": page("a"), place: (503, {"Retry-After": "0"}, b"")}) as address, pytest.raises(TemporaryError, match="503"):
        read(f"{address}/", "links")


def test_crawl_delay(read: Callable[..., Said]) -> None:
    with site({"/": page("a", "b"), "/a": page(), "/b": page(), "/robots.txt": "User-agent: *\nCrawl-delay: 0.2"}) as address:
        start = time.monotonic()
        read(f"{address}/", "links")
        assert time.monotonic() - start >= 0.4


# ---- the step ----------------------------------------------------------------------------------------------------------------------


def test_collecting_a_site(run_step: Any, tmp_path: Path) -> None:
    text = "<html><body><nav>Menu</nav><main><h1>Leave</h1><p>Thirty days a year, no less, whoever asks for them.</p></main></body></html>"
    answers: dict[str, Answer | str] = {"/": page("/leave", "/gone", "/logo.png"), "/leave": text, "/logo.png": (200, {"Content-Type": "image/png"}, b"")}
    with site(answers) as address:
        settings = {"source": {"id": "site", "path": f"{address}/", "pages": "links"}, "collection": {"max_dropped_fraction": 0.4}}
        run_step("collect_source", ["--outdir", tmp_path], settings)
    found = {record["meta"]["location"]: record["text"] for record in rows(tmp_path / "collected.parquet")}
    assert found[f"{address}/leave:1"] == "# Leave\n\nThirty days a year, no less, whoever asks for them."
    made = receipt(tmp_path / "collect_source.json")
    assert made["counts"]["dropped"] == {"page that cannot be read": 1, "page of an unknown kind": 1}
    assert made["counts"]["files"] == {"html": 2}
    assert made["inputs"] == {f"{address}/": made["counts"]["sha256"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collect_source.dropped.parquet", "collect_source.json", "collected.parquet"]
