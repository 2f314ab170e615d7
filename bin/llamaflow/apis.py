"""HTTP APIs as sources: rows from one answer after the other, as the columns `rows` and `pages` of the samplesheet say."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from llamaflow.client import Client, RefusedError, is_web_page, origin
from llamaflow.errors import DataError
from llamaflow.formats import Row
from llamaflow.source_cache import SourceCache
from llamaflow.sources import Source
from llamaflow.textfiles import Unusable

PAUSE = 0.1  # seconds between two requests
INDEX = re.compile(r"-?\d+")
ANSWER_BYTES = 128 << 20  # takes five times as much memory


class Api:
    """The answers of an API, one at a time, each in a file for the time being."""

    def __init__(self, source: Source, scratch: Path, cache: SourceCache) -> None:
        self.source, self.file, self.cache = source, scratch / "answer.json", cache
        self.kind, _, self.detail = (source.pages or "").partition(":")
        self.name = self.detail.partition(":")[0] or self.kind  # of the parameter in the address that says which page is asked for
        self.pages = self.bytes = 0
        self.digest = hashlib.sha256()
        self.seen: set[bytes] = set()

    def rows(self) -> Iterator[Row]:
        """All rows, numbered page:row. Raises DataError for answers that cannot be used, TemporaryError if the server does not answer."""
        with Client(self.source.path, self.source.secret, PAUSE, cache=self.cache) as client:
            address: str | None = self._first()
            while address:
                self._refuse_repetition(address, "asks for the same address again")
                try:
                    response = client.fetch(address, self.file, self._refuse_web_page, ANSWER_BYTES)
                except RefusedError as refused:
                    if self.kind == "page" and self.pages and refused.status == 404:
                        return  # how many APIs say that the last page was the last
                    raise
                answer = self._answer()
                rows = self._rows(answer)
                if rows:
                    self._refuse_repetition(json.dumps(rows), "brings rows that came before")
                for number, row in enumerate(rows, 1):
                    yield f"{self.pages}:{number}", row if isinstance(row, dict) else Unusable("not a JSON object", given=row)
                try:
                    address = self._next(address, response, answer, len(rows))
                except httpx.InvalidURL as error:
                    raise self._fault(f"page {self.pages} leads to what is no address: {error}") from error

    def _first(self) -> str:
        """The address with the number that is counted up from there; one that it has already stays."""
        url = httpx.URL(self.source.path)
        if self.kind not in ("page", "offset"):
            return str(url)
        number = url.params.get(self.name, "1" if self.kind == "page" else "0")
        if not number.isdecimal():
            raise self._fault(f"the address has {self.name}={number}, where a number is expected. Name the parameter in the column pages: {self.kind}:NAME.")
        return str(url.copy_set_param(self.name, number))

    def _next(self, address: str, response: httpx.Response, answer: Any, rows: int) -> str | None:
        """Where the next answer is; None if this was the last one."""
        url = httpx.URL(address)
        if self.kind in ("page", "offset"):
            step = 1 if self.kind == "page" else rows
            return str(url.copy_set_param(self.name, int(url.params[self.name]) + step)) if rows else None
        if self.kind == "cursor":
            cursor = self._found(answer, self.detail.partition(":")[2])
            return str(url.copy_set_param(self.name, cursor)) if cursor else None
        if not self.kind:
            return None
        link = self._found(answer, self.detail) if self.kind == "next" else response.links.get("next", {}).get("url")
        return self._safe(response.url.join(link)) if link else None

    def _found(self, answer: Any, path: str) -> str | None:
        """What tells the next page; null, false, 0, an empty text or nothing at all means that there is none."""
        try:
            value = at(answer, path)
        except LookupError:
            return None
        if value and not isinstance(value, str | int):
            raise self._fault(f"page {self.pages} has no text or number at {path}, but {json.dumps(value)[:80]}. Mend the column pages.")
        return str(value) if value else None

    def _safe(self, url: httpx.URL) -> str:
        if self.source.secret and origin(str(url)) != origin(self.source.path):
            raise self._fault(
                f"page {self.pages} leads to another server, {url.scheme}://{url.netloc.decode()}, which must not see the secret. "
                "Write the address as the API itself writes it (https, not http), or use page, offset or cursor in the column pages."
            )
        return str(url)

    def _answer(self) -> Any:
        data = self.file.read_bytes()
        self.pages += 1
        self.bytes += len(data)
        self.digest.update(data)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._fault(f"page {self.pages} is not valid JSON ({error}). It begins with: {data[:80].decode('utf-8', 'replace')}") from error

    def _rows(self, answer: Any) -> list[Any]:
        try:
            rows = at(answer, self.source.rows) if self.source.rows else answer
        except LookupError:
            rows = answer  # to be refused below
        if rows is None:
            return []  # so some servers write an empty list
        if isinstance(rows, list):
            return rows
        place = f"at {self.source.rows}" if self.source.rows else "as a whole"
        names = f"an object with {', '.join(map(str, list(rows)[:20]))}" if isinstance(rows, dict) else json.dumps(rows)[:80]
        raise self._fault(f"page {self.pages} is no list {place}, but {names}. Say in the column rows where the list is, such as data.items.")

    def _refuse_repetition(self, what: str, words: str) -> None:
        digest = hashlib.sha256(what.encode()).digest()
        if digest in self.seen:
            raise self._fault(f"the API {words} after page {self.pages}, and would go on for ever. Check the columns path and pages ({self.source.pages}).")
        self.seen.add(digest)

    def _refuse_web_page(self, response: httpx.Response) -> None:
        if is_web_page(response):
            raise self._fault("the server answers with a web page, not JSON. Is it the address of the API itself, and does it need a login (column secret)?")

    def _fault(self, words: str) -> DataError:
        return DataError(f"source {self.source.id!r}, {self.source.path}: {words}")


def at(value: Any, path: str) -> Any:
    """What is at a path such as data.items: a name leads into an object, or into every object of a list, a number into a list.

    A name may have dots itself (@odata.nextLink). Raises LookupError if there is nothing.
    """
    if isinstance(value, dict) and path in value:
        return value[path]
    name, _, rest = path.partition(".")
    if isinstance(value, list):
        inner = value[int(name)] if INDEX.fullmatch(name) else [item.get(name) if isinstance(item, dict) else None for item in value]
    elif isinstance(value, dict):
        inner = value[name]
    else:
        raise LookupError(path)
    return at(inner, rest) if rest else inner
