"""Rows as records: which columns make which kind of record.

The names are those of TRL's data set types (https://huggingface.co/docs/trl/dataset_formats), besides Alpaca, ShareGPT,
questions with answers, and texts with labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llamaflow.records import Record, content_id
from llamaflow.sources import Source, words_of
from llamaflow.templates import columns_of, folded, parts_of
from llamaflow.textfiles import Unusable

Turn = dict[str, str]
Fields = dict[str, Any]

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "developer": "system"}
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
}
OPINIONS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
DETAILS = ("document_id", "subject_id", "license", "language", "created_at", "url")
OPTIONAL = ("split", "label", "liked", *DETAILS)


@dataclass(frozen=True)
class Shape:
    """A combination of columns: `needs` must be there, `takes` may be; `read` makes the fields of the record."""

    type: str
    needs: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Fields]
    takes: tuple[str, ...] = ()

    @property
    def columns(self) -> set[str]:
        return {*self.needs, *self.takes, *OPTIONAL} | ({"system"} if self.type != "text" else set())


def shape_of(columns: Iterable[str], record_type: str | None) -> Shape | None:
    """The first shape, the most telling ones first, whose columns are all there and that gives the wanted type of record."""
    present = set(columns)
    return next((shape for shape in SHAPES if present.issuperset(shape.needs) and record_type in (None, shape.type)), None)


def shape_for(columns: Iterable[str], source: Source) -> Shape | None:
    """The shape that a source's templates make, if the columns that they name are all there, or else the first one that fits."""
    if not source.templates:
        return shape_of(columns, source.type)
    needs = columns_of(*source.templates)
    return Shape("text" if source.text else "chat", needs, lambda row: _from_templates(row, source)) if set(columns).issuperset(needs) else None


def expected(source: Source) -> str:
    """The columns that are understood, for error messages."""
    if source.conversation:
        author = "author, from or role" if source.assistant else "role (or name the assistant in the samplesheet's column assistant, beside an author)"
        return f"{folded(source.conversation)}, {author}, and content, body or text"
    if source.assistant:
        return "mail, or a column conversation in the samplesheet that names the column by which messages belong together"
    if source.templates:
        return f"{' + '.join(columns_of(*source.templates))}, which its templates in the samplesheet name"
    return "one of: " + _shapes(source.type)


def _shapes(record_type: str | None) -> str:
    return "; ".join(" + ".join(shape.needs) for shape in SHAPES if record_type in (None, shape.type))


def to_record(row: Mapping[str, Any], shape: Shape, source: Source, location: str) -> Record:
    """Turn a row into a record. Raises Unusable with the reason if that cannot be done."""
    if source.labels:
        row = {**row, "label": _word(row, words_of(source.labels))}
    fields = shape.read(row)
    system = optional_text(row, "system") if shape.type != "text" else None
    if system:
        field = "messages" if shape.type == "chat" else "prompt"
        turns = fields[field]
        fields[field] = turns if turns and turns[0]["role"] == "system" else [{"role": "system", "content": system}, *turns]
    meta = {name: optional_text(row, name) for name in DETAILS}
    meta["language"], meta["license"] = meta["language"] or source.language, meta["license"] or source.license
    record = {
        "source": source.id,
        "type": shape.type,
        **fields,
        **_judged(row, shape),
        "split": _split(row) or source.split,
        "meta": {"location": location, **meta},
    }
    return {"id": content_id(record), **record}


def _judged(row: Mapping[str, Any], shape: Shape) -> Fields:
    """The class of a record and what people thought of its answer, which TRL's unpaired preferences write into the column label."""
    column = "label" if shape.needs == ("prompt", "completion") and "liked" not in row and str(row.get("label")).lower() in ("true", "false") else "liked"
    given = optional_text(row, column)
    if given and given.lower() not in OPINIONS:
        raise Unusable(f"column {column!r} is neither true nor false", repr(given))
    liked = OPINIONS[given.lower()] if given and shape.type == "chat" else None
    return {"label": None if column == "label" else optional_text(row, "label"), "liked": liked}


def _split(row: Mapping[str, Any]) -> str | None:
    name = optional_text(row, "split")
    if name and name.lower() not in SPLIT_NAMES:
        raise Unusable("unknown split", f"{name!r}; use train, validation or test")
    return SPLIT_NAMES[name.lower()] if name else None


def optional_text(row: Mapping[str, Any], column: str) -> str | None:
    """The text of an optional cell; None if it is empty."""
    value = row.get(column)
    if isinstance(value, dict | list):
        raise Unusable(f"column {column!r} is not plain text", type(value).__name__)
    if value is None or value != value:  # not equal to itself: NaN, an empty cell written by pandas
        return None
    return _sound(str(value).strip()) or None


def _text(row: Mapping[str, Any], column: str) -> str:
    """The text of a cell that must be there; it may be empty, which clean_records judges."""
    value = row.get(column)
    if value is None or value != value:
        raise Unusable(f"column {column!r} has no value")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unusable(f"column {column!r} is not plain text", f"it is a {type(value).__name__}")
    return _sound(str(value))


