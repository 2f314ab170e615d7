"""Web pages as sources: those that a sitemap lists, or those that a page links to; one at a time, and only what robots.txt allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

import httpx
from lxml import html
from lxml.etree import LxmlError
from protego import Protego

from llamaflow.client import AGENT, LONGEST_WAIT, Client, RefusedError, UnavailableError
from llamaflow.errors import DataError, UsageError
from llamaflow.source_cache import SourceCache
from llamaflow.sources import Source
from llamaflow.textfiles import Unusable, open_bytes

PAUSE = 1.0  # seconds between two requests, as in a new project of Scrapy; Crawl-delay in robots.txt may ask for more
MOST_PAGES = 10_000
PAGE_BYTES = 64 << 20
SITEMAP_BYTES = 50 << 20  # https://www.sitemaps.org/protocol.html
NO_SITEMAP = "Expected the XML of sitemaps.org. For the pages that a page links to, write links in the column pages."
ENDINGS = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}
Page = tuple[str, Path | Unusable]
Found = TypeVar("Found")


class LeftOut(Unusable):
    """A page that is not to be read, which is no fault of the source."""


def pages_of(source: Source, scratch: Path, cache: SourceCache) -> Iterator[Page]:
    """The address of each page, and its file in `scratch`, until the next one is asked for, or why there is none.

    Raises UsageError if the source's own address cannot be read, TemporaryError if the server no longer answers.
    """
    crawl = Crawl(source, scratch, cache)
    with crawl.client:
        yield from crawl.listed() if source.pages == "sitemap" else crawl.linked()
    if crawl.is_cut_short:
        yield source.path, LeftOut(f"pages beyond the first {MOST_PAGES}")


class Crawl:
    """The pages of one host, of those that are linked only what is below one directory. The first address that is read says which."""

    def __init__(self, source: Source, scratch: Path, cache: SourceCache) -> None:
        self.source, self.scratch = source, scratch
        self.client = Client(source.path, source.secret, PAUSE, self._allow, cache)
        self.robots: dict[httpx.URL, Protego] = {}
        self.start: httpx.URL | None = None
        self.at = httpx.URL(source.path)
        self.seen = {source.path}
        self.is_cut_short = False

    def listed(self) -> Iterator[Page]:
        """The pages of a sitemap, and of the sitemaps that it lists."""
        waiting = deque([(True, self.source.path)])
        while waiting:
            is_sitemap, address = waiting.popleft()
            if not is_sitemap:
                yield address, self._read(address, self._page, _refuse_others)
                continue
            entries = self._read(address, self._entries)
            if isinstance(entries, Unusable):
                yield address, entries
            else:
                waiting.extendleft(reversed(entries))

    def linked(self) -> Iterator[Page]:
        """A page, the pages that it links to, those that these link to, as deep as the source says."""
        waiting = deque([(self.source.path, int((self.source.pages or "").partition(":")[2] or 1))])
        while waiting:
            address, depth = waiting.popleft()
            page = self._read(address, self._page, _refuse_others)
            if depth and isinstance(page, Path) and page.suffix == ".html":
                waiting.extend((link, depth - 1) for link in self._links(page))
            yield address, page

    def _read(self, address: str, read: Callable[[httpx.Response, Path], Found], check: Callable[[httpx.Response], None] | None = None) -> Found | Unusable:
        """What `read` makes of a page, or why it cannot be had."""
        problem: Unusable
        file = self.scratch / "page"
        try:
            response = self.client.fetch(address, file, check, PAGE_BYTES)
            self._arrive(address, response.url.copy_with(raw_path=response.url.raw_path, fragment=None))
            return read(response, file)
        except LeftOut as left_out:
            problem = left_out
        except (DataError, UsageError, UnavailableError) as error:
            if isinstance(error, UnavailableError) and error.status != 500:  # 500 may be this page alone, anything else is the whole server
                raise
            problem = Unusable("page that cannot be read", str(error), str(error))
        if address == self.source.path:
            raise UsageError(f"source {self.source.id!r}: {problem.detail or f'{address}: {problem.reason}'}") from problem
        return problem

    def _arrive(self, address: str, url: httpx.URL) -> None:
        self.at, self.start = url, self.start or url
        if str(url) != address and not self._is_new(str(url)):
            raise LeftOut("page under another address")

    def _is_new(self, address: str) -> bool:
        if address in self.seen:
            return False
        if len(self.seen) >= MOST_PAGES:
            self.is_cut_short = True
            return False
        self.seen.add(address)
        return True

    def _page(self, response: httpx.Response, file: Path) -> Path:
        return file.rename(file.with_suffix(ENDINGS[_media_type(response)]))

    def _links(self, page: Path) -> Iterator[str]:
        try:
            document = html.document_fromstring(page.read_bytes())
        except LxmlError:
            return  # an empty page
        document.make_links_absolute(str(self.at), handle_failures="ignore")
        for link in document.iter("a"):
            try:
                url = httpx.URL(link.get("href", "")).copy_with(fragment=None)
            except httpx.InvalidURL:
                continue
            if self._is_inside(url) and self._is_new(str(url)):
                yield str(url)

    def _entries(self, response: httpx.Response, file: Path) -> list[tuple[bool, str]]:
        """Whether it is a sitemap, and the address, of all that a sitemap lists."""
        with open_bytes(file) as stream:
            data = stream.read(SITEMAP_BYTES + 1)
        if len(data) > SITEMAP_BYTES:
            raise DataError(f"{response.url} unpacks to more than {SITEMAP_BYTES >> 20} MiB, the most that a sitemap may have.")
        try:
            root = ElementTree.fromstring(data)  # noqa: S314 - expat of Python 3.11 limits entities
        except ElementTree.ParseError as error:
            raise DataError(f"{response.url} is no sitemap: {error}. {NO_SITEMAP}") from error
        if not root.tag.endswith(("urlset", "sitemapindex")):
            raise DataError(f"{response.url} is no sitemap: it begins with <{root.tag}>. {NO_SITEMAP}")
        found = [(kind == "sitemap", place.text or "") for kind in ("sitemap", "url") for place in root.iterfind(f"{{*}}{kind}/{{*}}loc")]
        return [(is_sitemap, address.strip()) for is_sitemap, address in found if self._is_new(address.strip())]

    def _allow(self, address: str) -> None:
        url = httpx.URL(address)
        if self.start and not self._is_inside(url):
            raise LeftOut("page outside the bounds of the source", f"{address} is not on the host, or not below the directory, of {self.start}")
        if not self._rules(url).can_fetch(address, AGENT):
            raise LeftOut("page that robots.txt forbids", f"robots.txt forbids {address} to {AGENT}")

    def _is_inside(self, url: httpx.URL) -> bool:
        start = self.start or url
        return url.scheme in ("http", "https") and url.netloc == start.netloc and f"{url.path}/".startswith(self._directory(start.path))

    def _directory(self, path: str) -> str:
        """docs/ for docs/index.html, docs/ and docs; a sitemap lists all of its host."""
        if self.source.pages == "sitemap":
            return "/"
        above, _, name = path.rpartition("/")
        return f"{above}/" if "." in name or not name else f"{path}/"

    def _rules(self, url: httpx.URL) -> Protego:
        """The robots.txt of a server (RFC 9309); without one all is allowed."""
        place = url.copy_with(path="/robots.txt", query=None, fragment=None)
        if place not in self.robots:
            file = self.scratch / "robots.txt"
            try:
                with Client(self.source.path, self.source.secret) as client:  # no cache: it is asked for while a page is, which may be this one
                    client.fetch(str(place), file, most=PAGE_BYTES)
                self.robots[place] = Protego.parse(file.read_text(encoding="utf-8", errors="replace"))
            except RefusedError:
                self.robots[place] = Protego.parse("")
            self._slow_down(self.robots[place].crawl_delay(AGENT) or 0.0, place)
        return self.robots[place]

    def _slow_down(self, delay: float, place: httpx.URL) -> None:
        if delay > LONGEST_WAIT:
            raise UsageError(f"{place} asks for {delay:.0f} seconds between two pages, too slow to read a site. Ask its owner for the texts in a file.")
        self.client.pause = max(self.client.pause, delay)


def _refuse_others(response: httpx.Response) -> None:
    if _media_type(response) not in ENDINGS:
        raise LeftOut("page of an unknown kind", f"{response.url} is {_media_type(response) or 'of no kind'}, not a text or document")


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
