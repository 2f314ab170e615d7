"""What makes a record one that a model can learn from: the user's rules, for records that were read and for those that a model wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from llamaflow.data_params import Action, Cleaning, PersonalData, PersonalType, actions_of
from llamaflow.errors import UsageError
from llamaflow.languages import language_of
from llamaflow.personal import Redactor, pattern_of
from llamaflow.quality import fault as quality_fault
from llamaflow.records import Record, texts_of, turns_of
from llamaflow.tokencount import TokenCounter

FIELDS = ("messages", "prompt", "chosen", "rejected")
ROLES = {"system", "user", "assistant"}
KEY, KEY_CHARACTERS = "LLAMAFLOW_HASH_KEY", 16
ANSWERS_FILTER = {"none": "none", "light": "light", "web": "light"}  # an answer of three words is no debris


@dataclass(frozen=True)
class Rules:
    """What is done to records, as the user chose it."""

    cleaning: Cleaning
    personal: PersonalData
    tokens: TokenCounter | None = None  # there if lengths have bounds in tokens

    @classmethod
    def of(cls, settings: Mapping[str, Any], tokenizer: Path | None = None) -> Self:
        """From a step's settings, and the directory of what counts tokens."""
        cleaning, personal = Cleaning.model_validate(settings.get("cleaning", {})), PersonalData.model_validate(settings.get("personal_data", {}))
        if not cleaning.has_token_bounds:
            return cls(cleaning, personal)
        if tokenizer is None:
            raise UsageError("--min_tokens and --max_tokens: tokens are to be counted, but --tokenizer, the result of fetch_model, is missing.")
        return cls(cleaning, personal, TokenCounter(tokenizer))

    def redactor(self, names: Sequence[str] = ()) -> Redactor:
        """For one record, in which these names of people were found."""
        return Redactor(self._actions, self.personal.phone_regions, self._key, pattern_of(names))

    @cached_property
    def _actions(self) -> dict[PersonalType, Action]:
        return actions_of(self.personal.personal_data)

    @cached_property
    def _key(self) -> bytes:
        key = os.environ.get(KEY, "")
        if "hash" in self._actions.values() and len(key) < KEY_CHARACTERS:
            raise UsageError(
                f"--personal_data hashes values, which takes a secret key: without one, whoever has a list of numbers could find them again. "
                f"Set the environment variable {KEY} to at least {KEY_CHARACTERS} random characters (openssl rand -hex 32), or use mask."
            )
        return key.encode()


def with_texts(record: Record, change: Callable[[str], str]) -> Record:
    """The record with all its texts changed; a system message without text says nothing and is left out."""
    result = dict(record)
    for name in ("text", "label"):
        if record[name] is not None:
            result[name] = change(record[name])
    for name in FIELDS:
        if record[name] is not None:
            turns = [{"role": turn["role"], "content": change(turn["content"])} for turn in record[name]]
            result[name] = [turn for turn in turns if turn["content"] or turn["role"] != "system"]
    return result


def filtered(record: Record, rules: Rules, redactor: Redactor) -> str | None:
    """The reason to leave out a sound record, as the user's filters have it, or None. The record's language is noted where it can be told."""
    if kind := redactor.forbidden():
        return f"personal data: {kind}"
    meta, cleaning = record["meta"], rules.cleaning
    meta["language"] = meta["language"] or language_of(" ".join(turn["content"] for turn in turns_of(record) if turn["role"] != "system") or record["text"])
    spoken = (meta["language"] or "").lower().partition("-")[0]
    if cleaning.languages and spoken and spoken not in cleaning.languages:
        return f"language: {spoken}"
    if record["type"] == "text":
        reason = quality_fault(record["text"], cleaning.quality_filter, spoken)
    else:
        answers = (turn["content"] for turn in (record["messages"] or record["chosen"]) if turn["role"] == "assistant")
        reason = next(filter(None, (quality_fault(answer, ANSWERS_FILTER[cleaning.quality_filter]) for answer in answers)), None)
    return f"quality: {reason}" if reason else _beyond(record, rules)


def _beyond(record: Record, rules: Rules) -> str | None:
    """What its length in tokens is, if that is beyond the bounds."""
    if rules.tokens is None:
        return None
    least, most = rules.cleaning.min_tokens, rules.cleaning.max_tokens
    (count,) = rules.tokens([list(texts_of(record))])
    if least is not None and count < least:
        return "too few tokens"
    return "too many tokens" if most is not None and count > most else None


def fault(record: Record, cleaning: Cleaning) -> str | None:
    """The reason to drop a record, or None. Lengths count all its texts, before a system prompt is added."""
    length = sum(map(len, texts_of(record)))
    if not length:
        return "empty"
    problem = {"text": lambda _: None, "chat": _chat_fault, "preference": _preference_fault}[record["type"]](record)
    if problem:
        return problem
    if length < cleaning.min_characters:
        return "too short"
    return "too long" if length > cleaning.max_characters else None


def _chat_fault(record: Record) -> str | None:
    return _turns_fault(record) or _order_fault(record["messages"])


def _preference_fault(record: Record) -> str | None:
    prompt, chosen, rejected = record["prompt"], record["chosen"], record["rejected"]
    problem = _turns_fault(record) or _order_fault(prompt + chosen) or _order_fault(prompt + rejected)
    if problem:
        return problem
    if not prompt or prompt[-1]["role"] != "user" or not chosen or not rejected:
        return "role order"
    return "chosen equals rejected" if chosen == rejected else None


def _turns_fault(record: Record) -> str | None:
    turns = turns_of(record)
    if any(turn["role"] not in ROLES for turn in turns):
        return "unknown role"
    return "empty turn" if not all(turn["content"] for turn in turns) else None


def _order_fault(turns: list[dict[str, str]]) -> str | None:
    """A system message at most, then user and assistant in turns; the assistant has the last word."""
    roles = [turn["role"] for turn in turns]
    for role in ("assistant", "user"):
        if role not in roles:
            return f"no {role} turn"
    roles = roles[1:] if roles[0] == "system" else roles
    is_alternating = len(roles) % 2 == 0 and all(role == ("user", "assistant")[place % 2] for place, role in enumerate(roles))
    return None if is_alternating else "role order"
