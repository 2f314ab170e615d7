"""The launch form of n8n, made from nextflow_schema.json: fields of llamaflow-launch.json, and the link in llamaflow-collect.json that fills in one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORKFLOWS = Path(__file__).resolve().parent.parent / "n8n/workflows"
# what most runs set, in this order; everything else goes into the last field
SHOWN = (
    "input", "models", "stage", "techniques", "learning_rate", "num_train_epochs", "per_device_train_batch_size", "max_length", "lora_r",
    "scheduler", "max_hours", "metrics", "gate_metric", "gate_min_gain", "release_name",
)  # fmt: skip
REQUIRED = ("input", "models")
WORDS = re.compile(r"Allowed: (\w+(?:, \w+)+)\.$")  # a list of words, not a range of numbers
MORE = {"fieldLabel": 'more: Further parameters as a JSON object, such as {"seed": 7}; docs/parameters.md has them all', "fieldType": "textarea"}


def launch_workflow(schema: str) -> str:
    """The text of llamaflow-launch.json with the fields that follow from the text of nextflow_schema.json."""
    return changed("llamaflow-launch", "Form", lambda parameters: parameters["formFields"].update(values=form_fields(json.loads(schema))))


def collect_workflow(schema: str) -> str:
    """The text of llamaflow-collect.json with the label of the form's first field, `input`: by its label a link fills in a field."""
    label = form_fields(json.loads(schema))[0]["fieldLabel"]
    return changed("llamaflow-collect", "Input for a run", lambda parameters: parameters["assignments"]["assignments"][-1].update(value=label))


def changed(name: str, node: str, change: Callable[[dict[str, Any]], None]) -> str:
    """The text of a workflow with the parameters of one node changed."""
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    change(next(found["parameters"] for found in workflow["nodes"] if found["name"] == node))
    return json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"


def form_fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Raises KeyError if a parameter that is shown is no longer there."""
    properties = {name: prop for group in schema["$defs"].values() for name, prop in group["properties"].items()}
    return [form_field(name, properties[name]) for name in SHOWN] + [MORE]


def form_field(name: str, prop: dict[str, Any]) -> dict[str, Any]:
    """One field. By its label the workflow knows the parameter, and whether it is a number: n8n would take an empty number for 0."""
    words = WORDS.search(prop.get("help_text", ""))
    kind = " (number)" if prop["type"] in ("integer", "number") else ""
    field: dict[str, Any] = {"fieldLabel": f"{name}{kind}: {meaning(prop['description'], brief=bool(words))}"}
    if prop["type"] == "boolean" or "enum" in prop or words:
        options = prop.get("enum") or (words[1].split(", ") if words else ["true", "false"])
        field |= {"fieldType": "dropdown", "fieldOptions": {"values": [{"option": str(option)} for option in options]}}
        field |= {"multiselect": True} if words else {}
    if "default" in prop and "fieldType" in field:
        field["fieldLabel"] += f" (default: {prop['default']})"
    elif "default" in prop:
        field["placeholder"] = str(prop["default"])
    if name in REQUIRED:
        field["requiredField"] = True
    return field


def meaning(description: str, *, brief: bool) -> str:
    """The first sentence; brief without what it lists, where the words are there to be chosen."""
    sentence = description.partition(". ")[0].rstrip(".")
    return sentence.partition(":")[0] if brief else sentence
