"""Junk for every operation that the API describes: it is never the service that fails, and it answers only what it says it may."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import PIPELINE, Lab

Schema = dict[str, Any]
Question = tuple[dict[str, Any], dict[str, Any], Any]  # path parameters, query, body
words = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["..", "../x", "%2e%2e", "/etc", "'; drop table task --", "\x00", "-1", "1e9", "true"]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
CHANGES = {"GET": 0, "POST": 1, "PUT": 2, "DELETE": 3}  # what removes comes last


@pytest.fixture(scope="module")
def known(lab: Lab) -> dict[str, list[Any]]:
    """What is there, by the name that paths and bodies have for it."""
    ana = lab.client()
    dataset = ana.post("/api/datasets", json={"name": "rows"}).json()["dataset"]["id"]
    ana.post(f"/api/datasets/{dataset}/upload", files={"file": ("x.csv", b"a\n")})
    action = ana.post("/api/actions", json={"name": "act", "source": "tower", "launch": {"pipeline": str(PIPELINE)}}).json()["actionId"]
    reported = ana.post("/api/trace/create", json={"runName": "r", "sessionId": "s"}).json()["workflowId"]
    return {
        "workflowId": [lab.launched(), lab.ended(), reported], "datasetId": [dataset], "actionId": [action], "pipelineId": [1], "labelId": [1], "taskId": [1],
        "version": [1], "fileName": ["x.csv", "nextflow.log"], "computeEnvId": ["local"], "userId": [lab.user_id("ana")], "pipeline": [str(PIPELINE)],
        "paramsText": ["word: hello", "{}", "a: &x [*x]", "[", "a: .inf", '"\\ud800"'], "runName": ["a", "a/b"], "source": ["tower"], "status": ["RUNNING"],
        "tasks": [[{"taskId": 1, "status": "RUNNING", "hash": "ab/cdef01"}]], "sortBy": ["name"], "next": ["0"], "max": [1],
    }  # fmt: skip


def values(name: str, schema: Schema, spec: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    """What fits a schema more or less, what is known to be there, and junk."""
    if "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    options: list[st.SearchStrategy[Any]] = [junk]
    if name in known:
        options += [st.sampled_from(known[name])] * 3
    if "properties" in schema:
        parts = {part: values(part, inner, spec, known) for part, inner in schema["properties"].items()}
        required = {part: value for part, value in parts.items() if part in schema.get("required", [])}
        options += [st.fixed_dictionaries(required, optional={part: value for part, value in parts.items() if part not in required})] * 5
    options += [values(name, inner, spec, known) for inner in schema.get("anyOf", [])]
    plain = {"integer": st.integers(), "string": words, "boolean": st.booleans(), "object": st.dictionaries(words, junk, max_size=3)}
    if schema.get("type") in plain:
        options += [plain[schema["type"]]] * 2
    return st.one_of(options)


def strategy(operation: Schema, spec: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Question]:
    given_in = {
        place: {one["name"]: values(one["name"], one["schema"], spec, known) for one in operation.get("parameters", []) if one["in"] == place}
        for place in ("path", "query")
    }
    content = operation.get("requestBody", {}).get("content", {})
    body = values("", content["application/json"]["schema"], spec, known) if "application/json" in content else st.none()
    return st.tuples(st.fixed_dictionaries(given_in["path"]), st.fixed_dictionaries({}, optional=given_in["query"]), body)


@pytest.mark.parametrize("scope", ["launch", "admin"])
def test_junk_is_told_what_it_is(lab: Lab, known: dict[str, list[Any]], scope: str) -> None:
    spec, client = lab.app.openapi(), lab.client("ana", scope)
    for method, path, operation in sorted(lab.operations(), key=lambda one: (CHANGES[one[0]], one[1])):
        if path == "/api/tokens/{tokenId}" and method == "DELETE":
            continue  # it would be our own

        ask(client, method, path, operation, strategy(operation, spec, known))


def ask(client: TestClient, method: str, path: str, operation: Schema, questions: st.SearchStrategy[Question]) -> None:
    @settings(max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(question=questions)
    def answers(question: Question) -> None:
        check(client, method, path, operation, question)

    answers()


def check(client: TestClient, method: str, path: str, operation: Schema, question: Question) -> None:
    in_path, query, body = question
    for name, value in in_path.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe="") or "x")
    content = None if body is None else json.dumps(body).encode()
    answer = client.request(
        method, path, params={name: str(value) for name, value in query.items()}, content=content, headers={"Content-Type": "application/json"}
    )
    documented = {int(status) for status in operation["responses"]} | {404, 405}  # a name such as .. makes it another path
    assert answer.status_code in documented, (method, path, query, body, answer.status_code, answer.text)
    if answer.status_code in {401, 403, 204}:
        assert answer.content == b""
    elif answer.status_code >= 400:
        assert answer.json()["message"]
