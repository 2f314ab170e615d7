"""How much a client may ask for, bytes of a request and requests a minute; and what every answer says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from launchpad.errors import ApiError

MOST_CLIENTS = 10_000  # that are remembered; anyone can be a new one, by trying to sign in from another address


class RateLimit:
    """A bucket of tokens for each client, filled at `per_minute`, that holds a quarter of a minute's."""

    def __init__(self, per_minute: int) -> None:
        self.per_second, self.most = per_minute / 60, max(1.0, per_minute / 4)
        self.left: dict[Any, tuple[float, float]] = {}  # of a client: requests left, when
        self.lock = threading.Lock()

    def count(self, client: Any) -> None:
        """Raises ApiError 429 with Retry-After."""
        with self.lock:
            time_now = time.monotonic()
            if len(self.left) > MOST_CLIENTS:
                self._forget_full(time_now)
            left, then = self.left.get(client, (self.most, time_now))
            left = min(self.most, left + (time_now - then) * self.per_second)
            self.left[client] = (max(0.0, left - 1), time_now)
        if left < 1:
            raise ApiError(429, "Too many requests: wait a moment.", headers={"Retry-After": str(int(1 / self.per_second) + 1)})

    def _forget_full(self, time_now: float) -> None:
        """A full bucket is as good as none."""
        self.left = {client: (left, then) for client, (left, then) in self.left.items() if left + (time_now - then) * self.per_second < self.most}


class BodyLimit:
    """Refuses a body that is longer than `most` bytes, or than `most_upload` where someone who may sends a file, before all of it is read."""

    def __init__(self, app: ASGIApp, most: int, most_upload: int, knows: Callable[[Request], bool]) -> None:
        self.app, self.most, self.most_upload, self.knows = app, most, most_upload, knows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self.most_upload if scope["path"].endswith("/upload") and await run_in_threadpool(self.knows, Request(scope)) else self.most
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > most:
            await _refuse(send, most)
            return
        seen, started, refused = 0, False, False

        async def counted() -> Message:
            nonlocal seen, refused
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                refused = True
                return {"type": "http.disconnect"}
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if not refused:
                started = True
                await send(message)

        try:
            await self.app(scope, counted, watched)
        except ClientDisconnect:
            if not refused:
                raise
        if refused and not started:
            await _refuse(send, most)


class Unkept:
    """No answer is kept by proxies and browsers, guessed to be of another kind than it says, or shown inside another page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("X-Frame-Options", "DENY")
            await send(message)

        await self.app(scope, receive, with_headers)


async def _refuse(send: Send, most: int) -> None:
    body = f'{{"message": "The request is larger than {most} bytes."}}'.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
