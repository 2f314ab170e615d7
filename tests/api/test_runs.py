"""Real runs of Nextflow: launched, followed, failed, resumed, cancelled, deleted."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lab import ENDED, Server, launch_body, processes, wait_until

Runs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def runs(server: Server) -> Runs:
    """Two runs side by side, one of which fails; firstSessionId is what each had before it started."""
    with server.client() as ana:
        dataset_id = ana.post("/datasets", json={"name": "rows"}).json()["dataset"]["id"]
        url = ana.post(f"/datasets/{dataset_id}/upload", files={"file": ("rows.csv", b"a\nb\nc\n")}).json()["version"]["url"]
    ids = {"good": server.launched({"input": url}, runName="good"), "bad": server.launched({"fail": True}, runName="bad")}
    sessions = {name: server.workflow(workflow_id)["sessionId"] for name, workflow_id in ids.items()}
    return {name: server.followed(workflow_id) | {"firstSessionId": sessions[name]} for name, workflow_id in ids.items()}


def get(server: Server, path: str, **query: Any) -> Any:
    with server.client() as client:
        return client.get(path, params=query).raise_for_status().json()


def test_a_run_succeeds(server: Server, runs: Runs) -> None:
    good = runs["good"]
    assert [good[name] for name in ("status", "success", "exitStatus", "errorMessage", "errorReport", "resume")] == ["SUCCEEDED", True, 0, None, None, False]
    assert good["submit"] <= good["start"] <= good["complete"]
    assert good["duration"] > 0
    assert (good["stats"]["succeedCount"], good["stats"]["failedCount"], good["stats"]["cachedCount"]) == (3, 0, 0)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", good["nextflow"]["version"])
    assert "-name good" in good["commandLine"]
    log = (server.folder(good["id"]) / "nextflow.log").read_text()
    assert re.findall("Session UUID: (.*)", log) == [good["sessionId"]] == [good["firstSessionId"]]


def test_its_results_lead_from_the_run_to_its_files(server: Server, runs: Runs) -> None:
    good = runs["good"]["id"]
    assert get(server, f"/workflow/{good}")["results"] == {"greetings": 2, "rows": 3}
    reports = get(server, f"/workflow/{good}/reports")
    assert [(report["display"], report["path"], report["mimeType"]) for report in reports["reports"]] == [
        ("Report", "report.html", "text/html"),
        ("Leaderboard", "leaderboard.csv", "text/csv"),
    ]
    with server.client() as client:
        for report in reports["reports"]:
            file = client.get(f"/workflow/{good}/download", params={"fileName": report["path"]})
            assert (file.status_code, len(file.content), file.headers["content-type"].split(";")[0]) == (200, report["size"], report["mimeType"])


def test_its_tasks_and_their_progress(server: Server, runs: Runs) -> None:
    good = runs["good"]["id"]
    tasks = server.tasks(good)
    assert {name: (task["process"], task["tag"]) for name, task in tasks.items()} == {
        "GREET (1)": ("GREET", "1"),
        "GREET (2)": ("GREET", "2"),
        "COLLECT": ("COLLECT", None),
    }
    assert sorted(task["taskId"] for task in tasks.values()) == [1, 2, 3]
    for task in tasks.values():
        assert (task["status"], task["exit"], task["attempt"]) == ("COMPLETED", 0, 1)
        assert task["submit"] <= task["start"] <= task["complete"]
        assert (task["cpus"], task["memory"], Path(task["workdir"], ".command.sh").exists()) == (1, 100 * 2**20, True)
    progress = get(server, f"/workflow/{good}/progress")["progress"]
    assert (progress["workflowProgress"]["succeeded"], progress["workflowProgress"]["running"], progress["totalProcesses"]) == (3, 0, 2)
    assert {process["process"]: process["succeeded"] for process in progress["processesProgress"]} == {"GREET": 2, "COLLECT": 1}
    metrics = get(server, f"/workflow/{good}/metrics")["metrics"]
    assert {process["process"] for process in metrics} == {"GREET", "COLLECT"}
    assert all(process["time"]["max"] >= process["time"]["min"] >= 0 for process in metrics)


def test_its_log_comes_in_pages(server: Server, runs: Runs) -> None:
    good, token = runs["good"]["id"], "0"
    lines: list[str] = []
    while (page := get(server, f"/workflow/{good}/log", next=token, maxLength=100)["log"])["entries"]:
        token, lines = page["forwardToken"], lines + page["entries"]
    assert lines == (server.folder(good) / "console.txt").read_text().splitlines()
    assert (page["pending"], {one["fileName"] for one in page["downloads"]}) == (False, {"console.txt", "nextflow.log", "trace.txt"})
    with server.client() as client:
        for name in ("nextflow.log", "trace.txt"):
            found = client.get(f"/workflow/{good}/download", params={"fileName": name})
            assert found.content == (server.folder(good) / name).read_bytes()
        for name in ("params.json", "launch.config", "../../launchpad.sqlite", "launch/../params.json"):
            assert client.get(f"/workflow/{good}/download", params={"fileName": name}).status_code == 403


def test_logs_of_its_tasks(server: Server, runs: Runs) -> None:
    bad = runs["bad"]["id"]
    task_id = server.tasks(bad)["COLLECT"]["taskId"]
    log = get(server, f"/workflow/{bad}/log/{task_id}")["log"]
    assert (log["entries"], log["pending"]) == (["there is no sugar left"], False)
    with server.client() as client:
        script = client.get(f"/workflow/{bad}/download/{task_id}", params={"fileName": ".command.sh"})
        assert "sugar" in script.text
        for name in (".command.run", "../x", "/etc/passwd"):
            assert client.get(f"/workflow/{bad}/download/{task_id}", params={"fileName": name}).status_code == 403


def test_a_run_fails_and_says_why(server: Server, runs: Runs) -> None:
    bad = runs["bad"]
    assert [bad[name] for name in ("status", "success", "errorMessage")] == ["FAILED", False, "there is no sugar left"]
    assert bad["exitStatus"] > 0
    assert "Process `COLLECT` terminated with an error exit status (3)" in bad["errorReport"]
    assert (bad["stats"]["succeedCount"], bad["stats"]["failedCount"]) == (2, 1)
    task = server.tasks(bad["id"])["COLLECT"]
    assert (task["status"], task["exit"]) == ("FAILED", 3)
    assert get(server, f"/workflow/{bad['id']}")["results"] is None


def test_a_run_is_its_owners_alone(server: Server, runs: Runs) -> None:
    with server.client("bo", "admin") as bo:
        for path in ("", "/tasks", "/task/1", "/log", "/log/1", "/reports", "/download?fileName=nextflow.log", "/download/1?fileName=.command.sh"):
            assert bo.get(f"/workflow/{runs['good']['id']}{path}").status_code == 403


def test_nothing_secret_is_in_logs_and_command_lines(server: Server, runs: Runs) -> None:
    texts = [runs["good"]["commandLine"], (server.data / "service.log").read_text()]
    texts += [file.read_text() for file in (server.data / "runs").glob("*/*") if file.is_file()]
    assert not any(secret in text for secret in server.secrets.values() for text in texts)
    assert "/workflow" not in texts[1]


def test_the_service_leaves_no_dead_processes(server: Server, runs: Runs) -> None:
    """A process that has ended stays in the system's table until its parent has asked for its status."""

    def dead() -> list[str]:
        pids = [child for file in Path(f"/proc/{server.process.pid}/task").glob("*/children") for child in file.read_text().split()]
        return [pid for pid in pids if state(pid) == "Z"]

    wait_until(lambda: not dead(), 30)


