"""Conversations as text and tokens, and which of it the model is to learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llamaflow.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
Example = tuple[list[int], list[bool]]  # token ids, and which of them the model learns to write


def conversation_of(record: dict[str, Any]) -> list[Message] | None:
    """The messages to learn from: a chat's own, a preference's prompt with the chosen answer; None for plain text."""
    if record["type"] == "text":
        return None
    return list(record["messages"] or []) or [*(record["prompt"] or []), *record["chosen"]]


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, answer_next: bool = False) -> str:
    """Apply the chat template; with answer_next the text ends where the assistant's answer begins.

    Raises DataError if the template refuses the conversation (some know no system message, or want turns to alternate).
    """
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next))
    except TemplateError as error:
        turns = ", ".join(f"{message['role']}: {message['content'][:40]!r}" for message in messages[:3])
        raise DataError(
            f"the model's chat template does not accept a conversation ({error}). It begins with {turns}. Change the data, or give another template with --chat_template."
        ) from error


def stop_tokens(tokenizer: PreTrainedTokenizerBase, declared: int | list[int] | None) -> list[int] | None:
    """Tokens that end an answer: those the model declares, and the mark that its chat template puts after an answer.

    A base model that was given a template learns to write the template's mark, but declares its own end of text only.
    """
    found = set(declared if isinstance(declared, list) else [declared]) | {tokenizer.eos_token_id}
    if tokenizer.chat_template is not None:
        after = render(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": "ANSWER"}]).rpartition("ANSWER")[2].strip()
        ids = tokenizer(after, add_special_tokens=False)["input_ids"]
        found |= set(ids) if len(ids) == 1 else set()
    return sorted(token for token in found if token is not None) or None


def assistant_spans(tokenizer: PreTrainedTokenizerBase, messages: list[Message], first: int = 0) -> tuple[str, list[tuple[int, int]]]:
    """The whole text and the (start, end) characters of every assistant turn from message `first` on, its end-of-turn mark included.

    Templates that rewrite earlier turns (some drop former reasoning) give a span for the last answer only: that is the
    text the model would see when it is used.
    """
    text = render(tokenizer, messages)
    spans = []
    for index, message in enumerate(messages):
        if index >= first and message["role"] == "assistant":
            before, after = render(tokenizer, messages[:index], answer_next=True), render(tokenizer, messages[: index + 1])
            if text.startswith(before) and text.startswith(after.rstrip()):
                spans.append((len(before), len(after.rstrip())))
    return text, spans


def examples_of(tokenizer: PreTrainedTokenizerBase, records: list[dict[str, Any]], max_length: int) -> Iterator[Example]:
    """Token ids and labels of a batch of records; plain text longer than max_length becomes several examples, an answer that was not liked none."""
    for record, example in encoded(tokenizer, records):
        yield from pieces_of(record, example, max_length)


def encoded(tokenizer: PreTrainedTokenizerBase, records: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Example]]:
    """Each record, conversations first, with all its tokens and labels; an answer that was not liked is left out."""
    talks = [(record, conversation) for record in records if (conversation := conversation_of(record)) and record.get("liked") is not False]
    for (record, _), example in zip(talks, chat_examples(tokenizer, [conversation for _, conversation in talks]), strict=True):
        yield record, example
    texts = [record for record in records if record["type"] == "text"]
    for record, ids in zip(texts, tokenizer([record["text"] for record in texts], verbose=False)["input_ids"] if texts else (), strict=True):
        ended = [*ids, tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else ids
        yield record, (ended, [True] * len(ended))


def pieces_of(record: dict[str, Any], example: Example, max_length: int) -> Iterator[Example]:
    """Plain text in pieces, a conversation as it is."""
    ids, labelled = example
    if record["type"] != "text":
        yield ids, labelled
        return
    # a piece begins with the last token of the one before: its first token is seen, not learnt
    for start in range(0, max(1, len(ids) - 1), max_length - 1):
        yield ids[start : start + max_length], labelled[start : start + max_length]


def chat_examples(tokenizer: PreTrainedTokenizerBase, conversations: list[list[dict[str, str]]], first: int = 0) -> Iterator[Example]:
    """Labels on every token that begins inside an assistant turn, from message `first` on."""
    if not conversations:
        return
    rendered = [assistant_spans(tokenizer, conversation, first) for conversation in conversations]
    encoded = tokenizer([text for text, _ in rendered], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for (_, spans), ids, offsets in zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        yield ids, [any(first <= start < last for first, last in spans) for start, _ in offsets]
