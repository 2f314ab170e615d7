#!/usr/bin/env python3
"""Read one data source into records: files, a database, an HTTP API, web pages, objects of a store or a data set of the Hub.

    collect_source.py --path faq.csv < settings.json

The settings hold {"collection": {...}, "source": {a row of the samplesheet}} and, if there is one, source_cache (see llamaflow/source_cache.py). Without --path the
source's address is downloaded, or what it leads to is read page by page (see llamaflow/apis.py, llamaflow/webpages.py).
Writes collected.parquet (a directory, see ShardsWriter; none if the source is skipped), collect_source.dropped.parquet (rows that cannot become records, with the reason) and the receipt collect_source.json.
The first row whose columns are understood decides how the whole source is read (see llamaflow/reader.py).
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from llamaflow import previous_files
from llamaflow.apis import Api
from llamaflow.conversations import Conversations
from llamaflow.data_params import Collection
from llamaflow.databases import rows_of_query
from llamaflow.download import download
from llamaflow.errors import DataError, LlamaflowError, StorageError, TemporaryError, UsageError, exits_cleanly
from llamaflow.faults import refuse_too_many
from llamaflow.files import sha256
from llamaflow.folders import files_of, has_many_files
from llamaflow.formats import DOCUMENTS, rows_of
from llamaflow.reader import COLUMNS_LISTED, Reader
from llamaflow.records import DroppedWriter, ShardsWriter
from llamaflow.source_cache import SourceCache
from llamaflow.sources import FORMATS, Source, format_of, is_object, is_stored
from llamaflow.steps import read_settings, receipt, say
from llamaflow.stores import address_of, download_object, files_in_store, with_split
from llamaflow.templates import folded
from llamaflow.textfiles import Unusable
from llamaflow.watermarks import Watermark
from llamaflow.webpages import LeftOut, pages_of

Taker = ShardsWriter | Conversations

STEP = "collect_source"
UNREADABLE = "source that cannot be read"
UNKNOWN_KIND = "file of an unknown kind"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--path", type=Path, help="the source's file; without it, its address is downloaded")
    parser.add_argument("--previous", type=Path, help="the data set of an earlier run, for a source with watermark")
    parser.add_argument("--last-attempt", action="store_true", help="what may succeed later is not tried again")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Inputs:
    """What is read besides the source itself."""

    path: Path | None  # the source's file, if Nextflow has it
    previous: Path | None
    cache: SourceCache


def run(source: Source, collection: Collection, inputs: Inputs, outdir: Path, settings: Mapping[str, Any]) -> None:
    collected, rejected = outdir / "collected.parquet", outdir / f"{STEP}.dropped.parquet"
    with receipt(STEP, settings, outdir) as written, _local(source, inputs, outdir) as given:
        if given and not given.is_dir():
            written.add_input(given)
        with ShardsWriter(collected, collection.records_per_shard) as kept, DroppedWriter(rejected, STEP) as dropped:
            with _taking(source, kept, dropped, outdir) as taker:
                found = _read(source, replace(inputs, path=given), taker, dropped, outdir)
            read = taker.count - found.get("earlier_records", 0)
            refuse_too_many(dropped.faults, {source.id: {"kept": read, "dropped": dropped.reasons}}, collection.max_dropped_fraction)
            if not kept.count:
                raise DataError(
                    f"source {source.id!r}: no record could be made of it: {', '.join(f'{count} x {why}' for why, count in dropped.reasons.items())}."
                )
        if isinstance(taker, Conversations):
            found |= {"messages": taker.count, "messages_left_out": taker.left_out}
        written.inputs = found.pop("inputs", {}) | written.inputs
        written.add_output(collected)
        written.add_output(rejected)
        written.counts = {
            "records": kept.count,
            "dropped": dropped.reasons,
            "sources": {source.id: {"kept": kept.count, "dropped": dropped.reasons}},
            **found,
            **inputs.cache.counts,
            "sha256": next(iter(written.inputs.values()), None),
        }
        if inputs.previous:
            written.inputs |= {f"previous/{file.name}": sha256(file) for file in previous_files.files_of(inputs.previous)}
    if since := written.counts.get("unchanged_since"):
        say(f"unchanged since {since}: nothing was fetched")


def skip(source: Source, error: LlamaflowError, outdir: Path, settings: Mapping[str, Any]) -> None:
    """No records; what was dropped is the source, whole, with what was wrong."""
    rejected = outdir / f"{STEP}.dropped.parquet"
    with receipt(STEP, settings, outdir) as written:
        with DroppedWriter(rejected, STEP) as dropped:
            dropped.drop(source.id, source.path, UNREADABLE, str(error))
        written.add_output(rejected)
        counts = {"kept": 0, "dropped": dropped.reasons}
        # its first line only: what follows shows records, and the receipt is published
        written.counts = {"records": 0, "dropped": dropped.reasons, "sources": {source.id: counts}, "error": str(error).splitlines()[0]}
    say(f"skipped: {error}")


def _read(source: Source, inputs: Inputs, kept: Taker, dropped: DroppedWriter, outdir: Path) -> dict[str, Any]:
    given, cache = inputs.path, inputs.cache
    if source.query:
        return _read_database(source, inputs, kept, dropped)
    if given and not has_many_files(given):
        return _read_file(source, given, kept, dropped)
    with tempfile.TemporaryDirectory(dir=outdir, prefix=".unpacked-") as scratch:
        if source.is_api:
            return _read_api(Api(source, Path(scratch), cache), kept, dropped)
        if source.is_website:
            return _read_files(source, pages_of(source, Path(scratch), cache), source.path, kept, dropped)
        if given:
            return _read_files(source, files_of(given, source.path, Path(scratch)), given.name, kept, dropped)
        address = address_of(source)
        return _read_files(source, files_in_store(source, address, Path(scratch), cache), address, kept, dropped)


def _read_database(source: Source, inputs: Inputs, kept: Taker, dropped: DroppedWriter) -> dict[str, Any]:
    """The rows of a query to a server or a SQLite file; with a watermark, what was made of the earlier ones, and the others."""
    watermark = Watermark(source, inputs.previous) if source.watermark else None
    for record in watermark.records() if watermark else ():
        kept.write(record)
    earlier = kept.count
    reader = Reader(source, "query", dropped)
    for record in reader.records(rows_of_query(inputs.path or source.path, source.query or "", source.secret, watermark)):
        kept.write(record)
    if reader.rows or not earlier:
        reader.check(kept.count - earlier)
    found = {"format": "sql", "ignored_columns": sorted(reader.ignored - {folded(source.watermark or "")})[:COLUMNS_LISTED]}
    return found | ({"watermark": watermark.described, "earlier_records": earlier} if watermark else {})


def _read_api(api: Api, kept: Taker, dropped: DroppedWriter) -> dict[str, Any]:
    source, address = api.source, urlsplit(api.source.path)
    reader = Reader(source, PurePosixPath(address.path).name or address.netloc, dropped)
    for record in reader.records(api.rows()):
        kept.write(record)
    reader.check(kept.count)
    return {
        "format": "json",
        "ignored_columns": sorted(reader.ignored)[:COLUMNS_LISTED],
        "pages": api.pages,
        "bytes": api.bytes,
        "inputs": {source.path: api.digest.hexdigest()},
    }


def _read_file(source: Source, file: Path, kept: Taker, dropped: DroppedWriter) -> dict[str, Any]:
    file_format = source.format or format_of(source.path) or format_of(file.name)
    if file_format is None:
        raise UsageError(
            f"the format of {source.path} cannot be told from its ending. Name it in the column format: {', '.join(dict.fromkeys(FORMATS.values()))}."
        )
    reader = Reader(source, file.name, dropped, is_document=file_format in DOCUMENTS)
    for record in reader.records(rows_of(file, file_format)):
        kept.write(record)
    reader.check(kept.count)
    return {"format": file_format, "ignored_columns": sorted(reader.ignored)[:COLUMNS_LISTED], "bytes": file.stat().st_size}


def _read_files(source: Source, files: Iterable[tuple[str, Path | Unusable]], address: str, kept: Taker, dropped: DroppedWriter) -> dict[str, Any]:
    """All files or pages, each by its own columns. One that cannot be read is dropped with the reason, and the others go on."""
    formats, ignored, size, digest = Counter[str](), set[str](), 0, hashlib.sha256()
    for name, file in files:
        if isinstance(file, Unusable):
            dropped.drop(source.id, name, file.reason, file.given, file.detail, by_choice=isinstance(file, LeftOut))
            continue
        file_format = source.format or format_of(file.name)
        if file_format is None:
            dropped.drop(source.id, name, UNKNOWN_KIND, "", by_choice=True)
            continue
        reader = Reader(with_split(source, name), name, dropped, is_document=file_format in DOCUMENTS)
        try:
            for record in reader.records(rows_of(file, file_format)):
                kept.write(record)
            reader.check(kept=1)  # what was dropped is counted by row already
        except DataError as error:
            dropped.drop(source.id, name, "file that cannot be read", str(error), str(error))
        formats[file_format] += 1
        ignored |= reader.ignored
        size += file.stat().st_size
        digest.update(f"{name}\0{sha256(file)}\n".encode())  # of what was read: beside it there may be anything
    if not formats:
        left_out = "".join(f" {count} x {reason}." for reason, count in dropped.reasons.items())
        raise UsageError(f"source {source.id!r}: {address} holds no file of a kind that is known: {' '.join(FORMATS)}.{left_out}")
    return {
        "format": ", ".join(sorted(formats)),
        "files": dict(sorted(formats.items())),
        "ignored_columns": sorted(ignored)[:COLUMNS_LISTED],
        "bytes": size,
        "inputs": {address: digest.hexdigest()},
    }


@contextmanager
def _taking(source: Source, kept: ShardsWriter, dropped: DroppedWriter, outdir: Path) -> Iterator[Taker]:
    """Where what is read goes: straight to the file, or, of messages, as conversations once all are there."""
    if not source.has_messages:
        yield kept
        return
    with tempfile.TemporaryDirectory(dir=outdir, prefix=".messages-") as scratch, Conversations(Path(scratch) / "messages.sqlite") as conversations:
        yield conversations
        conversations.write_to(kept, dropped)


@contextmanager
def _local(source: Source, inputs: Inputs, outdir: Path) -> Iterator[Path | None]:
    """The source's file or directory: the given one, or one downloaded for the time being; None for what is asked or read page by page."""
    if source.is_server or source.is_api or source.is_website or (is_stored(source.path) and not is_object(source.path)):
        yield None
        return
    if inputs.path is None and (source.is_url or is_stored(source.path)):
        # beside the results, since the system's temporary directory may be small
        with tempfile.TemporaryDirectory(dir=outdir, prefix=".download-") as directory:
            yield _downloaded(source, Path(directory), inputs.cache)
        return
    given = inputs.path or Path(source.path)
    if not given.exists():
        raise UsageError(f"source {source.id!r}: {given} is not there. Check the column path of the samplesheet.")
    yield given


def _downloaded(source: Source, directory: Path, cache: SourceCache) -> Path:
    if source.is_url:
        return download(source.path, directory, cache, source.secret, page=(source.format or format_of(source.path)) == "html")
    return download_object(source.path, directory, cache)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    source, collection = Source.model_validate(settings.get("source", {})), Collection.model_validate(settings.get("collection", {}))
    try:
        run(source, collection, Inputs(args.path, args.previous, SourceCache(settings.get("source_cache"))), args.outdir, settings)
    except LlamaflowError as error:
        tried_again = isinstance(error, TemporaryError) and not args.last_attempt
        if collection.on_source_error == "stop" or isinstance(error, StorageError) or tried_again:
            raise
        skip(source, error, args.outdir, settings)


if __name__ == "__main__":
    main()
