"""What nf-tower sends of a run, in the order in which it does."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from lab import Lab

from launchpad.folders import RunFolder
from launchpad.runner import SILENT, read_files
from launchpad.store import Workflow, now
from launchpad.trace import FIELDS

JSON = {"Content-Type": "application/json"}
CREATE: dict[str, Any] = {
    "sessionId": "0135bb16-f727-44cf-9b0b-4bd866d8505b", "runName": "loving_cantor", "projectName": "nextflow-io/hello",
    "repository": "https://github.com/nextflow-io/hello", "workflowId": None, "instant": 1795345000000,
}  # fmt: skip
BEGIN: dict[str, Any] = {
    "workflow": {
        "start": "2026-11-22T11:14:16Z", "projectDir": "/p", "projectName": "nextflow-io/hello", "scriptName": "main.nf", "scriptId": "942010ae77",
        "launchDir": "/home/ana", "workDir": "/home/ana/work", "profile": "standard", "userName": "ana", "commandLine": "nextflow run hello -with-tower",
        "params": {"word": "hello"}, "configFiles": [], "configText": "process.cpus = 1", "manifest": {"name": "hello"}, "container": None, "revision": "master",
        "nextflow": {"version": "25.04.4", "build": 5950, "timestamp": "2025-06-16T14:23Z"}, "sessionId": CREATE["sessionId"], "runName": "loving_cantor",
        "resume": False, "success": False, "exitStatus": None, "errorMessage": None, "errorReport": None, "stats": None, "complete": None, "duration": None,
    },
    "processNames": ["sayHello"], "towerLaunch": False, "dag": None, "instant": 1795345001000,
}  # fmt: skip
TASK: dict[str, Any] = {
    "taskId": 1, "hash": "ab/05ea0d", "name": "sayHello (1)", "process": "sayHello", "tag": "1", "status": "SUBMITTED", "exit": None, "attempt": 1, "module": [],
    "container": None, "script": "echo hello", "workdir": "/home/ana/work/ab/05ea0d", "queue": None, "cpus": 1, "memory": None, "disk": None, "time": None,
    "env": None, "executor": "local", "submit": "2026-11-22T11:14:22.741Z", "start": None, "complete": None, "nativeId": "381", "scratch": None,
}  # fmt: skip
DONE: dict[str, Any] = {
    "status": "COMPLETED", "exit": 0, "start": "2026-11-22T11:14:22.764Z", "complete": "2026-11-22T11:14:24.487Z", "duration": 1746, "realtime": 1500,
    "pcpu": 82.0, "pmem": 0.1, "rss": 15_800_000, "vmem": 20_700_000, "peakRss": 15_800_000, "peakVmem": 20_700_000, "rchar": 9_900_000, "wchar": 24_200,
    "syscr": 10, "syscw": 10, "readBytes": 1000, "writeBytes": 2000, "volCtxt": 5, "invCtxt": 6,
}  # fmt: skip
PROGRESS = {"pending": 0, "running": 1, "processes": [{"name": "sayHello", "index": 0, "running": 1}]}


def send(client: TestClient, workflow_id: str, what: str, body: dict[str, Any]) -> None:
    answer = client.put(f"/api/trace/{workflow_id}/{what}", json=body)
    assert (answer.status_code, answer.json()["status"], answer.json()["workflowId"]) == (200, "OK", workflow_id), answer.text


def workflow_of(client: TestClient, workflow_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/workflow/{workflow_id}").json()["workflow"]
    return found


def tasks_of(client: TestClient, workflow_id: str) -> list[dict[str, Any]]:
    return [entry["task"] for entry in client.get(f"/api/workflow/{workflow_id}/tasks").json()["tasks"]]


@pytest.mark.parametrize(("success", "status"), [(True, "SUCCEEDED"), (False, "FAILED")])
def test_a_run_from_elsewhere_is_followed_from_create_to_complete(ana: TestClient, success: bool, status: str) -> None:
    created = ana.post("/api/trace/create", json=CREATE).json()
    assert set(created) == {"workflowId", "watchUrl", "message", "metadata"}
    assert created["watchUrl"].startswith("http://testserver/")
    workflow_id = created["workflowId"]
    assert workflow_of(ana, workflow_id)["status"] == "SUBMITTED"
    send(ana, workflow_id, "begin", BEGIN)
    workflow = workflow_of(ana, workflow_id)
    assert [workflow[name] for name in ("status", "runName", "scriptName", "revision", "params")] == [
        "RUNNING",
        "loving_cantor",
        "main.nf",
        "master",
        {"word": "hello"},
    ]
    assert workflow["nextflow"]["version"] == "25.04.4"
    send(ana, workflow_id, "progress", {"tasks": [TASK], "progress": PROGRESS, "containers": [], "instant": 1})
    send(ana, workflow_id, "heartbeat", {"progress": PROGRESS, "instant": 2})
    assert ana.get(f"/api/workflow/{workflow_id}/progress").json()["progress"]["workflowProgress"]["submitted"] == 1
    send(ana, workflow_id, "progress", {"tasks": [TASK | DONE], "progress": PROGRESS, "containers": [], "instant": 3})
    (task,) = tasks_of(ana, workflow_id)
    assert [task[name] for name in ("status", "exit", "realtime", "peakRss", "submit")] == ["COMPLETED", 0, 1500, 15_800_000, "2026-11-22T11:14:22Z"]
    end = {"success": success, "exitStatus": 0 if success else 1, "errorMessage": None if success else "no sugar", "stats": {"succeedCount": 1}}
    send(ana, workflow_id, "complete", {"workflow": BEGIN["workflow"] | end, "metrics": [], "progress": PROGRESS, "instant": 4})
    workflow = workflow_of(ana, workflow_id)
    assert [workflow[name] for name in ("status", "success", "exitStatus", "stats")] == [status, success, 0 if success else 1, {"succeedCount": 1}]
    assert workflow["errorMessage"] == end["errorMessage"]
    assert workflow["complete"] >= workflow["start"]


def test_a_run_from_elsewhere_that_falls_silent_is_unknown_until_it_is_heard_again(lab: Lab, ana: TestClient) -> None:
    workflow_id = ana.post("/api/trace/create", json=CREATE).json()["workflowId"]
    send(ana, workflow_id, "begin", BEGIN)
    lab.app.state.runner.look()
    assert workflow_of(ana, workflow_id)["status"] == "RUNNING"
    lab.change(workflow_id, last_updated=now() - SILENT)
    lab.app.state.runner.look()
    assert workflow_of(ana, workflow_id)["status"] == "UNKNOWN"
    send(ana, workflow_id, "heartbeat", {"progress": PROGRESS, "instant": 2})
    assert workflow_of(ana, workflow_id)["status"] == "RUNNING"


def test_a_run_of_the_launchpads_own_keeps_its_id_and_what_the_launchpad_knows(lab: Lab, ana: TestClient) -> None:
    workflow_id = lab.launched()
    before = workflow_of(ana, workflow_id)
    assert ana.post("/api/trace/create", json=CREATE | {"workflowId": workflow_id}).json()["workflowId"] == workflow_id
    send(ana, workflow_id, "begin", BEGIN)
    send(ana, workflow_id, "complete", {"workflow": BEGIN["workflow"] | {"success": True, "exitStatus": 0}})
    after = workflow_of(ana, workflow_id)
    for name in ("status", "launchDir", "workDir", "sessionId", "runName", "projectName", "repository", "params"):
        assert after[name] == before[name]
    assert after["scriptName"] == "main.nf"


def test_a_task_is_one_row_whether_plugin_log_or_trace_file_tell_of_it(lab: Lab, ana: TestClient) -> None:
    workflow_id = lab.launched()
    folder = RunFolder(lab.settings, workflow_id)
    values = {
        "task_id": "1",
        "hash": "ab/05ea0d",
        "name": "sayHello (1)",
        "process": "sayHello",
        "tag": "1",
        "status": "COMPLETED",
        "exit": "0",
        "attempt": "1",
    }
    values |= {"submit": "1795346062741", "start": "1795346062764", "complete": "1795346064487", "realtime": "1500", "%cpu": "82.0", "peak_rss": "15800000"}

    def look() -> None:
        with lab.sessions() as session:
            read_files(session, session.get_one(Workflow, workflow_id), folder)
            session.commit()

    folder.log.write_text("Nov-22 11:14:22.742 [Task submitter] INFO  nextflow.Session - [ab/05ea0d] Submitted process > sayHello (1)\n")
    look()
    assert [(task["status"], task["name"]) for task in tasks_of(ana, workflow_id)] == [("SUBMITTED", "sayHello (1)")]
    send(ana, workflow_id, "progress", {"tasks": [TASK | {"status": "RUNNING"}]})
    assert [(task["status"], task["taskId"]) for task in tasks_of(ana, workflow_id)] == [("RUNNING", 1)]
    folder.trace.write_text("\t".join(FIELDS) + "\n" + "\t".join(values.get(name, "-") for name in FIELDS) + "\n")
    look()
    look()
    (told_by_file,) = tasks_of(ana, workflow_id)
    assert (told_by_file["status"], told_by_file["peakRss"]) == ("COMPLETED", 15_800_000)
    send(ana, workflow_id, "progress", {"tasks": [TASK | {"status": "RUNNING"}]})  # sent before the end, come after it
    assert [task["status"] for task in tasks_of(ana, workflow_id)] == ["COMPLETED"]
    send(ana, workflow_id, "progress", {"tasks": [TASK | DONE]})
    assert [task["status"] for task in tasks_of(ana, workflow_id)] == ["COMPLETED"]
    assert ana.get(f"/api/workflow/{workflow_id}/progress").json()["progress"]["workflowProgress"]["succeeded"] == 1


@pytest.mark.parametrize(
    "change",
    [{"pcpu": "much"}, {"cpus": "2"}, {"realtime": 10**30}, {"exit": 2**70}, {"attempt": -(10**30)}, {"memory": 10**400}, {"submit": 10**30}, {"submit": [1]},
     {"submit": "0001-01-01T00:00:00+14:00"}, {"start": "soon"}, {"name": "\ud800"}, {"tag": "\ud800"}, {"status": "DONE"}, {"taskId": -1}, {"taskId": "x"},
     {"hash": "x" * 1000}, {"queue": "\ud800"}],
)  # fmt: skip
def test_tasks_that_are_none_are_refused_or_their_odd_values_left_out(ana: TestClient, change: dict[str, Any]) -> None:
    workflow_id = ana.post("/api/trace/create", json=CREATE).json()["workflowId"]
    task = copy.deepcopy(TASK | DONE) | change
    # as text, for characters that are none
    answer = ana.put(f"/api/trace/{workflow_id}/progress", content=json.dumps({"tasks": [task]}), headers=JSON)
    assert answer.status_code in {200, 400}
    assert answer.status_code == 200 or "message" in answer.json()
    for path in ("", "/tasks", "/progress", "/metrics"):
        assert ana.get(f"/api/workflow/{workflow_id}{path}").status_code == 200


@pytest.mark.parametrize("tasks", [5, True, "abc", {"a": 1}, [None], [[]], [{}]])
def test_lists_of_tasks_that_are_none(ana: TestClient, tasks: Any) -> None:
    workflow_id = ana.post("/api/trace/create", json=CREATE).json()["workflowId"]
    answer = ana.put(f"/api/trace/{workflow_id}/progress", json={"tasks": tasks})
    assert (answer.status_code, list(answer.json())) == (400, ["message"])


@pytest.mark.parametrize(
    "sent", [None, 1, [], {"params": 1, "manifest": "x", "stats": []}, {"exitStatus": 10**30, "success": 1}, {"scriptName": "\ud800"}, {"exitStatus": "1"}]
)
def test_workflows_that_are_none(ana: TestClient, sent: Any) -> None:
    workflow_id = ana.post("/api/trace/create", json=CREATE).json()["workflowId"]
    for what in ("begin", "complete"):
        assert ana.put(f"/api/trace/{workflow_id}/{what}", content=json.dumps({"workflow": sent}), headers=JSON).status_code in {200, 400}
    assert ana.get(f"/api/workflow/{workflow_id}").status_code == 200


def test_a_foreign_id_is_not_taken_over(lab: Lab, ana: TestClient) -> None:
    assert ana.post("/api/trace/create", json=CREATE | {"workflowId": lab.ended("bo")}).status_code == 403
    assert ana.put("/api/trace/none/begin", json=BEGIN).status_code == 403
