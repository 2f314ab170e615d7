#!/usr/bin/env python3
"""Write what follows from bin/llamaflow/params.py and sources.py: nextflow_schema.json, conf/params.config, docs/parameters.md, assets/schema_input.json,
n8n's launch form.

scripts/generate.py          write the files
scripts/generate.py --check  fail if one of them is not up to date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bin"))

from llamaflow.groups import Group  # noqa: E402
from llamaflow.params import GROUP_OF, GROUPS  # noqa: E402
from llamaflow.sources import Source  # noqa: E402
from n8n_form import collect_workflow, launch_workflow  # noqa: E402

DRAFT = "https://json-schema.org/draft/2020-12/schema"
ADDRESS = "https://raw.githubusercontent.com/llamaflow/llamaflow/master/"
ICONS = {
    "input_output": "fas fa-terminal",
    "collection": "fas fa-inbox",
    "cleaning": "fas fa-broom",
    "personal_data": "fas fa-user-shield",
    "generation": "fas fa-comments",
    "deduplication": "fas fa-clone",
    "splitting": "fas fa-cut",
    "models": "fas fa-brain",
    "scratch": "fas fa-seedling",
    "grid": "fas fa-th",
    "planning": "fas fa-list-ol",
    "training": "fas fa-dumbbell",
    "compute": "fas fa-microchip",
    "cost": "fas fa-coins",
    "evaluation": "fas fa-balance-scale",
    "answers": "fas fa-check-double",
    "gate": "fas fa-trophy",
    "export": "fas fa-box",
    "generic": "fas fa-cogs",
}
KEPT = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "pattern")


def is_list(prop: dict[str, Any]) -> bool:
    return prop.get("type") == "array"


def single_type(prop: dict[str, Any]) -> dict[str, Any]:
    """The one type of an optional property."""
    kinds = [kind for kind in prop.get("anyOf", ()) if kind.get("type") != "null"]
    return {**prop, **kinds[0]} if kinds else prop


def default_of(prop: dict[str, Any]) -> Any:
    """The default as Nextflow holds it: lists are comma-separated strings."""
    value = prop.get("default")
    return ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value) if isinstance(value, list | tuple) else value


def launch_property(key: str, prop: dict[str, Any]) -> dict[str, Any]:
    """One parameter as nf-core's schema describes it."""
    prop = single_type(prop)
    made: dict[str, Any] = {"type": "string" if is_list(prop) else prop["type"], "description": prop["description"]}
    made |= {name: prop[name] for name in ("format", "mimetype", "hidden", *KEPT) if name in prop}
    if is_list(prop):
        grid = "; each adds to the grid" if key == "models" or GROUP_OF[key] == "grid" else ""
        made["help_text"] = f"One value, or several separated by commas{grid}. {allowed(prop['items'])}".strip()
    if default_of(prop) is not None:
        made["default"] = default_of(prop)
    return made


def allowed(prop: dict[str, Any]) -> str:
    """What is allowed, as a sentence; empty if that is everything."""
    found = values_of(prop)
    return f"Allowed: {found}." if found else ""


def values_of(prop: dict[str, Any]) -> str:
    if "enum" in prop:
        return ", ".join(map(str, prop["enum"]))
    if "const" in prop:
        return str(prop["const"])
    if "anyOf" in prop:
        return ", or ".join(filter(None, map(values_of, prop["anyOf"])))
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below", "multipleOf": "a multiple of"}
    bounds = [f"{word} {shown(prop[name])}" for name, word in words.items() if name in prop]
    return ", ".join([prop["type"], *bounds]) if bounds else ""


