"""Who may do what: tokens, scopes, workspaces, and that nobody reaches what is another's."""

from __future__ import annotations

import base64
import datetime as dt
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from lab import Lab, launch_body

from launchpad.auth import COOKIE
from launchpad.store import Token, now

OPEN = {("GET", "/api/service-info")}
OWN_TOKENS = {("POST", "/api/tokens"), ("DELETE", "/api/tokens/{tokenId}")}  # what a reader may change


def filled(path: str) -> str:
    return re.sub("{[^}]*}", "1", path)


def test_nothing_is_answered_without_a_token(lab: Lab) -> None:
    nobody = TestClient(lab.app)
    answers = {(method, path): nobody.request(method, filled(path)) for method, path, _ in lab.operations() if (method, path) not in OPEN}
    assert {call: answer.status_code for call, answer in answers.items() if answer.status_code != 401} == {}
    assert {answer.content for answer in answers.values()} == {b""}


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer wrong", "Bearer lfp_", "Basic", "Basic %%%", "Basic \xe9", f"Basic {base64.b64encode(b'no-colon').decode()}",
     f"Basic {base64.b64encode(bytes([255, 254])).decode()}", "Digest x", "lfp_"],
)  # fmt: skip
def test_unknown_tokens_are_refused(lab: Lab, header: str) -> None:
    answer = TestClient(lab.app).get("/api/user-info", headers=[(b"Authorization", header.encode("latin-1"))])
    assert (answer.status_code, answer.content) == (401, b"")


def test_tokens_come_as_bearer_or_as_nf_tower_sends_them(lab: Lab) -> None:
    secret = lab.secrets["ana", "read"]

    def status(header: str) -> int:
        return TestClient(lab.app).get("/api/user-info", headers={"Authorization": header}).status_code

    def basic(user: str) -> str:
        return f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"

    assert status(f"Bearer {secret}") == status(f"bearer {secret}") == status(basic("@token")) == 200
    assert status(basic("ana")) == status(f"Bearer {secret}x") == 401


def test_the_cookie_of_the_pages_is_of_no_use_to_other_sites(lab: Lab) -> None:
    """Other ports of one machine are the same site to a browser, which sends them the cookie."""
    browser = TestClient(lab.app, base_url="http://127.0.0.1:8000", cookies={COOKIE: lab.secrets["ana", "launch"]})
    for origin, status in (("http://127.0.0.1:8000", 200), ("http://127.0.0.1:5678", 401), ("null", 401)):
        assert browser.get("/api/user-info", headers={"Origin": origin}).status_code == status


def test_a_token_expires(lab: Lab, ana: TestClient) -> None:
    made = ana.post("/api/tokens", json={"name": "short", "days": 1}).json()
    short = TestClient(lab.app, headers={"Authorization": f"Bearer {made['accessKey']}"})
    assert short.get("/api/user-info").status_code == 200
    with lab.sessions() as session:
        session.get_one(Token, made["token"]["id"]).expires = now() - dt.timedelta(seconds=1)
        session.commit()
    assert (short.get("/api/user-info").status_code, short.get("/api/user-info").content) == (401, b"")


def test_no_token_makes_one_that_is_good_for_longer(lab: Lab, ana: TestClient) -> None:
    short = ana.post("/api/tokens", json={"name": "week", "days": 7}).json()
    client = TestClient(lab.app, headers={"Authorization": f"Bearer {short['accessKey']}"})
    for days, expires in ((None, short["token"]["expires"]), (30, short["token"]["expires"])):
        assert client.post("/api/tokens", json={"name": "longer", "days": days}).json()["token"]["expires"] == expires


def test_a_token_is_revoked_by_its_owner_alone(lab: Lab, ana: TestClient, bo: TestClient) -> None:
    made = ana.post("/api/tokens", json={"name": "gone"}).json()
    address = f"/api/tokens/{made['token']['id']}"
    assert bo.delete(address).status_code == 403
    assert ana.delete(address).status_code == 204
    assert TestClient(lab.app, headers={"Authorization": f"Bearer {made['accessKey']}"}).get("/api/user-info").status_code == 401


def test_no_token_makes_or_revokes_one_that_may_do_more(lab: Lab, reader: TestClient, ana: TestClient) -> None:
    assert reader.post("/api/tokens", json={"name": "more", "scope": "launch"}).status_code == 403
    assert ana.post("/api/tokens", json={"name": "more", "scope": "admin"}).status_code == 403
    assert reader.post("/api/tokens", json={"name": "same"}).json()["token"]["scope"] == "read"
    (of_admin,) = [token["id"] for token in ana.get("/api/tokens").json()["tokens"] if token["scope"] == "admin"]
    assert ana.delete(f"/api/tokens/{of_admin}").status_code == 403


def test_who_may_read_changes_nothing(lab: Lab, reader: TestClient) -> None:
    calls = [(method, path) for method, path, _ in lab.operations() if method != "GET" and (method, path) not in OWN_TOKENS]
    answers = {call: reader.request(call[0], filled(call[1]), json={}) for call in calls}
    assert len(calls) > 15
    assert {call: answer.status_code for call, answer in answers.items() if answer.status_code != 403 or answer.content} == {}


