"""Templates that make texts of a row's columns, such as "{title}: {body}", in the syntax of Python's format with plain names only."""

from __future__ import annotations

from functools import lru_cache
from string import Formatter

Part = tuple[str, str | None]


@lru_cache(maxsize=4096)
def folded(name: object) -> str:
    """Column names are compared without case and outer white space."""
    return str(name).strip().lower()


@lru_cache(maxsize=256)
def parts_of(template: str) -> tuple[Part, ...]:
    r"""Pieces of plain text, each with the column that comes after it, or None; \n is a new line. Raises ValueError for any other syntax."""
    try:
        fields = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"it has a brace too many or too few ({error}). Columns are written {{question}}, a brace that is meant as such twice: {{{{"
        ) from error
    for _, name, form, conversion in fields:
        if name is not None and (not name.strip() or form or conversion or set(name) & set("[]{}")):
            raise ValueError(f"{name!r} is no column's name: between braces stands a name and nothing else, such as {{question}}")
    return tuple((plain.replace("\\n", "\n"), None if name is None else folded(name)) for plain, name, _, _ in fields)


def columns_of(*templates: str) -> tuple[str, ...]:
    """The columns that templates name, each once, in order."""
    return tuple(dict.fromkeys(name for template in templates for _, name in parts_of(template) if name is not None))
