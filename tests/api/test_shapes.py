"""What every endpoint answers: fields and their kinds, pages, search, labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from lab import PIPELINE, Lab, launch_body

from launchpad.store import Task, now

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
TIMES = {"submit", "start", "complete", "dateCreated", "lastUpdated", "lastUsed", "lastSeen", "expires"}


def of(kind: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


WORKFLOW = {
    **of(str, "id runName sessionId status submit dateCreated lastUpdated userName projectName repository launchId launchDir workDir"),
    **of(str | None, "commandLine scriptName revision commitId profile configText container errorMessage errorReport start complete"),
    **of(dict | None, "manifest nextflow stats"),
    **of(int | None, "duration exitStatus"),
    **{"success": bool | None, "params": dict, "configFiles": list, "resume": bool},
}
COUNTERS = of(
    int | float,
    "pending submitted running succeeded failed cached aborted ignored retries cpus cpuTime cpuLoad memoryRss memoryReq readBytes writeBytes "
    "volCtxSwitch invCtxSwitch loadTasks loadCpus loadMemory peakCpus peakTasks peakMemory cpuEfficiency memoryEfficiency",
)
TASK = {
    **of(int, "taskId attempt"),
    **of(str, "status hash name process"),
    **of(str | None, "tag container errorAction workdir queue submit start complete nativeId executor"),
    **of(int | float | None, "exit cpus memory time duration realtime pcpu pmem rss vmem peakRss peakVmem rchar wchar readBytes writeBytes"),
}
COMPUTE_ENV = {**of(str, "id name platform status workDir"), "primary": bool, "config": dict}
LAUNCH = {
    **of(str, "id pipeline"),
    **of(str | None, "workDir revision sessionId paramsText resumeDir resumeCommitId configText preRunScript postRunScript mainScript entryName"),
    **of(bool, "resume stubRun pullLatest"),
    **{"computeEnv": dict, "configProfiles": list},
}
PIPELINE_FIELDS = {"pipelineId": int, "name": str, "repository": str, "description": str | None, "icon": str | None, "dateCreated": str, "lastUpdated": str}
VERSION = {"datasetId": str, "datasetName": str, "version": int, "fileName": str, "mediaType": str, "hasHeader": bool, "url": str, "dateCreated": str}


def fits(found: dict[str, Any], **kinds: Any) -> dict[str, Any]:
    """An object that has these fields, of these kinds, and times as the Platform writes them."""
    wrong = {name: found.get(name, "missing") for name, kind in kinds.items() if name not in found or not isinstance(found[name], kind)}
    assert not wrong
    assert [time for time in times(found) if time is not None and not TIME.fullmatch(time)] == []
    return found


def times(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from (found for name, found in value.items() if name in TIMES)
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from times(part)


def get(client: TestClient, path: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/api{path}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def run(lab: Lab) -> str:
    """A run with two tasks, of which one was measured."""
    workflow_id = lab.ended()
    measured = {"cpus": 1, "pcpu": 80.0, "memory": 1000, "peakRss": 500, "peakVmem": 900, "rchar": 10, "wchar": 20, "container": "image"}
    tasks = [
        Task(workflow_id=workflow_id, hash="ab/000001", task_id=1, status="COMPLETED", name="GREET (1)", process="GREET", tag="1", exit=0, measured=measured,
             submit=now(), start=now(), complete=now(), duration=20, realtime=10),
        Task(workflow_id=workflow_id, hash="ab/000002", task_id=2, status="FAILED", name="COLLECT", process="COLLECT", exit=1),
    ]  # fmt: skip
    with lab.sessions() as session:
        session.add_all(tasks)
        session.commit()
    return workflow_id


def test_the_api_has_every_call_of_the_platform_that_clients_make(lab: Lab) -> None:
    calls = """
        GET /service-info, GET /user-info, GET /user/{}/workspaces, POST /workflow/launch, GET /workflow, GET /workflow/validate, GET /workflow/{}, DELETE /workflow/{},
        GET /workflow/{}/launch, GET /workflow/{}/progress, GET /workflow/{}/tasks, GET /workflow/{}/task/{}, GET /workflow/{}/metrics, GET /workflow/{}/log,
        GET /workflow/{}/log/{}, GET /workflow/{}/download, GET /workflow/{}/download/{}, GET /workflow/{}/reports, POST /workflow/{}/cancel,
        GET /pipelines, POST /pipelines, GET /pipelines/{}, PUT /pipelines/{}, DELETE /pipelines/{}, GET /pipelines/{}/launch, GET /pipelines/{}/schema,
        GET /compute-envs, GET /compute-envs/{}, GET /datasets, POST /datasets, DELETE /datasets/{}, POST /datasets/{}/upload, GET /datasets/{}/versions,
        GET /datasets/{}/v/{}/n/{}, GET /actions, POST /actions, GET /actions/{}, DELETE /actions/{}, POST /actions/{}/launch, GET /labels, POST /labels,
        GET /tokens, POST /tokens, DELETE /tokens/{}, POST /trace/create, PUT /trace/{}/begin, PUT /trace/{}/progress, PUT /trace/{}/heartbeat, PUT /trace/{}/complete
    """
    expected = {" ".join(call.split()) for call in calls.split(",")}
    there = {f"{method} {re.sub('{[^}]*}', '{}', path.removeprefix('/api'))}" for method, path, _ in lab.operations()}
    assert expected - there == set()


def test_the_service_tells_of_itself_without_a_token(lab: Lab) -> None:
    found = TestClient(lab.app).get("/api/service-info").json()["serviceInfo"]
    fits(found, version=str, apiVersion=str, authTypes=list, loginPath=str, heartbeatInterval=int, userWorkspaceEnabled=bool)


def test_user_and_workspace(ana: TestClient) -> None:
    found = get(ana, "/user-info")
    user = fits(found["user"], id=int, userName=str, email=str | None)
    fits(found, needConsent=bool, defaultWorkspaceId=int)
    (workspace,) = get(ana, f"/user/{user['id']}/workspaces")["orgsAndWorkspaces"]
    fits(workspace, orgId=int, orgName=str, workspaceId=int, workspaceName=str, workspaceFullName=str, visibility=str, roles=list)
    assert workspace["workspaceId"] == found["defaultWorkspaceId"]
    assert ana.get("/api/user/999/workspaces").status_code == 403


def test_there_is_one_compute_environment(ana: TestClient) -> None:
    (found,) = get(ana, "/compute-envs")["computeEnvs"]
    fits(found, **COMPUTE_ENV)
    assert (found["platform"], found["primary"]) == ("local-platform", True)
    assert get(ana, f"/compute-envs/{found['id']}")["computeEnv"] == found
    assert get(ana, "/compute-envs", status="ERRORED")["computeEnvs"] == []
    assert ana.get("/api/compute-envs/none").status_code == 403


def test_llamaflow_is_a_pipeline_from_the_start(ana: TestClient) -> None:
    found = get(ana, "/pipelines", search="llama")
    (pipeline,) = found["pipelines"]
    fits(pipeline, **PIPELINE_FIELDS)
    assert (found["totalSize"], pipeline["name"]) == (1, "llamaflow")
    assert get(ana, f"/pipelines/{pipeline['pipelineId']}")["pipeline"] == pipeline
    launch = fits(get(ana, f"/pipelines/{pipeline['pipelineId']}/launch")["launch"], **LAUNCH)
    fits(launch["computeEnv"], **COMPUTE_ENV)
    schema = fits(get(ana, f"/pipelines/{pipeline['pipelineId']}/schema"), schema=str, params=str | None)["schema"]
    assert json.loads(schema) == json.loads((PIPELINE / "nextflow_schema.json").read_text())
    assert get(ana, "/pipelines", search="nothing")["pipelines"] == []
    assert ana.get("/api/pipelines/999").status_code == 403


def test_an_administrator_adds_changes_and_removes_pipelines(admin: TestClient) -> None:
    launch = {"pipeline": "nextflow-io/hello", "revision": "master", "paramsText": "a: 1"}
    made = admin.post("/api/pipelines", json={"name": "hello", "launch": launch})
    pipeline = fits(made.json()["pipeline"], **PIPELINE_FIELDS)
    address = f"/api/pipelines/{pipeline['pipelineId']}"
    assert admin.post("/api/pipelines", json={"name": "hello", "launch": launch}).status_code == 409
    assert admin.put(address, json={"name": "llamaflow", "launch": launch}).status_code == 409
    changed = admin.put(address, json={"name": "hallo", "description": "greets", "launch": launch})
    assert (changed.json()["pipeline"]["name"], changed.json()["pipeline"]["description"]) == ("hallo", "greets")
    kept = admin.get(f"{address}/launch").json()["launch"]
    assert (kept["pipeline"], kept["revision"], kept["paramsText"]) == ("nextflow-io/hello", "master", "a: 1")
    schema = admin.get(f"{address}/schema")
    assert (schema.status_code, schema.content) == (204, b"")
    removed = admin.delete(address)
    assert (removed.status_code, removed.content) == (204, b"")
    assert admin.get(address).status_code == 403


def test_a_run_that_waits(lab: Lab, ana: TestClient) -> None:
    answer = ana.post("/api/workflow/launch", json=launch_body(runName="waits_long")).json()
    assert re.fullmatch("[0-9A-Za-z]{14,16}", answer["workflowId"])
    found = get(ana, f"/workflow/{answer['workflowId']}")
    fits(
        found, workflow=dict, progress=dict, platform=dict, jobInfo=dict, labels=list, messages=list, orgId=int, orgName=str, workspaceId=int, workspaceName=str
    )
    workflow = fits(found["workflow"], **WORKFLOW)
    assert (workflow["runName"], workflow["status"], workflow["params"]["word"]) == ("waits_long", "SUBMITTED", "hello")
    assert [workflow[name] for name in ["start", "complete", "duration", "exitStatus", "success", "commandLine", "errorMessage"]] == [None] * 7
    launch = fits(get(ana, f"/workflow/{workflow['id']}/launch")["launch"], **LAUNCH)
    assert (launch["pipeline"], launch["sessionId"], json.loads(launch["paramsText"])) == (str(PIPELINE), workflow["sessionId"], {"word": "hello"})
    log = fits(get(ana, f"/workflow/{workflow['id']}/log")["log"], entries=list, truncated=bool, pending=bool, message=str, forwardToken=str, downloads=list)
    assert (log["entries"], log["pending"]) == ([], True)
    lab.change(workflow["id"], status="CANCELLED")


def test_progress_has_every_counter(ana: TestClient, lab: Lab) -> None:
    found = get(ana, f"/workflow/{lab.ended()}/progress")["progress"]
    fits(found, workflowProgress=dict, processesProgress=list, totalProcesses=int)
    fits(found["workflowProgress"], **COUNTERS)


def test_tasks_are_sorted_searched_and_paged(ana: TestClient, run: str) -> None:
    def names(**query: Any) -> list[str]:
        return [entry["task"]["name"] for entry in get(ana, f"/workflow/{run}/tasks", **query)["tasks"]]

    found = get(ana, f"/workflow/{run}/tasks")
    assert [fits(entry["task"], **TASK)["taskId"] for entry in found["tasks"]] == [1, 2]
    assert found["total"] == 2
    assert names(sortBy="name") == ["COLLECT", "GREET (1)"]
    assert names(sortDir="desc") == ["COLLECT", "GREET (1)"]
    assert names(search="greet") == ["GREET (1)"]
    assert names(search="failed") == ["COLLECT"]
    assert names(max=1, offset=1) == ["COLLECT"]
    assert names(search="%") == []
    task = get(ana, f"/workflow/{run}/task/1")["task"]
    assert (task["cpus"], task["peakRss"], task["container"]) == (1, 500, "image")
    assert ana.get(f"/api/workflow/{run}/task/3").status_code == 403


def test_metrics_have_quartiles_of_each_process(ana: TestClient, run: str) -> None:
    greet, collect = get(ana, f"/workflow/{run}/metrics")["metrics"]
    fits(greet, process=str, **of(dict, "cpu mem vmem time reads writes cpuUsage memUsage"))
    fits(greet["mem"], **of(int | float, "mean min q1 q2 q3 max"), minLabel=str, maxLabel=str)
    assert (greet["mem"]["q2"], greet["memUsage"]["mean"], greet["timeUsage"]) == (500, 50, None)
    assert (collect["process"], collect["cpu"]) == ("COLLECT", None)


def test_runs_are_listed_the_latest_first_by_page_and_search(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    ana = lab.client()
    ids = [lab.ended(run_name=f"run_{number}", status="FAILED" if number % 2 else "SUCCEEDED") for number in range(7)]
    lab.ended("bo", run_name="run_of_bo")

    def listed(**query: Any) -> list[str]:
        return [entry["workflow"]["id"] for entry in get(ana, "/workflow", **query)["workflows"]]

    first = get(ana, "/workflow", max=3)
    assert (first["totalSize"], first["hasMore"]) == (7, True)
    fits(first["workflows"][0], workflow=dict, progress=dict, labels=list, starred=bool, orgId=int, workspaceId=int)
    fits(first["workflows"][0]["workflow"], **WORKFLOW)
    assert listed(max=3) + listed(max=3, offset=3) + listed(max=3, offset=6) == ids[::-1]
    assert get(ana, "/workflow", max=3, offset=4)["hasMore"] is False
    assert get(ana, "/workflow", includeTotalSize=False)["totalSize"] is None
    assert listed(search="run_3") == [ids[3]]
    assert listed(search="status:failed run") == ids[5:0:-2]
    assert listed(search="bo") == listed(search="100%") == []
    assert {entry["progress"] for entry in get(ana, "/workflow", attributes="labels")["workflows"]} == {None}


def test_names_are_free_or_taken(lab: Lab, ana: TestClient, bo: TestClient) -> None:
    lab.ended(run_name="taken_name")
    free = ana.get("/api/workflow/validate", params={"runName": "free_name"})
    assert (free.status_code, free.content) == (204, b"")
    taken = ana.get("/api/workflow/validate", params={"runName": "taken_name"})
    assert (taken.status_code, list(taken.json())) == (409, ["message"])
    assert bo.get("/api/workflow/validate", params={"runName": "taken_name"}).status_code == 204
    assert ana.get("/api/workflow/validate", params={"runName": "../etc"}).status_code == 400


def test_labels(lab: Lab, ana: TestClient, bo: TestClient) -> None:
    made = fits(ana.post("/api/labels", json={"name": "team", "value": "blue"}).json(), id=int, name=str, value=str, resource=bool, isDefault=bool)
    assert ana.post("/api/labels", json={"name": "team", "value": "blue"}).status_code == 409
    assert ana.post("/api/labels", json={"name": "team"}).status_code == 200
    found = get(ana, "/labels", search="tea")
    assert ([label["value"] for label in found["labels"]], found["totalSize"]) == (["blue", None], 2)
    workflow_id = lab.launched(labelIds=[made["id"]])
    assert [label["name"] for label in get(ana, f"/workflow/{workflow_id}")["labels"]] == ["team"]
    foreign = bo.post("/api/workflow/launch", json=launch_body(labelIds=[made["id"]]))
    assert (foreign.status_code, str(made["id"]) in foreign.json()["message"]) == (400, True)
    assert bo.delete(f"/api/labels/{made['id']}").status_code == 403
    assert ana.delete(f"/api/labels/{made['id']}").status_code == 204
    assert get(ana, f"/workflow/{workflow_id}")["labels"] == []


def test_actions_launch_with_parameters_of_their_own_and_of_the_call(ana: TestClient, bo: TestClient) -> None:
    body = {"name": "nightly", "source": "tower", **launch_body({"times": 3})}
    action_id = ana.post("/api/actions", json=body).json()["actionId"]
    assert ana.post("/api/actions", json=body).status_code == 409
    (listed,) = get(ana, "/actions")["actions"]
    fits(listed, id=str, name=str, source=str, status=str, launch=dict, endpoint=str, lastSeen=str | None, dateCreated=str)
    assert get(ana, f"/actions/{action_id}")["action"] == listed
    workflow_id = ana.post(f"/api/actions/{action_id}/launch", json={"params": {"word": "bye"}}).json()["workflowId"]
    launched = get(ana, f"/workflow/{workflow_id}")["workflow"]["params"]
    assert (launched["word"], launched["times"]) == ("bye", 3)
    assert isinstance(get(ana, f"/actions/{action_id}")["action"]["lastSeen"], str)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/launch")):
        assert bo.request(method, f"/api/actions/{action_id}{path}", json={}).status_code == 403
    assert ana.delete(f"/api/actions/{action_id}").status_code == 204
    assert get(ana, "/actions")["actions"] == []


def test_datasets_have_versions_at_addresses_that_launches_take(lab: Lab, ana: TestClient) -> None:
    dataset = fits(ana.post("/api/datasets", json={"name": "rows"}).json()["dataset"], id=str, name=str, mediaType=str | None, deleted=bool, dateCreated=str)
    assert ana.post("/api/datasets", json={"name": "rows"}).status_code == 409
    address = f"/api/datasets/{dataset['id']}"
    for number, text in enumerate((b"a,b\n1,2\n", b"a,b\n3,4\n"), 1):
        answer = ana.post(f"{address}/upload", params={"header": True}, files={"file": ("my rows.csv", text)})
        version = fits(answer.json()["version"], **VERSION)
        assert (version["version"], version["fileName"], version["hasHeader"]) == (number, "my rows.csv", True)
        assert ana.get(version["url"]).content == text
    assert [found["version"] for found in get(ana, f"/datasets/{dataset['id']}/versions")["versions"]] == [1, 2]
    assert [found["mediaType"] for found in get(ana, "/datasets", search="row")["datasets"]] == ["text/csv"]
    workflow_id = lab.launched({"input": version["url"]})
    used = get(ana, f"/workflow/{workflow_id}")["workflow"]["params"]["input"]
    assert Path(used).read_bytes() == b"a,b\n3,4\n"
    assert ana.delete(address).status_code == 204
    assert not Path(used).exists()
    assert ana.get(f"{address}/versions").status_code == 403


def test_tokens_are_shown_once(ana: TestClient, lab: Lab) -> None:
    made = ana.post("/api/tokens", json={"name": "n8n", "scope": "read", "days": 7}).json()
    fits(made["token"], id=int, name=str, scope=str, lastUsed=str | None, expires=str, dateCreated=str)
    listed = ana.get("/api/tokens")
    assert made["token"] in [found | {"lastUsed": None} for found in listed.json()["tokens"]]
    assert made["accessKey"] not in listed.text
    assert not any(made["accessKey"].encode() in file.read_bytes() for file in lab.settings.data.glob("launchpad.sqlite*"))


def test_what_is_no_endpoint_is_told_in_the_same_shape(ana: TestClient) -> None:
    assert (ana.get("/api/nothing").status_code, ana.get("/api/nothing").json()) == (404, {"message": "Not Found"})
    assert ana.patch("/api/workflow").json() == {"message": "Method Not Allowed"}


def test_answers_are_not_kept_by_proxies(ana: TestClient) -> None:
    assert ana.get("/api/user-info").headers["cache-control"] == "no-store"
