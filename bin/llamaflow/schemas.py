"""JSON Schemas that users give (https://json-schema.org), of every draft that the package jsonschema knows."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from llamaflow.errors import UsageError


@functools.cache
def validator_of(text: str) -> Any:
    """The validator of a JSON Schema. Raises UsageError if it is none, or refers to what it does not hold: nothing is fetched."""
    try:
        schema = json.loads(text)
        if not isinstance(schema, bool) and not (isinstance(schema, dict) and isinstance(schema.get("$schema", ""), str)):
            raise UsageError('--answer_schema is no JSON Schema: that is an object, such as {"type": "object"}, whose $schema, if it has one, is a text')
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--answer_schema is not JSON: {error}") from error
    except SchemaError as error:
        raise UsageError(f"--answer_schema is no JSON Schema: at {error.json_path}, {error.message[:300]}") from error
    if dangling := sorted(set(_dangling(resource, Registry().resolver_with_root(resource)))):
        raise UsageError(f"--answer_schema refers to {', '.join(dangling)}, which it does not hold: nothing is fetched, so put it under $defs.")
    return kind(schema, registry=Registry())


def _dangling(resource: Any, resolver: Any) -> Iterator[str]:
    reference = resource.contents.get("$ref") if isinstance(resource.contents, dict) else None
    if isinstance(reference, str):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            yield reference
    for part in resource.subresources():
        yield from _dangling(part, resolver.in_subresource(part))
