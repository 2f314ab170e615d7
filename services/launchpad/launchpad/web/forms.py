"""A launch form from a pipeline's nextflow_schema.json, and parameters from what was typed into it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData

Object = dict[str, Any]
TABLES = {"text/csv", "text/tab-separated-values"}  # what a dataset can be
WORDS = re.compile(r"several separated by commas.*Allowed: (\w+(?:, \w+)*)\.$", re.DOTALL)
FAULT = re.compile(r"(?:--)?(\w+)[\w.]*(?::| is missing\.)\s*")
MISSING = re.compile(r"(?<=is missing\.) ")  # between what one message says of several
INTEGER = re.compile(r"[-+]?\d{1,18}")
GIVEN = {"outdir"}  # the launchpad has a place of its own for a run's results
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


@dataclass(frozen=True)
class Field:
    """A parameter; spec is what the schema says of it."""

    name: str
    spec: Object
    required: bool

    @property
    def kind(self) -> str:
        """How it is asked for: switch, choice (one of options), words (several of options), data (a table), number or text."""
        if "boolean" in self.types:
            return "switch"
        if "enum" in self.spec:
            return "choice"
        if self.options:
            return "words"
        if self.spec.get("mimetype") in TABLES:
            return "data"
        return "number" if self.is_number else "text"

    @property
    def types(self) -> list[str]:
        given = self.spec.get("type", "string")
        return [given] if isinstance(given, str) else list(given)

    @property
    def is_number(self) -> bool:
        return bool({"integer", "number"} & set(self.types)) and "string" not in self.types

    @property
    def default(self) -> Any:
        return self.spec.get("default", False if "boolean" in self.types else None)

    @property
    def options(self) -> list[str]:
        if "enum" in self.spec:
            return [text_of(option) for option in self.spec["enum"]]
        found = WORDS.search(self.spec.get("help_text", ""))
        return found[1].split(", ") if found else []

    @property
    def label(self) -> str:
        return self.name.replace("_", " ").capitalize()

    @property
    def hints(self) -> list[str]:
        """What else is to be known: the schema's help, and the bounds."""
        bounds = ", ".join(f"{words} {self.spec[name]}" for name, words in BOUNDS.items() if name in self.spec)
        own = ["Left empty: a directory of the run's own."] if self.name in GIVEN else []
        return [
            *own,
            *([self.spec["help_text"]] if self.kind != "words" and "help_text" in self.spec else []),
            *([f"{bounds.capitalize()}."] if bounds else []),
        ]

    def value(self, text: str) -> Any:
        """What was typed, in the type that the schema asks for; as text if it is none of that type, which the launch refuses."""
        if self.kind == "switch":
            return text == "true"
        if self.kind == "choice":
            return next((option for option in self.spec["enum"] if text_of(option) == text), text)
        return self._number(text) if self.is_number else text

    def _number(self, text: str) -> float | str:
        if INTEGER.fullmatch(text):
            return int(text)
        try:
            number = float(text)
        except ValueError:
            return text
        return number if "number" in self.types and math.isfinite(number) else text


@dataclass(frozen=True)
class Group:
    name: str
    title: str
    description: str
    fields: Sequence[Field]


@dataclass(frozen=True)
class Entry:
    """A field with what is typed into it, and what is wrong with that."""

    field: Field
    text: str
    faults: Sequence[str]

    @property
    def kind(self) -> str:
        """Words that are none of the options can only be shown as text."""
        kind = self.field.kind
        return "text" if kind == "words" and not set(self.chosen) <= set(self.field.options) else kind

    @property
    def chosen(self) -> list[str]:
        return [word.strip() for word in self.text.split(",")] if self.text else []

    @property
    def is_changed(self) -> bool:
        return bool(self.text) and self.field.value(self.text) != self.field.default


@dataclass(frozen=True)
class Section:
    """A group with its entries; rare ones are those that the schema hides."""

    group: Group
    entries: Sequence[Entry]

    @property
    def common(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.field.spec.get("hidden")]

    @property
    def rare(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.field.spec.get("hidden")]

    @property
    def faults(self) -> int:
        return sum(bool(entry.faults) for entry in self.entries)

    @property
    def changed(self) -> int:
        return sum(entry.is_changed for entry in self.entries)

    @property
    def is_open(self) -> bool:
        return bool(self.faults or self.changed or any(entry.field.required for entry in self.entries))


def groups_of(schema: Object) -> list[Group]:
    groups: Object = schema.get("$defs") or schema.get("definitions") or {}
    parts = [*groups.items(), ("more", schema)]
    return [_group(name, part) for name, part in parts if part.get("properties")]


def _group(name: str, part: Object) -> Group:
    title, required = part.get("title", name), set(part.get("required", [])) - GIVEN
    description = part.get("description", "")
    fields = [Field(key, spec, key in required) for key, spec in part["properties"].items()]
    return Group(name, title, "" if description.rstrip(".") == title else description, fields)


def fields_of(groups: Iterable[Group]) -> list[Field]:
    return [field for group in groups for field in group.fields]


def sections_of(groups: Iterable[Group], typed: Mapping[str, str], faults: Mapping[str, Sequence[str]]) -> list[Section]:
    return [
        Section(group, [Entry(field, typed.get(field.name, text_of(field.default)), faults.get(field.name, ())) for field in group.fields]) for group in groups
    ]


def typed_into(fields: Iterable[Field], form: FormData) -> dict[str, str]:
    """What each field holds; an empty one holds its default."""
    return {field.name: _text(field, form) or text_of(field.default) for field in fields}


def _text(field: Field, form: FormData) -> str:
    texts = [text.strip() for text in form.getlist(field.name) if isinstance(text, str)]
    if field.kind == "switch":  # a hidden field says false before the box that says true
        return texts[-1] if texts else ""
    return ",".join(text for text in texts if text)


def params_of(fields: Iterable[Field], typed: Mapping[str, str]) -> Object:
    """The parameters that differ from their defaults, so that what a profile sets stays as it is."""
    values = {field.name: (field, field.value(text)) for field in fields if (text := typed.get(field.name, ""))}
    return {name: value for name, (field, value) in values.items() if value != field.default}


def text_of(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def faults_by_field(errors: Iterable[str], fields: Iterable[Field]) -> tuple[dict[str, list[str]], list[str]]:
    """The messages of a refused launch: those of a field without its name, and the others."""
    known, found, others = {field.name for field in fields}, dict[str, list[str]](), []
    for line in (part for error in errors for part in MISSING.split(error)):
        match = FAULT.match(line)
        if match and match[1] in known:
            found.setdefault(match[1], []).append(line[match.end() :] or "This is needed.")
        else:
            others.append(line)
    return found, others