def state(pid: str) -> str | None:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


@pytest.mark.slow
def test_a_failed_run_is_resumed_from_where_it_failed(server: Server, runs: Runs) -> None:
    """As clients do it: the launch of the old run, with its session."""
    bad = runs["bad"]
    launch = get(server, f"/workflow/{bad['id']}/launch")["launch"]
    again = {name: launch[name] for name in ("id", "pipeline", "revision", "configProfiles", "sessionId")} | {"resume": True, "workDir": bad["workDir"]}
    with server.client() as client:
        answer = client.post("/workflow/launch", json={"launch": again | {"paramsText": json.dumps({"word": "hello", "fail": False})}})
        assert answer.is_success, answer.text
        resumed = server.followed(answer.json()["workflowId"])
        assert (resumed["status"], resumed["sessionId"], resumed["resume"], resumed["launchDir"]) == ("SUCCEEDED", bad["sessionId"], True, bad["launchDir"])
        assert (resumed["stats"]["cachedCount"], resumed["stats"]["succeedCount"]) == (2, 1)
        assert {name: task["status"] for name, task in server.tasks(resumed["id"]).items()} == {
            "GREET (1)": "CACHED",
            "GREET (2)": "CACHED",
            "COLLECT": "COMPLETED",
        }
        # each can be deleted; the launch directory goes with the last
        assert client.delete(f"/workflow/{bad['id']}").status_code == 204
        assert Path(bad["launchDir"]).exists()
        assert get(server, f"/workflow/{resumed['id']}")["results"] == {"greetings": 2, "rows": 0}
        assert client.delete(f"/workflow/{resumed['id']}").status_code == 204
    assert not any(server.folder(workflow_id).exists() for workflow_id in (bad["id"], resumed["id"]))


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True])
def test_a_cancelled_run_ends_with_all_its_processes(server: Server, force: bool) -> None:
    workflow_id = server.launched({"seconds": 300})
    server.wait_for_last_task(workflow_id)
    assert get(server, f"/workflow/{workflow_id}/progress")["progress"]["workflowProgress"]["running"] == 1
    folder = server.folder(workflow_id)
    assert any("nextflow.cli.Launcher" in line for line in processes(folder).values())
    with server.client() as client:
        cancelled = client.post(f"/workflow/{workflow_id}/cancel", params={"force": force}, json={})
        assert (cancelled.status_code, cancelled.content) == (204, b"")
        workflow = server.followed(workflow_id)
        assert (workflow["status"], workflow["success"], server.tasks(workflow_id)["COLLECT"]["status"]) == ("CANCELLED", False, "ABORTED")
        assert client.post(f"/workflow/{workflow_id}/cancel", json={}).status_code == 409
    wait_until(lambda: processes(folder) == {}, 60)


