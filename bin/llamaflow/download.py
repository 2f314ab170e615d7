"""Files from http(s) addresses."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from llamaflow.errors import TemporaryError, UsageError

ATTEMPTS = 5
LONGEST_WAIT = 60.0  # seconds; a server that asks for more gets the task again later
TIMEOUT = httpx.Timeout(60.0, connect=15.0)
MEANINGS = {401: "it needs a login", 403: "access is denied", 404: "there is no such file", 410: "the file was removed"}


class _TryAgain(Exception):  # noqa: N818
    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def download(address: str, directory: Path) -> Path:
    """Stream an address to a file in a directory, under the name in the address.

    Too many requests (429), errors of the server (5xx) and of the connection are tried again, as Retry-After says or after 1, 2, 4 ... s.
    Raises UsageError if the address is wrong, TemporaryError if the server does not answer properly.
    """
    path = directory / (PurePosixPath(unquote(urlsplit(address).path)).name or "download")
    try:
        for attempt in Retrying(retry=retry_if_exception_type(_TryAgain), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True):
            with attempt:
                _fetch(address, path)
    except _TryAgain as error:
        raise TemporaryError(
            f"{address} cannot be downloaded now: {error}, {ATTEMPTS} times. Check the address and the network, and try again later."
        ) from error
    return path


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = seconds(error.retry_after) if isinstance(error, _TryAgain) else None
    return min(LONGEST_WAIT, 2.0 ** (state.attempt_number - 1) if asked is None else asked)


def seconds(retry_after: str | None) -> float | None:
    """What the header Retry-After asks for (RFC 9110, 10.2.3): a number of seconds, or a date."""
    if not retry_after:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _fetch(address: str, path: Path) -> None:
    try:
        with httpx.stream("GET", address, follow_redirects=True, timeout=TIMEOUT) as response, path.open("wb") as file:
            _check(response, address)
            for chunk in response.iter_bytes():
                file.write(chunk)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise UsageError(f"{address} is not an address that can be downloaded: {error}") from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise _TryAgain(str(error) or type(error).__name__) from error


def _check(response: httpx.Response, address: str) -> None:
    status = response.status_code
    if status == 429 or status >= 500:
        raise _TryAgain(f"the server answers {status} {response.reason_phrase}", response.headers.get("retry-after"))
    if status != 200:
        raise UsageError(f"{address} cannot be downloaded: {MEANINGS.get(status, response.reason_phrase)} (HTTP {status}). Check the address in a browser.")
    if response.headers.get("content-type", "").startswith("text/html"):
        raise UsageError(f"{address} is a web page, not a data file. Use the address of the file itself (often behind 'Download' or 'Raw').")
