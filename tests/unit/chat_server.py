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
from typing import Any

from web_servers import Answer, Handler, running


@dataclass
class Request:
    path: str
    headers: Message
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The text between the marks."""
        return "\n".join(self.body["messages"][1]["content"].split("\n")[1:-1])


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

    class Posting(Handler):
        def do_POST(self) -> None:  # noqa: N802 - http.server calls it so
            request = Request(self.path, self.headers, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            with lock:
                chat.requests.append(request)
                chat.at_once += 1
                chat.most_at_once = max(chat.most_at_once, chat.at_once)
            answered = chat.answer(request)
            with lock:
                chat.at_once -= 1
            if answered:
                self.send(*answered)

    with running(Posting, port) as address:
        chat.address = f"{address}/v1"
        yield chat


if __name__ == "__main__":
    with chatting(port=int(sys.argv[1])) as chat:
        print(chat.address, flush=True)
        threading.Event().wait()
