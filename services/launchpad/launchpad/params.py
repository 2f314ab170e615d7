"""Parameters of a launch: read from text, checked against the pipeline's schema, and kept to what the caller may read and write."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from launchpad.errors import bad_request

if TYPE_CHECKING:  # it takes a tenth of a second, which the service's start need not wait for
    from jsonschema import ValidationError

Object = dict[str, Any]
REMOTE = re.compile(r"(https?|ftp|s3|gs|az|hf|postgresql|mysql)://")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:+/")  # of any other kind of address: it may lead to local files, as file: does, whatever its case
LONGEST_YAML = 100_000  # characters: three quarters of a second; JSON is read at once
MOST_FAULTS, LONGEST_NAME, LONGEST_PATH = 50, 100, 1000  # what an answer names, and how much of it


def parse(text: str | None) -> Object:
    """JSON or YAML to a mapping. Raises ApiError 400."""
    if not text or not text.strip():
        return {}
    try:
        found = _loaded(text)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:  # the last three from tags, such as !!int x
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}, column {place.column + 1}" if place else ""
        raise bad_request(f"paramsText is neither JSON nor YAML: {getattr(error, 'problem', None) or 'it cannot be read'}{where}.") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise bad_request(f'paramsText must be a mapping of parameters, such as {{"input": "data.csv"}}; it is a {_kind(found)}.')
    try:
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise bad_request("paramsText holds what a parameter cannot be: a number that is infinite or none, a date, or characters that are none.") from None
    return found


def _loaded(text: str) -> Any:
    """JSON may be indented with tabs, which YAML does not allow."""
    try:
        return json.loads(text)
    except ValueError:
        if len(text) > LONGEST_YAML:
            raise bad_request(f"paramsText is longer than {LONGEST_YAML:,} characters, and not JSON: more than that is read as JSON only.") from None
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers, 1e-3 among them, and no dates: what JSON has."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not allowed", None)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789"))


def _kind(value: Any) -> str:
    return {list: "list", str: "text", int: "number", float: "number", bool: "boolean"}.get(type(value), type(value).__name__)


def read_schema(directory: Path, name: str | None = None) -> str | None:
    """The text of a local pipeline's nextflow_schema.json; None if it has none. Raises ApiError 400 if it is no schema."""
    import jsonschema

    file = directory / (name or "nextflow_schema.json")
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8")
        schema = json.loads(text)
        if not isinstance(schema, dict):
            raise ValueError("it must be an object")
        jsonschema.Draft202012Validator.check_schema(schema)
    except (ValueError, RecursionError, jsonschema.SchemaError) as error:
        raise bad_request(f"{file.name} of this pipeline is no JSON schema: {getattr(error, 'message', error)}") from None
    return text


def properties(schema: Object) -> Iterator[tuple[str, Object]]:
    for group in [*(schema.get("$defs") or schema.get("definitions") or {}).values(), schema]:
        yield from group.get("properties", {}).items()


def refuse_invalid(params: Object, schema: Object, *, complete: bool = True) -> None:
    """Raise ApiError 400 with every parameter that the schema does not allow, does not know, or, if they are to be complete, lacks.

    Of very many the first ones: to find the nearest name for each takes long.
    """
    import jsonschema

    known = dict(properties(schema))
    unknown = islice((name[:LONGEST_NAME] for name in params if known and name not in known), MOST_FAULTS)
    faults = [f"--{name}: there is no such parameter{_nearest(name, known)}" for name in unknown]
    errors = jsonschema.Draft202012Validator(schema).iter_errors({name: value for name, value in params.items() if value is not None})
    faults += [_said(error) for error in islice(errors, MOST_FAULTS) if complete or error.validator != "required"]
    if faults:
        unique = list(dict.fromkeys(faults))
        raise bad_request("The parameters do not fit the pipeline: " + " ".join(unique), unique)


def _said(error: ValidationError) -> str:
    name = ".".join(str(part) for part in error.absolute_path)
    value = json.dumps(error.instance, ensure_ascii=False)[:200]
    match error.validator:
        case "required":
            missing = [word for word in error.validator_value if word not in error.instance]
            return " ".join(f"--{word} is missing." for word in missing)
        case "type":
            expected = error.validator_value if isinstance(error.validator_value, str) else " or ".join(error.validator_value)
            return f"--{name}: {value} is not of type {expected}."
        case "enum":
            return f"--{name}: {value} is not one of {', '.join(map(str, error.validator_value))}."
        case "minimum" | "exclusiveMinimum":
            return f"--{name}: {value} is too small; it must be {'at least' if error.validator == 'minimum' else 'above'} {error.validator_value}."
        case "maximum" | "exclusiveMaximum":
            return f"--{name}: {value} is too large; it must be {'at most' if error.validator == 'maximum' else 'below'} {error.validator_value}."
        case "pattern":
            return f"--{name}: {value} does not look like {error.validator_value}."
        case _:
            return f"--{name}: {error.message[:300]}."


def _nearest(name: str, known: Object) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean --{near[0]}?" if near else "."


def refuse_foreign_paths(params: Object, allowed: Sequence[Path]) -> None:
    """Raise ApiError 400 if a value names a local file outside the allowed directories: a run reads and writes with the service's own rights."""
    foreign = ((name, word) for name, value in params.items() for word in local_paths(value) if not within(word, allowed))
    faults = [f"{name}: {word[:LONGEST_PATH]} is outside the directories that you may use." for name, word in islice(foreign, MOST_FAULTS)]
    if faults:
        places = ", ".join(map(str, allowed))
        raise bad_request(f"{' '.join(faults)} Upload a dataset, or give an http(s) or s3 address; local files are read and written under {places}.", faults)


def local_paths(value: Any) -> Iterator[str]:
    """What in a value could be read as a path that does not stay below the launch directory."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from local_paths(part)
    elif isinstance(value, str):
        for word in (word.strip() for word in value.split(",")):
            is_local = word.startswith(("/", "~", "$")) or word.lower().startswith("file:") or SCHEME.match(word) or ".." in word.split("/")
            if is_local and not REMOTE.match(word):
                yield word


def within(path: str, allowed: Sequence[Path]) -> bool:
    local = path.removeprefix("file://").removeprefix("file:")
    if not local.startswith("/"):
        return False
    found = Path(local).resolve()
    return any(found.is_relative_to(root) for root in allowed)
