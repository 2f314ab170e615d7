"""An imported configuration as files: the parameters, the samplesheet, the trials sheet; and the report on what is not in them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from llamaflow.importers.conversion import APPROXIMATED, NO_COUNTERPART, NOT_NEEDED, SAME, Conversion, one_line, shown
from llamaflow.params import GROUPS
from llamaflow.references import parse_reference
from llamaflow.sources import Source

COLUMNS = {"models": "model", "techniques": "technique"}  # of the trials sheet, where they differ from the parameters


def params_file(conversion: Conversion, title: str, report: Iterable[str]) -> str:
    """A YAML file of the parameters by group, each with the key that it comes from, and the report as comments."""
    lines = [f"# {one_line(title)}", "# Relative paths are taken from the directory where Nextflow is started."]
    for model in GROUPS.values():
        names = [name for name in model.model_fields if name in conversion.values]
        if names:
            lines += ["", f"# {(model.__doc__ or '').partition(chr(10))[0]}"]
            lines += [f"{name}: {scalar(conversion.values[name])}{_comment(name, conversion.origins[name])}" for name in names]
    return "\n".join([*lines, "", *(f"# {line}".rstrip() for line in report)]) + "\n"


def _comment(name: str, origin: str) -> str:
    return "" if origin == name else f"  # {origin}"


def scalar(value: Any) -> str:
    """A value as YAML after its name; where a text has several lines, the others are indented."""
    plain = [_short(item) for item in value] if isinstance(value, list | tuple) else _short(value)
    options: dict[str, Any] = {"default_flow_style": True, "width": math.inf}
    text = yaml.safe_dump(plain, allow_unicode=True, **options)
    if yaml.safe_load(text) != plain:  # PyYAML writes the control character U+0085 as it is, and reads it as an end of line
        text = yaml.safe_dump(plain, **options)
    return str(text).removesuffix("...\n").strip("\n")


def _short(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def samplesheet(conversion: Conversion) -> str:
    return _csv([name for name in Source.model_fields if any(name in source for source in conversion.sources)], conversion.sources)


def trials_sheet(rows: list[dict[str, Any]]) -> str:
    shortened = [{**row, **({"models": parse_reference(row["models"]).id} if "models" in row else {})} for row in rows]
    renamed = [{COLUMNS.get(name, name): _short(value) for name, value in row.items()} for row in shortened]
    return _csv(list(renamed[0]), renamed)


def _csv(columns: list[str], rows: Iterable[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def report_on(conversion: Conversion) -> list[str]:
    """What was approximated, what has no counterpart, and what needs none: one line a reason, with the keys that it holds for."""
    lines = []
    for kind in (APPROXIMATED, NO_COUNTERPART, SAME, NOT_NEEDED):
        keys_of: dict[str, list[str]] = {}
        for remark in conversion.remarks:
            if remark.kind == kind:
                keys_of.setdefault(remark.text, []).append(shown(remark.key, remark.value))
        lines += [f"{kind}:"] * bool(keys_of) + [f"  {', '.join(keys)}: {text}" for text, keys in keys_of.items()]
    return lines
