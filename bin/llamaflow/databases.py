"""Rows of a query: PostgreSQL, MySQL and SQLite through SQLAlchemy, as a stream, read only.

An address never holds a password: it would stand in receipts and reports. The environment variable that `secret` names holds it.
"""

from __future__ import annotations

import base64
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, ResourceClosedError
from sqlalchemy.pool import NullPool

from llamaflow.errors import TemporaryError, UsageError
from llamaflow.watermarks import Watermark

Row = tuple[int, dict[str, Any]]
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
READ_ONLY = {"postgresql": "SET default_transaction_read_only = on", "mysql": "SET SESSION TRANSACTION READ ONLY"}
ROWS_AT_ONCE = 1000
COLON = re.compile(r"(?<![:\w\\]):(?=\w)")  # would stand for a parameter


def rows_of_query(database: str | Path, query: str, secret: str | None, watermark: Watermark | None = None) -> Iterator[Row]:
    """Iterate over the result of a query to a server (its address) or a SQLite file; with a watermark, over what is new.

    Raises UsageError if the database or the query refuses, TemporaryError if the connection is lost on the way.
    """
    number, name = 0, database.name if isinstance(database, Path) else make_url(database).render_as_string()
    try:
        engine = _file(database) if isinstance(database, Path) else _server(database, secret)
        for number, row in enumerate(_rows(engine, query, watermark), 1):
            yield number, {column: _plain(value) for column, value in row.items()}
    except (ArgumentError, NoSuchModuleError, ResourceClosedError) as error:
        raise UsageError(f"{name}: {str(error).rstrip('.')}. Expected postgresql://, mysql:// or a .sqlite file, and a query that returns rows.") from error
    except DBAPIError as error:
        words = error.orig.args[-1] if error.orig and error.orig.args else error.orig  # MySQL's begin with a number
        cause = " ".join(str(words).split()).rstrip(".")
        if number:
            raise TemporaryError(f"the database {name} ended the query after {number} rows: {cause}. It is asked again.") from error
        raise UsageError(f"the database {name} refuses: {cause}. Check its address, the query, and the password that secret names.") from error


def _rows(engine: Engine, query: str, watermark: Watermark | None) -> Iterator[Mapping[Any, Any]]:
    with engine.connect() as connection:
        if statement := READ_ONLY.get(engine.dialect.name):
            connection.exec_driver_sql(statement)
            connection.commit()
        streamed = connection.execution_options(stream_results=True, max_row_buffer=ROWS_AT_ONCE)
        query = COLON.sub(r"\\:", query.strip().rstrip(";"))
        with closing(streamed.execute(watermark.statement(query) if watermark else text(query))) as result:
            if watermark:
                watermark.refuse_other_columns([*result.keys()])
            for row in result.mappings():
                if watermark:
                    watermark.see(row[watermark.column])
                yield row


def _file(path: Path) -> Engine:
    return create_engine("sqlite://", poolclass=NullPool, creator=lambda: sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True))


def _server(address: str, secret: str | None) -> Engine:
    url = make_url(address)
    if secret is not None:
        if secret not in os.environ:
            raise UsageError(
                f"the environment variable {secret}, which the column secret names, is not set. Set it to the password of {url.render_as_string()}."
            )
        url = url.set(password=os.environ[secret])
    engine = create_engine(url.set(drivername=DRIVERS.get(url.get_backend_name(), url.drivername)), poolclass=NullPool)
    event.listen(engine, "handle_error", _leave_the_rest)
    return engine


def _leave_the_rest(context: ExceptionContext) -> None:
    """PyMySQL would read the rest of a result before it closes it, also from a connection that is gone."""
    result = getattr(getattr(context.execution_context, "cursor", None), "_result", None)
    if result is not None and context.is_disconnect:
        result.unbuffered_active = False


def _plain(value: Any) -> Any:
    """What a cell is in JSON; numbers of any precision and dates as text, binary data in base64."""
    if value is None or isinstance(value, str | int | float | list | dict):
        return value
    return base64.b64encode(value).decode() if isinstance(value, bytes | memoryview) else str(value)