def shown(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


def group_schema(model: type[Group]) -> tuple[str, str, dict[str, Any], list[str]]:
    """Title, description, properties and required names of a group."""
    schema = model.model_json_schema()
    title, _, more = (model.__doc__ or "").partition("\n")
    return title.strip(), more.strip(), schema["properties"], schema.get("required", [])


def launch_schema() -> str:
    groups = {}
    for name, model in GROUPS.items():
        title, more, properties, required = group_schema(model)
        groups[f"{name}_options"] = {
            "title": title,
            "type": "object",
            "fa_icon": ICONS[name],
            "description": more or f"{title}.",
            "properties": {key: launch_property(key, prop) for key, prop in properties.items()},
        }
        if required:
            groups[f"{name}_options"]["required"] = required
    schema = {
        "$schema": DRAFT,
        "$id": f"{ADDRESS}nextflow_schema.json",
        "title": "llamaflow/llamaflow pipeline parameters",
        "description": "Fine-tunes large language models end to end, automatically and at any scale",
        "type": "object",
        "$defs": groups,
        "allOf": [{"$ref": f"#/$defs/{name}"} for name in groups],
    }
    return json.dumps(schema, indent=4, ensure_ascii=False) + "\n"


def samplesheet_schema() -> str:
    """The samplesheet as nf-schema describes one: an array of rows."""
    made = Source.model_json_schema()
    columns = {
        name: {key: value for key, value in single_type(prop).items() if key not in ("anyOf", "default", "title")} for name, prop in made["properties"].items()
    }
    schema = {
        "$schema": DRAFT,
        "$id": f"{ADDRESS}assets/schema_input.json",
        "title": "llamaflow/llamaflow samplesheet",
        "description": made["description"],
        "type": "array",
        "items": {"type": "object", "properties": columns, "required": made["required"], "additionalProperties": False},
    }
    return json.dumps(schema, indent=4, ensure_ascii=False) + "\n"


def config() -> str:
    lines = ["// Generated from bin/llamaflow/params.py by `make generate`: change it there.", "", "params {"]
    for model in GROUPS.values():
        title, _, properties, _ = group_schema(model)
        width = max(map(len, properties))
        lines += [f"    // {title}", *(f"    {name:<{width}} = {groovy(default_of(single_type(prop)))}" for name, prop in properties.items()), ""]
    return "\n".join(lines[:-1]) + "\n}\n"


def groovy(value: Any) -> str:
    return "null" if value is None else json.dumps(value).replace('"', "'")


def documentation() -> str:
    lines = ["# Parameters", "", "Generated from `bin/llamaflow/params.py` by `make generate`: change it there.", ""]
    lines += ["On the command line (`--learning_rate 1e-4,2e-4`), or in a YAML file given with `-params-file`, where lists may be written as YAML lists.", ""]
    lines += ["What is marked (several) takes one value or several.", ""]
    for model in GROUPS.values():
        title, more, properties, required = group_schema(model)
        lines += [f"## {title}", "", *([more, ""] if more else []), "| parameter | meaning | default |", "| --- | --- | --- |"]
        for name, prop in properties.items():
            made, single = launch_property(name, prop), single_type(prop)
            value = json.dumps(made["default"]).strip('"') if "default" in made else None
            default = "required" if name in required else f"`{value}`" if value else ""
            note = allowed(single["items"] if is_list(single) else single)
            lines.append(f"| `{name}`{' (several)' if is_list(prop) else ''} | {made['description']} {note} | {default} |".replace("  ", " "))
        lines.append("")
    return "\n".join(lines)


FILES: dict[str, Callable[[], str]] = {
    "nextflow_schema.json": launch_schema,
    "assets/schema_input.json": samplesheet_schema,
    "conf/params.config": config,
    "docs/parameters.md": documentation,
    "n8n/workflows/llamaflow-launch.json": lambda: launch_workflow(launch_schema()),
    "n8n/workflows/llamaflow-collect.json": lambda: collect_workflow(launch_schema()),
}


def main() -> int:
    stale = [name for name, make in FILES.items() if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != make()]
    if "--check" in sys.argv:
        print(*(f"{name} is not up to date: run `make generate`" for name in stale), sep="\n", end="\n" if stale else "")
        return bool(stale)
    for name in stale:
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(FILES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
