"""The n8n workflows as files: whole, without secrets, and made for the API that there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import n8n_form
from launchpad.app import create_app
from launchpad.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "n8n/workflows").glob("*.json"))
Node = dict[str, Any]
# type -> versions that run in the n8n of n8n/package.json
VERSIONS = {
    "code": (2,),
    "convertToFile": (1.1,),
    "emailSend": (2.1,),
    "errorTrigger": (1,),
    "executeWorkflow": (1.2,),
    "executeWorkflowTrigger": (1.1,),
    "extractFromFile": (1,),
    "form": (1,),
    "formTrigger": (2.2,),
    "httpRequest": (4.2,),
    "if": (2.2,),
    "manualTrigger": (1,),
    "merge": (3,),
    "postgres": (2.6,),
    "respondToWebhook": (1.1,),
    "s3": (1,),
    "scheduleTrigger": (1.2,),
    "set": (3.4,),
    "slack": (2.3,),
    "stickyNote": (1,),
    "stopAndError": (1,),
    "switch": (3.2,),
    "wait": (1.1,),
    "webhook": (2,),
}
API = "={{ $('Configuration').first().json.api }}"
EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def nodes() -> Iterator[tuple[str, Node]]:
    for file in FILES:
        for node in read(file)["nodes"]:
            yield f"{file.stem}: {node['name']}", node


def texts(value: Any) -> Iterator[str]:
    """Every string in a node's parameters."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = create_app(Settings(data=tmp_path_factory.mktemp("launchpad"))).openapi()["paths"]
    return found


