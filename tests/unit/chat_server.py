"""A server with OpenAI's API for chats on this machine: it asks about the first sentence of the text that it gets, unless a test wants otherwise.

python tests/unit/chat_server.py 8123    serves until it is stopped, to try things out
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    path: str
    headers: Message
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The text between the marks."""
        return "\n".join(self.body["messages"][1]["content"].split("\n")[1:-1])


Answer = tuple[int, dict[str, str], bytes]
Answers = Callable[[Request], Answer | None]  # None: the connection is closed without an answer


def said(content: str | None, finish_reason: str = "stop") -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return 200, {"Content-Type": "application/json"}, json.dumps({"choices": [choice]}).encode()


def pairs(*given: tuple[str, str, str]) -> str:
    return json.dumps({"pairs": [dict(zip(("question", "answer", "quote"), one, strict=True)) for one in given]})


def first_sentence(request: Request) -> Answer:
    sentence = request.text.partition(".")[0] + "."
    return said(pairs((f"What is said about {sentence.split()[-1].strip('.')}?", f"This: {sentence}", sentence)))


@dataclass
class ChatServer:
    """`answer` may be exchanged between two requests."""

    answer: Answers = first_sentence
    requests: list[Request] = field(default_factory=list)
    at_once = most_at_once = 0
    address: str = ""


@contextmanager
def chatting(answer: Answers = first_sentence, port: int = 0) -> Iterator[ChatServer]:
    chat, lock = ChatServer(answer), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = Request(self.path, self.headers, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            with lock:
                chat.requests.append(request)
                chat.at_once += 1
                chat.most_at_once = max(chat.most_at_once, chat.at_once)
            answered = chat.answer(request)
            with lock:
                chat.at_once -= 1
            if answered:
                self._send(*answered)

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        chat.address = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield chat
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    with chatting(port=int(sys.argv[1])) as chat:
        print(chat.address, flush=True)
        threading.Event().wait()
