"""Objects of S3, of what speaks its protocol (MinIO, by AWS_ENDPOINT_URL), and of Google Cloud Storage.

Credentials come from the environment, under the stores' own names (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS ...), or from the machine's role.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from fsspec.utils import glob_translate
from obstore.exceptions import BaseError, InvalidPathError, NotModifiedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import GCSStore, S3Store

from llamaflow.errors import TemporaryError, UsageError
from llamaflow.source_cache import Entry, SourceCache
from llamaflow.sources import pattern_of

if TYPE_CHECKING:
    from obstore import GetResult

CHUNK_BYTES = 8 << 20
ROLES = re.compile(r"169\.254\.|metadata\.google\.internal")  # who is asked for credentials if the environment has none
REFUSALS = re.compile(r"status code: 40[0-5]|NoSuchBucket|incorrectly configured region|builder error")


def objects_of(address: str) -> Iterator[tuple[str, str]]:
    """Name (below the part without pattern) and address of each object that a prefix or a pattern means.

    Stores list them in the order of their names, a page at a time.
    """
    pattern = pattern_of(address)
    base = address.removesuffix(pattern).rstrip("/") + "/"
    prefix, fits, found = _key(base), re.compile(glob_translate(pattern)).match, False
    with _explained(address):
        for page in obstore.list(_store(base), prefix=prefix):
            for name in (entry["path"].removeprefix(prefix) for entry in page):
                if fits(name):
                    found = True
                    yield name, base + name
    if not found:
        raise UsageError(
            f"there is no object in {base}" + (f" that fits {pattern}." if pattern != "**/*" else ". A single object is known by its ending (data.jsonl).")
        )


def fetch_object(address: str, path: Path, cache: SourceCache) -> None:
    """Stream an object to a file. A connection that ends on the way is taken up again where it was, if the object is still the same."""
    cache.bring(f"{os.environ.get('AWS_ENDPOINT_URL', '')}\0{address}", path, partial(_fetch, address))


def _fetch(address: str, entry: Entry) -> None:
    with _explained(address):
        found = _asked(address, entry)
    if found is None:
        return
    try:
        with entry.part.open("ab") as file:
            for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                file.write(chunk)
    except BaseError as error:
        raise TemporaryError(f"{address} was changed, or the connection ended, while it was read: {_said(error)}. It is read again.") from error


def _asked(address: str, entry: Entry) -> GetResult | None:
    """The object, or the rest of it if a part has come before; None if it is the copy that is there."""
    store, key = _store(address), _key(address)
    if entry.come and "etag" in entry.begun:
        try:
            return obstore.get(store, key, options={"range": {"offset": entry.come}, "if_match": entry.begun["etag"]})
        except BaseError:
            entry.drop_part()  # it is another one now, or all of it has come: without a range, the store says what is wrong
    try:
        found = obstore.get(store, key, options={"if_none_match": entry.headers["etag"]} if entry.headers else None)
    except NotModifiedError:
        entry.drop_part()
        return None
    etag = found.meta["e_tag"]
    entry.begin({"etag": etag} if etag else {})
    return found


def _key(address: str) -> str:
    return address.split("/", 3)[3]


def _store(address: str) -> S3Store | GCSStore:
    scheme, _, bucket = address.split("/")[:3]
    is_plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return S3Store(bucket, client_options={"allow_http": is_plain}) if scheme == "s3:" else GCSStore(bucket)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what the store says into our errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"there is no object {address}. Check the bucket and the name; a prefix ends in a slash.") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise UsageError(f"access to {address} is denied. Check the credentials in the environment, and what they may list and read.") from error
    except InvalidPathError as error:
        raise UsageError(f"{address} holds an object whose name cannot be read: {_said(error)}. Rename it, or give a narrower prefix.") from error
    except BaseError as error:
        said = str(error)
        if ROLES.search(said):
            raise UsageError(
                f"there are no credentials for {address}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (of a public bucket, AWS_SKIP_SIGNATURE=true) or, "
                "for gs://, GOOGLE_APPLICATION_CREDENTIALS in the environment."
            ) from error
        if REFUSALS.search(said):
            raise UsageError(f"{address} cannot be read: {_said(error)}. Check the bucket, its region (AWS_REGION) and AWS_ENDPOINT_URL.") from error
        raise TemporaryError(f"{address} cannot be read now: {_said(error)}. Check the address and the network, and try again later.") from error


def _said(error: Exception) -> str:
    """What the store itself said, or else the error's first line."""
    message = re.search(r"<Message>(.*?)</Message>", str(error))
    return (message[1] if message else str(error).splitlines()[0]).rstrip(". ")
