"""A model behind OpenAI's API for chats (POST /chat/completions), which local servers speak too.

Texts and key go to the server that the user names and to no other: redirects are not followed.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

from llamaflow import __version__
from llamaflow.client import AGENT, ATTEMPTS, PRINTABLE, TryAgain, UnavailableError, attempts, try_later
from llamaflow.errors import UsageError
from llamaflow.textfiles import Unusable

KEY = "OPENAI_API_KEY"
TIMEOUT = httpx.Timeout(600.0, connect=15.0)  # seconds; a model on a processor writes a few words a second
SEED = 42  # the same request is to have the same answer, as far as the server can do that
NOT_THIS_REQUEST = (400, 413, 422)
CUT_OFF, REFUSED, TOO_SLOW = "model refused or cut off", "request refused by the server", "no answer in time"
USAGE = ("prompt_tokens", "completion_tokens")  # as the API names them
DETAIL = 300  # characters of what a server says of its refusal

Message = dict[str, str]


class Endpoint:
    """Asks one model; several threads may share it. `schema` is that of the JSON object that it is to answer with.

    `used` counts its answers, used or not, and the tokens that it says they took; `without_usage` those of which it says nothing.
    """

    def __init__(self, address: str, model: str, temperature: float, schema: Mapping[str, Any]) -> None:
        self.address, self.model = f"{address.rstrip('/')}/chat/completions", model
        self.body = {"model": model, "temperature": temperature, "seed": SEED}
        # servers and models differ in which they understand, and refuse the others: asked for in this order
        self.forms: Sequence[dict[str, Any]] = (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}},
            {"response_format": {"type": "json_object"}},
            {},
        )
        self.used = Counter(dict.fromkeys(("answers", *USAGE, "without_usage"), 0))
        self._counting = threading.Lock()
        self.http = httpx.Client(timeout=TIMEOUT, headers={"User-Agent": f"{AGENT}/{__version__}", **_authorization()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def ask(self, messages: Sequence[Message]) -> str:
        """What the model answers. Raises Unusable if it does not answer this, UsageError if none of its answers can be had, UnavailableError."""
        forms = self.forms
        for place, form in enumerate(forms):
            response = self._posted({**self.body, "messages": messages, **form})
            if response.status_code not in NOT_THIS_REQUEST:
                self.forms = forms[place:]
                self._refuse(response)
                return self._content(response)
        raise Unusable(REFUSED, f"HTTP {response.status_code}: {response.text[:DETAIL]}")

    def _posted(self, body: Mapping[str, Any]) -> httpx.Response:
        try:
            return attempts()(self._post, body)
        except TryAgain as error:
            raise UnavailableError(
                f"{self.address} gives no answer now: {error}, {ATTEMPTS} times. Is the server of --generation_endpoint running, and reachable from here? "
                "Where it answers 429, a lower --generation_concurrency may help.",
                error.status,
            ) from error

    def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        try:
            response = self.http.post(self.address, json=body)
        except httpx.ReadTimeout as error:
            raise Unusable(TOO_SLOW, f"{TIMEOUT.read:g} s") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UsageError(f"--generation_endpoint: {self.address} is no address that can be asked: {error}") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise TryAgain(str(error) or type(error).__name__) from error
        try_later(response)
        return response

    def _refuse(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (401, 403):
            wrong = f"does not accept the key in the environment variable {KEY}" if os.environ.get(KEY) else f"wants a key: set the environment variable {KEY}"
            raise UsageError(f"{self.address} {wrong} (HTTP {status}).")
        if status == 404:
            raise UsageError(
                f"{self.address} does not exist, or knows no model {self.model!r} (HTTP 404). Check --generation_endpoint, which mostly ends in /v1, and --generation_model."
            )
        if status != 200:
            raise UsageError(f"{self.address} answers {status} {response.reason_phrase}, no text. Check --generation_endpoint.")

    def _content(self, response: httpx.Response) -> str:
        try:
            answer = response.json()
            choice = answer["choices"][0]
            content, reason = choice["message"].get("content"), choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{self.address} does not answer as OpenAI's API does: {response.text[:DETAIL]!r}. Check --generation_endpoint, which mostly ends in /v1."
            ) from error
        self._count(answer.get("usage"))
        if reason in ("length", "content_filter") or not isinstance(content, str) or not content.strip():
            raise Unusable(CUT_OFF, f"finish_reason {reason}")
        return content

    def _count(self, usage: Any) -> None:
        told = {name: usage[name] for name in USAGE if isinstance(usage.get(name), int)} if isinstance(usage, dict) else {}
        with self._counting:
            self.used.update(told, answers=1, without_usage=int(not told))


def _authorization() -> dict[str, str]:
    key = os.environ.get(KEY, "").strip()
    if not key:
        return {}
    if not PRINTABLE.fullmatch(key):
        raise UsageError(f"the environment variable {KEY} holds more than one line of plain characters. Set it to the key of --generation_endpoint.")
    return {"Authorization": f"Bearer {key}"}
