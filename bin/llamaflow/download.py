"""Files from http(s) addresses."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx

from llamaflow.client import Client, is_web_page
from llamaflow.errors import UsageError
from llamaflow.source_cache import SourceCache


def download(address: str, directory: Path, cache: SourceCache, secret: str | None = None, *, page: bool = False) -> Path:
    """Stream an address to a file in a directory, under the name in the address; a web page only if `page` says that one is wanted.

    Raises UsageError if the address is wrong, TemporaryError if the server does not answer properly.
    """
    path = directory / (PurePosixPath(unquote(urlsplit(address).path)).name or "download")
    with Client(address, secret, cache=cache) as client:
        client.fetch(address, path, None if page else partial(_refuse_web_page, address))
    return path


def _refuse_web_page(address: str, response: httpx.Response) -> None:
    if is_web_page(response):
        raise UsageError(
            f"{address} is a web page, not a data file. Use the address of the file itself (often behind 'Download' or 'Raw'), "
            "or give html in the column format if its text is wanted."
        )
