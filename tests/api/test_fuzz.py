"""What schemathesis makes of the API's own description, fitting and not: the service never fails, and answers only what it says it may."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import PIPELINE, Lab, bearer
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.python.asgi import ASGIClient, get_client
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

CHECKS: list[Any] = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CHANGES = {"get": 0, "post": 1, "put": 2, "delete": 3}  # what removes comes last
WITHOUT_INPUT = "GET /api/service-info"  # nothing can be wrong with it


@pytest.fixture(scope="module")
def known(lab: Lab) -> dict[str, list[Any]]:
    """What is there, by the name that paths have for it."""
    ana = lab.client()
    dataset = ana.post("/api/datasets", json={"name": "rows"}).json()["dataset"]["id"]
    ana.post(f"/api/datasets/{dataset}/upload", files={"file": ("x.csv", b"a\n")})
    action = ana.post("/api/actions", json={"name": "act", "source": "tower", "launch": {"pipeline": str(PIPELINE)}}).json()["actionId"]
    reported = ana.post("/api/trace/create", json={"runName": "r", "sessionId": "s"}).json()["workflowId"]
    return {
        "workflowId": [lab.launched(), lab.ended(), reported], "datasetId": [dataset], "actionId": [action], "pipelineId": [1], "labelId": [1], "taskId": [1],
        "version": [1], "fileName": ["x.csv"], "computeEnvId": ["local"], "userId": [lab.user_id("ana")],
    }  # fmt: skip


@pytest.mark.parametrize("scope", ["launch", "admin"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_as_described(lab: Lab, known: dict[str, list[Any]], scope: str, mode: GenerationMode) -> None:
    api = schemathesis.openapi.from_dict(lab.app.openapi())
    client = get_client(lab.app)  # unlike schemathesis's own it does not start the runner
    client.headers.update(bearer(lab.secrets["ana", scope]))
    operations = [found.ok() for found in api.get_all_operations()]
    for operation in sorted(operations, key=lambda one: (CHANGES[one.method], one.path)):
        own_token = operation.label == "DELETE /api/tokens/{tokenId}"
        if not own_token and not (mode == GenerationMode.NEGATIVE and operation.label == WITHOUT_INPUT):
            ask(operation, mode, known, client)


def ask(operation: APIOperation, mode: GenerationMode, known: dict[str, list[Any]], client: ASGIClient) -> None:
    @settings(max_examples=6, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def answers(case: Case, data: st.DataObject) -> None:
        for name in case.path_parameters or {}:
            if name in known and data.draw(st.booleans()):
                case.path_parameters[name] = data.draw(st.sampled_from(known[name]))
        case.call_and_validate(session=client, checks=CHECKS)

    answers()