def test_ids_are_the_names_of_the_files() -> None:
    assert FILES
    for file in FILES:
        workflow = read(file)
        assert workflow["id"] == workflow["name"] == file.stem
        assert workflow["active"] is False
    ids = [node["id"] for _, node in nodes()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_connections_join_nodes_that_are_there(file: Path) -> None:
    workflow = read(file)
    names = [node["name"] for node in workflow["nodes"]]
    assert len(names) == len(set(names))
    targets = {link["node"] for outputs in workflow["connections"].values() for output in outputs["main"] for link in output}
    assert set(workflow["connections"]) | targets <= set(names)
    starts = {node["name"] for node in workflow["nodes"] if node["type"].endswith(("Trigger", "webhook", "stickyNote"))}
    assert targets | starts == set(names), "a node that nothing leads to"


def test_node_types_are_known() -> None:
    for where, node in nodes():
        kind = node["type"].removeprefix("n8n-nodes-base.")
        assert node["typeVersion"] in VERSIONS.get(kind, ()), where


def test_no_secrets() -> None:
    for file in FILES:
        assert not re.search(r"lfp_|eyJ|xox[abp]-|AKIA|hooks\.slack\.com|Bearer \w", file.read_text(encoding="utf-8"))
    for where, node in nodes():
        for credential in node.get("credentials", {}).values():
            assert set(credential) == {"id", "name"}, where


def test_what_needs_a_credential_of_its_own_is_switched_off() -> None:
    for where, node in nodes():
        own = [credential["id"] for credential in node.get("credentials", {}).values() if credential["id"] != "seqera-platform"]
        assert bool(own) == bool(node.get("disabled")) or node["type"].endswith("scheduleTrigger"), where


def test_calls_of_the_api_meet_its_routes(routes: dict[str, Any]) -> None:
    calls = 0
    for where, node in nodes():
        parameters = node["parameters"]
        if not parameters.get("url", "").startswith(API):
            assert "seqera-platform" not in json.dumps(node), f"{where}: the Platform's token would go elsewhere"
            continue
        path = EXPRESSION.sub("{}", "/api" + parameters["url"].removeprefix(API))
        named = {re.sub(r"\{.*?\}", "{}", route): operations for route, operations in routes.items()}
        operation = named[path][parameters.get("method", "GET").lower()]
        asked = set(re.findall(r"[{,] (\w+): ", parameters["jsonQuery"]))
        assert asked <= {parameter["name"] for parameter in operation["parameters"]}, where
        assert "workspaceId" in asked, where
        calls += 1
    assert calls > 10


def test_settings_that_are_asked_for_are_there() -> None:
    settings = next(node for where, node in nodes() if where == "llamaflow-config: Settings")
    known = {field["name"] for field in settings["parameters"]["assignments"]["assignments"]}
    asked = set(re.findall(r"\$\('Configuration'\)\.first\(\)\.json\.(\w+)", "".join(file.read_text(encoding="utf-8") for file in FILES)))
    assert asked <= known


def test_nodes_that_are_asked_for_are_there() -> None:
    for file in FILES:
        workflow = read(file)
        asked = {name for node in workflow["nodes"] for text in texts(node["parameters"]) for name in re.findall(r"\$\('([^']+)'\)", text)}
        assert asked <= {node["name"] for node in workflow["nodes"]}, file.stem


def test_sub_workflows_are_called_with_what_they_take() -> None:
    takes = {
        file.stem: {value["name"] for value in node["parameters"]["workflowInputs"]["values"]}
        for file in FILES
        for node in read(file)["nodes"]
        if node["type"].endswith("executeWorkflowTrigger") and "workflowInputs" in node["parameters"]
    } | {"llamaflow-config": set()}
    for where, node in nodes():
        if node["type"].endswith(".executeWorkflow"):
            called = node["parameters"]["workflowId"]["value"]
            assert set(node["parameters"]["workflowInputs"]["value"]) == takes[called], where


def test_errors_go_to_the_error_workflow() -> None:
    for file in FILES:
        named = read(file)["settings"].get("errorWorkflow")
        # a message that cannot be sent must not call for another
        assert named == (None if file.stem in ("llamaflow-errors", "llamaflow-tell") else "llamaflow-errors"), file.stem


@pytest.mark.skipif(not shutil.which("node"), reason="Node checks the syntax")
def test_code_and_expressions_are_javascript() -> None:
    snippets = []
    for where, node in nodes():
        snippets += [(where, node["parameters"]["jsCode"])] if "jsCode" in node["parameters"] else []
        snippets += [(where, f"return ({found})") for text in texts(node["parameters"]) if text.startswith("=") for found in EXPRESSION.findall(text)]
    checker = """
        const Async = (async () => {}).constructor;
        const faults = [];
        for (const [where, code] of JSON.parse(require('fs').readFileSync(0))) try { new Async(code); } catch (e) { faults.push(`${where}: ${e.message}: ${code}`); }
        process.stdout.write(faults.join('\\n'));
    """
    done = subprocess.run(["node", "-e", checker], input=json.dumps(snippets), capture_output=True, text=True, check=True, timeout=60)
    assert len(snippets) > 50
    assert done.stdout == ""


def test_expressions_have_their_ends() -> None:
    for where, node in nodes():
        for text in texts({name: value for name, value in node["parameters"].items() if name != "jsCode"}):
            if "{{" in text:
                assert text.startswith("="), f"{where}: n8n evaluates only what begins with =: {text}"
                assert text.count("{{") == text.count("}}") == len(EXPRESSION.findall(text)), where


def test_form_follows_from_the_schema() -> None:
    schema = (ROOT / "nextflow_schema.json").read_text(encoding="utf-8")
    for name, make in (("llamaflow-launch", n8n_form.launch_workflow), ("llamaflow-collect", n8n_form.collect_workflow)):
        assert (n8n_form.WORKFLOWS / f"{name}.json").read_text(encoding="utf-8") == make(schema), "run `make generate`"


def test_form_shows_lists_words_and_numbers() -> None:
    fields = {
        field["fieldLabel"].split(":")[0]: field for field in n8n_form.form_fields(json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8")))
    }
    assert fields["input"]["requiredField"] is True
    assert fields["gate_min_gain (number)"]["placeholder"] == "0.0"
    assert fields["learning_rate"]["placeholder"] == "auto"
    assert {"option": "dora"} in fields["techniques"]["fieldOptions"]["values"]
    assert fields["techniques"]["multiselect"] is True
    assert [choice["option"] for choice in fields["scheduler"]["fieldOptions"]["values"]] == ["none", "halving"]
