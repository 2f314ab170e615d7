"""Web servers on this machine that answer as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def serving(*answers: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn, the last one for ever; yields its address and the paths asked for."""
    asked: list[str] = []
    with answering(lambda _path, _headers: answers[min(len(asked), len(answers)) - 1], asked) as address:
        yield address, asked


@contextmanager
def answering(answer: Callable[[str, Message], Answer], asked: list[str] | None = None) -> Iterator[str]:
    """A server that answers by path and headers; yields its address. What was asked for is added to `asked`."""

    class Getting(Handler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            self.send(*answer(self.path, self.headers))

    with running(Getting) as address:
        yield address


class Handler(BaseHTTPRequestHandler):
    """Sends whole answers, and says nothing on the screen."""

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running(handler: type[Handler], port: int = 0) -> Iterator[str]:
    """The address of a server that answers so."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