@pytest.mark.slow
def test_a_run_is_deleted_with_its_files(server: Server, runs: Runs) -> None:
    workflow_id = server.launched({"times": 1})
    with server.client() as client:
        assert client.delete(f"/workflow/{workflow_id}").status_code == 409
        server.followed(workflow_id)
        assert client.delete(f"/workflow/{workflow_id}").status_code == 204
        assert client.get(f"/workflow/{workflow_id}").status_code == 403
    assert not server.folder(workflow_id).exists()
    assert (server.folder(runs["good"]["id"])).exists()


@pytest.mark.slow
def test_twenty_launches_at_once_take_turns(server: Server) -> None:
    """Half of them are cancelled while they wait, which starts none of these."""
    with server.client() as client, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: client.post("/workflow/launch", json=launch_body({"times": 1}, runName=f"turn-{number}")), range(20)))
        assert {answer.status_code for answer in answers} == {200}
        latest = [entry["workflow"]["id"] for entry in client.get("/workflow", params={"search": "turn-", "max": 10}).json()["workflows"]]
        assert {client.post(f"/workflow/{workflow_id}/cancel", json={}).status_code for workflow_id in latest} == {204}
        most = 0

        def ended() -> list[dict[str, Any]]:
            nonlocal most
            listed = [entry["workflow"] for entry in client.get("/workflow", params={"search": "turn-", "max": 100}).json()["workflows"]]
            states = [workflow["status"] for workflow in listed]
            most = max(most, states.count("RUNNING"))
            return listed if len(states) == 20 and set(states) <= ENDED else []

        found = wait_until(ended, 400)
    assert most == 2
    assert {workflow["status"] for workflow in found if workflow["id"] not in latest} == {"SUCCEEDED"}
    assert {(workflow["status"], workflow["start"]) for workflow in found if workflow["id"] in latest} == {("CANCELLED", None)}
