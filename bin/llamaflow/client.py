"""Asking http(s) servers: politely, again where that may help, and with a secret that one of them gets and no other."""

from __future__ import annotations

import email.utils
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from llamaflow import __version__
from llamaflow.errors import DataError, TemporaryError, UsageError
from llamaflow.source_cache import Entry, SourceCache

ATTEMPTS = 5
LONGEST_WAIT = 60.0  # seconds; a server that asks for more gets the task again later
TIMEOUT = httpx.Timeout(60.0, connect=15.0)
AGENT = "llamaflow"
MEANINGS = {
    401: "it needs a login, and the column secret can name one",
    403: "access is denied",
    404: "there is no such file",
    410: "the file was removed",
}
HEADER = re.compile(r"([A-Za-z0-9-]+): +(.+)")
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
PRINTABLE = re.compile(r"[ -~]+")


class RefusedError(UsageError):
    """A server that will not give what is asked for; `status` says why."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnavailableError(TemporaryError):
    """A server that could not answer, `status` is None if it did not answer at all."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class TryAgain(Exception):  # noqa: N818
    """What may succeed in a moment, see `attempts`."""

    def __init__(self, reason: str, status: int | None = None, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after


class Client:
    """What fetches the files of one source, one after the other, `pause` seconds between two requests.

    The secret (see header_of) goes to the server of `address` only. `allow` is called before each request, those of redirects too, and may raise.
    """

    def __init__(
        self,
        address: str,
        secret: str | None = None,
        pause: float = 0.0,
        allow: Callable[[str], None] | None = None,
        cache: SourceCache | None = None,
    ) -> None:
        self.cache = cache or SourceCache(None)
        self.origin, self.header = origin(address), header_of(secret, address)
        self.pause, self.allow, self.last = pause, allow, 0.0
        headers = {"User-Agent": f"{AGENT}/{__version__}"}
        self.http = httpx.Client(follow_redirects=True, timeout=TIMEOUT, headers=headers, event_hooks={"request": [self._prepare]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def fetch(self, address: str, path: Path, check: Callable[[httpx.Response], None] | None = None, most: int | None = None) -> httpx.Response:
        """Stream what is at an address to a file, and return the response without its body. `check` sees it before the body and may raise.

        Too many requests (429), errors of the server (5xx) and of the connection are tried again, as Retry-After says or after 1, 2, 4 ... s; what has come
        by then is not asked for again, nor what the cache has and the server says is the same (RFC 9110, 13 and 14).
        Raises RefusedError or UsageError if the address is wrong, UnavailableError if the server does not answer properly, DataError for more than `most` bytes.
        """
        # who logs in otherwise may see something else there
        return self.cache.bring("\0".join((address, *(self.header or ()))), path, lambda entry: self._persistently(address, entry, check, most))

    def _persistently(self, address: str, entry: Entry, check: Callable[[httpx.Response], None] | None, most: int | None) -> httpx.Response:
        try:
            return attempts()(self._fetch, address, entry, check, most)
        except TryAgain as error:
            raise UnavailableError(
                f"{address} cannot be downloaded now: {error}, {ATTEMPTS} times. Check the address and the network, and try again later.", error.status
            ) from error

    def _fetch(self, address: str, entry: Entry, check: Callable[[httpx.Response], None] | None, most: int | None) -> httpx.Response:
        try:
            with self.http.stream("GET", address, headers=_conditions(entry)) as response:
                whole = _as_whole(response, entry)
                _refuse(whole, address)
                if check:
                    check(whole)
                if response.status_code == 200:
                    entry.begin(response.headers)
                if response.status_code != 304:
                    _write(response, address, entry.part, most)
                return whole
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise UsageError(f"{address} is not an address that can be downloaded: {error}") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise TryAgain(str(error) or type(error).__name__) from error

    def _prepare(self, request: httpx.Request) -> None:
        if self.allow:
            self.allow(str(request.url))
        time.sleep(max(0.0, self.last + self.pause - time.monotonic()))
        self.last = time.monotonic()
        if self.header:
            name, value = self.header
            request.headers.pop(name, None)  # a redirect takes over what the request before it had
            if origin(str(request.url)) == self.origin:
                request.headers[name] = value


def origin(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address (RFC 6454). Raises UsageError for what is no address."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise UsageError(f"{address} is not an address that can be downloaded: {error}") from error
    return url.scheme, url.host, url.port


def header_of(secret: str | None, address: str) -> tuple[str, str] | None:
    """The header with the value of the environment variable `secret`: `Name: value` as it stands, else as a bearer token (RFC 6750)."""
    if secret is None:
        return None
    value = os.environ.get(secret, "").strip()
    if not PRINTABLE.fullmatch(value):
        wrong = "holds more than one line of plain characters" if value else "is not set"
        raise UsageError(f"the environment variable {secret}, which the column secret names, {wrong}. Set it to the token for {address}.")
    header = HEADER.fullmatch(value)
    return (header[1], header[2]) if header else ("Authorization", f"Bearer {value}")


def attempts() -> Retrying:
    """What calls a function again where it raises TryAgain, after what the server asks for or 1, 2, 4 ... s; the last TryAgain is raised."""
    return Retrying(retry=retry_if_exception_type(TryAgain), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = seconds(error.retry_after) if isinstance(error, TryAgain) else None
    return min(LONGEST_WAIT, 2.0 ** (state.attempt_number - 1) if asked is None else asked)


def seconds(retry_after: str | None) -> float | None:
    """What the header Retry-After asks for (RFC 9110, 10.2.3): a number of seconds, or a date."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def try_later(response: httpx.Response) -> None:
    """Raise TryAgain for too many requests and for errors of the server."""
    if response.status_code == 429 or response.status_code >= 500:
        raise TryAgain(f"the server answers {response.status_code} {response.reason_phrase}", response.status_code, response.headers.get("retry-after"))


def _conditions(entry: Entry) -> dict[str, str]:
    """What asks for the rest of what has begun to come, or else only for what is not there already."""
    validator = _of_bytes(entry.begun)
    if validator and entry.come:
        return {"Range": f"bytes={entry.come}-", "If-Range": validator, "Accept-Encoding": "identity"}
    known = {"If-None-Match": entry.headers.get("etag"), "If-Modified-Since": entry.headers.get("last-modified")}
    return {name: value for name, value in known.items() if value}


def _of_bytes(headers: Mapping[str, str]) -> str | None:
    """What stands for these very bytes, so that others may follow them: a strong ETag, or a date that was past when it was given (RFC 9110, 8.8)."""
    if "content-encoding" in headers:
        return None  # what is written is not what is sent
    if etag := headers.get("etag"):
        return None if etag.startswith("W/") else etag
    try:
        modified, sent = (email.utils.parsedate_to_datetime(headers[name]).timestamp() for name in ("last-modified", "date"))
    except (KeyError, ValueError):
        return None
    return headers["last-modified"] if sent - modified >= 1 else None


def _as_whole(response: httpx.Response, entry: Entry) -> httpx.Response:
    """The response as it would be to somebody who asked for all of it; raises TryAgain if what has come cannot be gone on with."""
    asked, status = response.request.headers, response.status_code
    if status == 304 and "if-range" not in asked and entry.headers:
        entry.drop_part()
        return _with(entry.headers, response)
    if "if-range" not in asked or status not in (206, 304, 416):
        return response
    if status == 206 and _is_the_rest(response.headers, entry):
        return _with(entry.begun, response)
    entry.drop_part()
    raise TryAgain(f"the server does not go on where it ended ({status} {response.reason_phrase})")


def _is_the_rest(headers: Mapping[str, str], entry: Entry) -> bool:
    """All that is missing, of the same bytes: not every server looks at If-Range."""
    found = RANGE.fullmatch(headers.get("content-range", ""))
    if not found or "content-encoding" in headers or (int(found[1]), int(found[2]) + 1) != (entry.come, int(found[3])):
        return False
    return all(headers.get(name, entry.begun.get(name)) == entry.begun.get(name) for name in ("etag", "last-modified"))


def _with(headers: Mapping[str, str], response: httpx.Response) -> httpx.Response:
    return httpx.Response(200, headers={name: headers[name] for name in ("content-type", "link") if name in headers}, request=response.request)


def _write(response: httpx.Response, address: str, part: Path, most: int | None) -> None:
    with part.open("ab") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)
            if most and file.tell() > most:
                raise DataError(f"{address} has more than {most >> 20} MiB, the most that is read at once.")


def _refuse(response: httpx.Response, address: str) -> None:
    try_later(response)
    status = response.status_code
    if status != 200:
        reason = MEANINGS.get(status, response.reason_phrase)
        raise RefusedError(f"{address} cannot be downloaded: {reason} (HTTP {status}). Check the address in a browser.", status)


def is_web_page(response: httpx.Response) -> bool:
    return bool(response.headers.get("content-type", "").startswith("text/html"))
