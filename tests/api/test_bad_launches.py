"""Launches that clients get wrong: each is told in the Platform's shape, and leaves nothing half-done."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from lab import PIPELINE, Lab, launch_body, told

from launchpad.params import LONGEST_YAML, MOST_FAULTS

DEEP = 100_000


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"launch", b"\xff\xfe", b"[]", b"null", b'{"launch": null}', b'{"launch": {"paramsText": {"word": "hello"}}}', b"[" * DEEP, b'{"a":' * DEEP,
     b'{"launch": {"labelIds": [1e400]}}', b'{"launch": {"labelIds": [' + b"9" * 5000 + b"]}}", b'{"launch": {"runName": 1}}', b'{"launch": {"pipeline": "\\ud800"}}'],
)  # fmt: skip
def test_bodies_that_are_none(ana: TestClient, body: bytes) -> None:
    assert told(ana.post("/api/workflow/launch", content=body, headers={"Content-Type": "application/json"}), 400)


def test_parameters_are_a_string(launch: Callable[..., Any]) -> None:
    assert "launch.paramsText: Input should be a valid string" in told(launch(paramsText={"word": "hello"}), 400)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b", "it is a list"),
        ("hello", "it is a text"),
        ("7", "it is a number"),
        ("1: a", "must be a mapping"),
        ("word: [", "line 1, column 8"),
        ("word: hello\n\tx: 1", "line 2"),
        ("a: &x [1]\nb: *x", "anchors and aliases are not allowed"),
        ("[" * DEEP, "neither JSON nor YAML"),
        ('{"a": ' * DEEP, "neither JSON nor YAML"),
        ("word: !!python/object:os.system x", "neither JSON nor YAML"),
        ("word: !!timestamp x", "neither JSON nor YAML"),
        ("word: !!int x", "neither JSON nor YAML"),
        ("word: !!binary aGVsbG8=", "paramsText"),
        ("word: .nan", "paramsText"),
        ('{"word": "\\ud800"}', "paramsText"),
        ('{"\\ud800": 1}', "paramsText"),
        ("times: " + "9" * 5000, "paramsText"),
    ],
)
def test_texts_that_are_no_parameters(launch: Callable[..., Any], text: str, said: str) -> None:
    assert said in told(launch(paramsText=text), 400)


def test_every_fault_of_the_parameters_is_told(launch: Callable[..., Any]) -> None:
    answer = launch({"word": "Hello", "times": 9, "fail": "no", "secnods": 1, "seconds": -1})
    assert "The parameters do not fit" in told(answer, 400)
    assert sorted(fault["message"] for fault in answer.json()["errors"]) == [
        '--fail: "no" is not of type boolean.',
        "--secnods: there is no such parameter; did you mean --seconds?",
        "--seconds: -1 is too small; it must be at least 0.",
        "--times: 9 is too large; it must be at most 5.",
        '--word: "Hello" does not look like ^[a-z]+$.',
    ]


def test_of_very_many_faults_some_are_said(launch: Callable[..., Any]) -> None:
    """To look for the nearest name of each would keep the service busy for long."""
    for given in ({f"unknown_{number}": 1 for number in range(20_000)}, {"x" * 500_000: 1}, {"input": ["/etc/passwd"] * 20_000}):
        answer = launch(given)
        assert 1 <= len(answer.json()["errors"]) <= MOST_FAULTS
        assert len(told(answer, 400)) < 20_000


def test_long_parameters_are_read_as_json_only(launch: Callable[..., Any]) -> None:
    assert "is read as JSON only" in told(launch(paramsText="word: hello # " + "x" * LONGEST_YAML), 400)
    assert "--input" in told(launch(paramsText=json.dumps({"word": "hello", "input": ["x"] * LONGEST_YAML})), 400)


def test_code_of_models_is_run_for_administrators_alone(ana: TestClient, admin: TestClient) -> None:
    admin.post("/api/pipelines", json={"name": "trusting", "launch": {"pipeline": "nextflow-io/trusting"}})
    body = {"launch": {"pipeline": "nextflow-io/trusting", "paramsText": "trust_remote_code: true"}}
    assert "only an administrator's token" in told(ana.post("/api/workflow/launch", json=body), 400)
    assert admin.post("/api/workflow/launch", json=body).status_code == 200
    body["launch"]["paramsText"] = "trust_remote_code: false"
    assert ana.post("/api/workflow/launch", json=body).status_code == 200


def test_what_is_required_is_asked_for_unless_a_profile_gives_it(lab: Lab, launch: Callable[..., Any]) -> None:
    assert "--word is missing." in told(launch(paramsText="times: 1"), 400)
    assert "--word is missing." in told(launch(paramsText=""), 400)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/tmp/x", "a b", "Hello", "-x", "a--b", "x" * 81, "a;ls", "$(id)", "a\n", "é", "a٣"])
def test_run_names_are_no_paths(launch: Callable[..., Any], name: str) -> None:
    assert told(launch(runName=name), 400)


def test_a_run_name_is_given_once(lab: Lab, ana: TestClient, bo: TestClient) -> None:
    lab.launched(runName="only_once")
    assert "only_once" in told(ana.post("/api/workflow/launch", json=launch_body(runName="only_once")), 409)
    assert bo.post("/api/workflow/launch", json=launch_body(runName="only_once")).status_code == 200


def test_a_name_is_given_once_to_launches_at_the_same_time(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: lab.client().post("/api/workflow/launch", json=launch_body(runName="racing")).status_code, range(8)))
    assert sorted(answers) == [200] + [409] * 7
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_what_cannot_be_launched(launch: Callable[..., Any]) -> None:
    assert "Unknown pipeline '/etc'" in told(launch(pipeline="/etc"), 400)
    assert "launch.pipeline is missing" in told(launch(pipeline=None), 400)
    assert "launch.pipeline is missing" in told(launch(pipeline=None, id="999999"), 400)
    assert "Unknown compute environment 'aws'" in told(launch(computeEnvId="aws"), 400)
    assert "no profile's name" in told(launch(configProfiles=["test; ls"]), 400)
    assert "no revision" in told(launch(revision="--upload-pack=x"), 400)
    assert "You have no label 999" in told(launch(labelIds=[999]), 400)


@pytest.mark.parametrize(
    "field",
    [{"configText": "process.executor = 'slurm'"}, {"preRunScript": "id"}, {"postRunScript": "id"}, {"towerConfig": "x: 1"}, {"mainScript": "other.nf"},
     {"entryName": "other"}, {"schemaName": "other.json"}, {"pullLatest": True}, {"userSecrets": ["x"]}, {"workspaceSecrets": ["x"]}],
)  # fmt: skip
def test_what_only_administrators_may_ask_for(lab: Lab, launch: Callable[..., Any], field: dict[str, Any]) -> None:
    assert f"Only an administrator's token may launch with {next(iter(field))}" in told(launch(**field), 400)


def test_profiles_and_revisions_of_administrators(launch: Callable[..., Any]) -> None:
    assert "profiles other than test, demo" in told(launch(configProfiles=["docker"]), 400)
    assert "another revision" in told(launch(revision="dev"), 400)


def test_anyone_may_launch_a_pipeline_with_what_it_was_registered_with(lab: Lab, ana: TestClient, admin: TestClient) -> None:
    """Clients copy GET /pipelines/{id}/launch into their own launch."""
    registered = {"pipeline": "nextflow-io/copied", "configText": "process.cpus = 1", "configProfiles": ["docker"], "preRunScript": "true"}
    pipeline_id = admin.post("/api/pipelines", json={"name": "copied", "launch": registered}).json()["pipeline"]["pipelineId"]
    launch = ana.get(f"/api/pipelines/{pipeline_id}/launch").json()["launch"]
    copied = {name: value for name, value in launch.items() if name != "computeEnv"} | {"computeEnvId": launch["computeEnv"]["id"]}
    answer = ana.post("/api/workflow/launch", json={"launch": copied})
    assert answer.status_code == 200, answer.text
    folder = lab.settings.data / "runs" / answer.json()["workflowId"]
    assert (folder / "user.config").read_text() == "process.cpus = 1"
    assert "configText" in told(ana.post("/api/workflow/launch", json={"launch": copied | {"configText": "process.cpus = 2"}}), 400)


@pytest.mark.parametrize("value", ["/etc/passwd", "file:///etc/passwd", "~/x", "../x", "x/../../y", "a,/etc/passwd", "$HOME/x", "data/runs"])
def test_local_files_are_not_reached_by_parameters(lab: Lab, launch: Callable[..., Any], value: str) -> None:
    value = str(lab.settings.data / "runs" / "x") if value == "data/runs" else value
    assert "outside the directories that you may use" in told(launch({"input": value}), 400)
    assert "outside the directories that you may use" in told(launch({"outdir": value}), 400)
    assert "outside the directories that you may use" in told(launch(outputDir=value), 400)


def test_the_work_directory_is_below_the_runs_own(lab: Lab, ana: TestClient) -> None:
    assert "outside the directories that you may use" in told(ana.post("/api/workflow/launch", json=launch_body(workDir="/tmp")), 400)
    shared = ana.get("/api/compute-envs/local").json()["computeEnv"]["workDir"]  # clients send it with every launch
    for given, kept in ((shared, "work"), ("mine", "mine"), ("s3://bucket/work", None)):
        workflow = ana.get(f"/api/workflow/{lab.launched(workDir=given)}").json()["workflow"]
        assert workflow["workDir"] == (f"{workflow['launchDir']}/{kept}" if kept else given)


def test_own_directories_and_allowed_ones_may_be_used(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "data", roots=str(tmp_path / "shared"))
    for place in (tmp_path / "shared" / "x", lab.settings.data / "users" / str(lab.user_id("ana")) / "x", "s3://bucket/x", "x/y"):
        lab.launched({"outdir": str(place)})
    foreign = lab.settings.data / "users" / str(lab.user_id("bo"))
    assert told(lab.client().post("/api/workflow/launch", json=launch_body({"outdir": str(foreign)})), 400)


def test_results_of_own_runs_may_be_named(lab: Lab, ana: TestClient, tmp_path: Path) -> None:
    mine, theirs = (lab.settings.data / "runs" / lab.ended(user) / "results" for user in ("ana", "bo"))
    mine.mkdir(parents=True)
    (mine / "link").symlink_to(tmp_path)
    lab.launched({"input": str(mine / "data")})
    for path in (theirs / "data", mine.parent / "params.json", mine / "link" / "x", mine / ".." / "launch"):
        assert "outside the directories that you may use" in told(ana.post("/api/workflow/launch", json=launch_body({"input": str(path)})), 400)


def test_resuming_what_cannot_be_resumed(lab: Lab, launch: Callable[..., Any], ana: TestClient) -> None:
    assert "needs the sessionId" in told(launch(resume=True), 400)
    assert "no run of session" in told(launch(resume=True, sessionId="nothing"), 400)


def test_resuming_one_that_never_started_or_still_goes(lab: Lab, ana: TestClient) -> None:
    workflow_id = lab.launched()
    session_id = ana.get(f"/api/workflow/{workflow_id}").json()["workflow"]["sessionId"]
    again = launch_body(resume=True, sessionId=session_id)
    assert "is SUBMITTED" in told(ana.post("/api/workflow/launch", json=again), 409)
    lab.change(workflow_id, status="CANCELLED")
    assert "never started" in told(ana.post("/api/workflow/launch", json=again), 400)


def test_ended_runs_are_not_cancelled_and_going_ones_not_deleted(lab: Lab, ana: TestClient) -> None:
    assert "has ended: it is SUCCEEDED" in told(ana.post(f"/api/workflow/{lab.ended()}/cancel", json={}), 409)
    assert "cancel it first" in told(ana.delete(f"/api/workflow/{lab.launched()}"), 409)


def test_queries_that_are_none(lab: Lab, ana: TestClient) -> None:
    workflow_id = lab.ended()
    for query in ({"max": 0}, {"max": 101}, {"offset": -1}, {"offset": 2**60}, {"max": "x"}, {"search": "x" * 201}):
        assert told(ana.get("/api/workflow", params=query), 400)
    for query in ({"sortBy": "password"}, {"sortDir": "up"}):
        assert told(ana.get(f"/api/workflow/{workflow_id}/tasks", params=query), 400)
    for query in ({"next": "x"}, {"next": "-1"}, {"maxLength": 0}):
        assert told(ana.get(f"/api/workflow/{workflow_id}/log", params=query), 400)


def test_a_full_queue(tmp_path: Path) -> None:
    lab = Lab(tmp_path, max_queued=1)
    first = lab.launched()
    assert "The queue is full" in told(lab.client().post("/api/workflow/launch", json=launch_body()), 409)
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [first]
    lab.change(first, status="CANCELLED")
    lab.launched()


def test_errors_name_no_secrets(lab: Lab, ana: TestClient) -> None:
    secret = lab.secrets["ana", "launch"]
    answers = [ana.post("/api/workflow/launch", json=launch_body(runName="../x")), ana.get("/api/nothing")]
    assert all(secret not in answer.text for answer in answers)
    workflow_id = lab.launched()
    assert secret not in json.dumps(ana.get(f"/api/workflow/{workflow_id}").json())
    assert str(PIPELINE) in ana.get(f"/api/workflow/{workflow_id}").text