def _sound(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable("broken Unicode", f"half of a surrogate pair at character {error.start}") from error
    return text


def _word(row: Mapping[str, Any], words: Mapping[str, str]) -> str | None:
    """The word for the row's label; whole numbers are equal however they are written (1, 1.0)."""
    code = optional_text(row, "label")
    if code is None:
        return None
    word = words.get(folded(code)) or words.get(folded(code).removesuffix(".0"))
    if word is None:
        raise Unusable("unknown label", f"{code!r}; labels has {', '.join(words)}")
    return word


def _from_templates(row: Mapping[str, Any], source: Source) -> Fields:
    if source.text:
        return {"text": _filled(source.text, row)}
    system = [{"role": "system", "content": _filled(source.system, row)}] if source.system else []
    return {"messages": system + _exchange(_filled(source.prompt or "", row), _filled(source.completion or "", row))}


def _filled(template: str, row: Mapping[str, Any]) -> str:
    return "".join(plain + ("" if column is None else cell(row, column)) for plain, column in parts_of(template))


def cell(row: Mapping[str, Any], column: str) -> str:
    """The text of a cell that must not be empty; one that is not there may say why."""
    value = row.get(column)
    if isinstance(value, Unusable):
        raise value
    text = _text(row, column).strip()
    if not text:
        raise Unusable(f"column {column!r} has no value")
    return text


def _from_text(row: Mapping[str, Any]) -> Fields:
    return {"text": _text(row, "text")}


def _from_messages(row: Mapping[str, Any]) -> Fields:
    return {"messages": _turns(row, "messages")}


def _from_sharegpt(row: Mapping[str, Any]) -> Fields:
    return {"messages": _turns(row, "conversations")}


def _from_prompt_completion(row: Mapping[str, Any]) -> Fields:
    return {"messages": _turns(row, "prompt", "user") + _turns(row, "completion", "assistant")}


def _from_question(row: Mapping[str, Any]) -> Fields:
    return {"messages": _exchange(_text(row, "question"), _text(row, "answer"))}


def _from_label(row: Mapping[str, Any]) -> Fields:
    label = _text(row, "label").strip()
    if not label:
        raise Unusable("column 'label' has no value")
    return {"messages": _exchange(_text(row, "text"), label)}


def _from_alpaca(row: Mapping[str, Any]) -> Fields:
    given = optional_text(row, "input")
    question = _text(row, "instruction") + (f"\n\n{given}" if given else "")
    return {"messages": _history(row.get("history")) + _exchange(question, _text(row, "output"))}


def _history(value: Any) -> list[Turn]:
    """Earlier exchanges of an Alpaca row: [[question, answer], ...]."""
    pairs = (_parsed(value) if isinstance(value, str) else value) or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in pairs):
        raise Unusable("column 'history' is not a list of pairs", "expected [[question, answer], ...]")
    return [turn for question, answer in pairs for turn in _exchange(_sound(question), _sound(answer))]


def _exchange(question: str, answer: str) -> list[Turn]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _from_preference(row: Mapping[str, Any]) -> Fields:
    chosen, rejected = _turns(row, "chosen", "assistant"), _turns(row, "rejected", "assistant")
    if row.get("prompt") in (None, "", []):
        # the prompt is what both conversations have in common; each keeps its last turn
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        if not shared:
            raise Unusable("preference without a prompt", "add a column prompt, or write chosen and rejected as whole conversations")
        return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}
    prompt = _turns(row, "prompt", "user")
    return {"prompt": prompt, "chosen": _without(prompt, chosen), "rejected": _without(prompt, rejected)}


def _without(prompt: list[Turn], turns: list[Turn]) -> list[Turn]:
    """Some data sets repeat the prompt in the answers."""
    return turns[len(prompt) :] if turns[: len(prompt)] == prompt else turns


def _turns(row: Mapping[str, Any], column: str, role: str | None = None) -> list[Turn]:
    """Messages of a column: a list, the same as JSON text, or (where `role` is given) plain text said by that role."""
    value = row.get(column)
    if isinstance(value, str):
        parsed = _parsed(value)
        is_list = isinstance(parsed, list) and bool(parsed) and all(isinstance(turn, dict) for turn in parsed)
        if role and not is_list:
            return [{"role": role, "content": _text(row, column)}]
        value = parsed if is_list else value
    if value is None:
        raise Unusable(f"column {column!r} has no value")
    if not isinstance(value, list):
        raise Unusable(f"column {column!r} is not a list of messages", 'expected [{"role": ..., "content": ...}, ...]')
    return [_turn(turn, column) for turn in value]


def _parsed(text: str) -> Any:
    """JSON in a cell, or None; only what begins like a list is tried."""
    try:
        return json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return None


def _turn(turn: Any, column: str) -> Turn:
    """One message, in OpenAI's form {role, content} or ShareGPT's {from, value}; content may be a list of text parts."""
    if not isinstance(turn, dict):
        raise Unusable(f"column {column!r} is not a list of messages", 'expected [{"role": ..., "content": ...}, ...]')
    role, content = (turn.get(new) if turn.get(new) is not None else turn.get(old) for new, old in (("role", "from"), ("content", "value")))
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise Unusable("message without role or text", f"in column {column!r}; only text is understood, no images or tool calls")
    role = role.strip().lower()
    return {"role": _sound(ROLES.get(role, role)), "content": _sound(content)}


# a row may fit several: the first one counts
SHAPES = (
    Shape("preference", ("chosen", "rejected"), _from_preference, ("prompt",)),
    Shape("chat", ("messages",), _from_messages),
    Shape("chat", ("conversations",), _from_sharegpt),
    Shape("chat", ("instruction", "output"), _from_alpaca, ("input", "history")),
    Shape("chat", ("prompt", "completion"), _from_prompt_completion),
    Shape("chat", ("question", "answer"), _from_question),
    Shape("chat", ("text", "label"), _from_label),
    Shape("text", ("text",), _from_text),
)