def test_pipelines_are_changed_by_administrators_alone(ana: TestClient) -> None:
    body = {"name": "mine", "launch": {"pipeline": "/etc"}}
    assert [
        ana.post("/api/pipelines", json=body).status_code,
        ana.put("/api/pipelines/1", json=body).status_code,
        ana.delete("/api/pipelines/1").status_code,
    ] == [403] * 3


def test_a_foreign_workspace_is_refused_everywhere(lab: Lab) -> None:
    admin, foreign = lab.client("ana", "admin"), lab.user_id("bo")
    calls = [(method, path) for method, path, _ in lab.operations() if (method, path) not in OPEN]
    answers = {call: admin.request(call[0], filled(call[1]), params={"workspaceId": foreign}, json={}) for call in calls}
    assert {call: answer.status_code for call, answer in answers.items() if answer.status_code != 403 or answer.content} == {}


def test_the_own_workspace_may_be_named(lab: Lab, ana: TestClient) -> None:
    for path in ("/workflow", "/pipelines", "/datasets", "/actions", "/labels", "/tokens", "/compute-envs"):
        assert ana.get(f"/api{path}", params={"workspaceId": lab.user_id("ana")}).status_code == 200
    assert ana.get("/api/workflow", params={"workspaceId": "blue"}).status_code == 400


def test_runs_are_their_owners_alone(lab: Lab) -> None:
    workflow_id = lab.ended("bo")
    admin = lab.client("ana", "admin")
    calls = [(method, path) for method, path, _ in lab.operations() if "{workflowId}" in path]
    answers = {
        call: admin.request(call[0], filled(call[1].replace("{workflowId}", workflow_id)), params={"fileName": "nextflow.log"}, json={}) for call in calls
    }
    assert len(calls) > 12
    assert {call: answer.status_code for call, answer in answers.items() if answer.status_code != 403 or answer.content} == {}
    assert lab.client("bo").get(f"/api/workflow/{workflow_id}").status_code == 200
    assert workflow_id not in admin.get("/api/workflow").text


def test_datasets_are_their_owners_alone(lab: Lab, ana: TestClient) -> None:
    bo = lab.client("bo")
    dataset = bo.post("/api/datasets", json={"name": "secret"}).json()["dataset"]
    url = bo.post(f"/api/datasets/{dataset['id']}/upload", files={"file": ("rows.csv", b"a\n")}).json()["version"]["url"]
    for method, path in (("GET", url), ("GET", f"/api/datasets/{dataset['id']}/versions"), ("DELETE", f"/api/datasets/{dataset['id']}")):
        assert ana.request(method, path).status_code == 403
    assert ana.post(f"/api/datasets/{dataset['id']}/upload", files={"file": ("rows.csv", b"b\n")}).status_code == 403
    taken = ana.post("/api/workflow/launch", json=launch_body({"input": url}))
    assert (taken.status_code, "no dataset of that address" in taken.json()["message"]) == (400, True)
    assert dataset["id"] not in ana.get("/api/datasets").text


def test_a_foreign_session_is_not_resumed(lab: Lab, ana: TestClient) -> None:
    session_id = lab.client("bo").get(f"/api/workflow/{lab.ended('bo')}").json()["workflow"]["sessionId"]
    answer = ana.post("/api/workflow/launch", json=launch_body(resume=True, sessionId=session_id))
    assert (answer.status_code, "no run of session" in answer.json()["message"]) == (400, True)


def test_a_run_that_was_only_reported_reaches_no_files(lab: Lab, ana: TestClient) -> None:
    """What a client reports of a run, directories among it, is never a reason to read or remove files here."""
    victim = lab.launched()
    folder = lab.settings.data / "runs" / victim
    for sent in (str(folder), str(folder / "launch"), str(lab.settings.data / "runs" / ".." / "runs" / "x")):
        reported = ana.post("/api/trace/create", json={"runName": "elsewhere", "sessionId": "s"}).json()["workflowId"]
        task = {"taskId": 1, "status": "COMPLETED", "name": "T", "hash": "ab/cdef01", "workdir": str(folder)}
        (folder / ".command.log").write_text("secret\n")
        assert (
            ana.put(f"/api/trace/{reported}/begin", json={"workflow": {"launchDir": sent, "workDir": str(folder), "outputDir": str(folder)}}).status_code == 200
        )
        assert ana.put(f"/api/trace/{reported}/progress", json={"tasks": [task]}).status_code == 200
        assert ana.put(f"/api/trace/{reported}/complete", json={"workflow": {"success": True}}).status_code == 200
        assert "secret" not in ana.get(f"/api/workflow/{reported}/log/1").text
        assert ana.get(f"/api/workflow/{reported}/download", params={"fileName": "params.json"}).status_code == 403
        assert ana.delete(f"/api/workflow/{reported}").status_code == 204
        assert Path(folder, "params.json").exists()
