"""The whole way: n8n launches real runs at a real launchpad, follows them, delivers what they made, and tells people.

All runs are launched at once, and n8n is killed a moment later.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from lab import ENDED, Server, wait_until
from listeners import Sink
from stand import INSTALLED, ROOT, N8n, dataset_version, launched, prepared
from tiny import write_model

from n8n_form import form_fields

pytestmark = [pytest.mark.n8n, pytest.mark.skipif(not INSTALLED.exists(), reason="n8n/setup was not run")]
KEY = {"X-Launch-Key": "only for tests"}
BUCKET = "releases"
STORAGE = {"accessKeyId": "testing", "secretAccessKey": "testing", "region": "us-east-1", "forcePathStyle": True}
Object = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny-model")


@pytest.fixture(scope="module")
def launchpad(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    """LlamaFlow with its test profile, and a pipeline that ends as it is told."""
    roots = f"{ROOT / 'assets/examples'}:{model.parent}"
    server = Server(tmp_path_factory.mktemp("launchpad"), pipeline=ROOT, roots=roots, max_running=5).start()
    with server.client(scope="admin") as admin:
        [known] = admin.get("/pipelines", params={"search": "llamaflow"}).json()["pipelines"]
        launch = {"pipeline": str(ROOT), "configProfiles": ["test"]}
        admin.put(f"/pipelines/{known['pipelineId']}", json={"name": "llamaflow", "launch": launch}).raise_for_status()
        admin.post("/pipelines", json={"name": "ending", "launch": {"pipeline": str(Path(__file__).parent / "pipeline")}}).raise_for_status()
    yield server
    server.end()


@pytest.fixture(scope="module")
def n8n(tmp_path_factory: pytest.TempPathFactory, launchpad: Server, sink: Sink, storage: str | None) -> Iterator[N8n]:
    n8n = N8n(tmp_path_factory.mktemp("n8n"))
    settings = {
        "api": f"http://127.0.0.1:{launchpad.port}/api",
        "run_page": f"http://127.0.0.1:{launchpad.port}/runs/{{id}}",
        "webhook_url": sink.address,
        "storage_bucket": BUCKET if storage else "",
        "longest_wait_seconds": 65,
    }
    credentials = [
        {"id": "seqera-platform", "name": "Seqera Platform", "type": "httpBearerAuth", "data": {"token": launchpad.secrets["ana", "launch"]}},
        {"id": "llamaflow-webhook", "name": "LlamaFlow webhook", "type": "httpHeaderAuth", "data": {"name": "X-Launch-Key", "value": KEY["X-Launch-Key"]}},
    ]
    if storage:
        credentials.append({"id": "llamaflow-storage", "name": "LlamaFlow storage", "type": "s3", "data": STORAGE | {"endpoint": storage}})
        httpx.put(f"{storage}/{BUCKET}").raise_for_status()
    n8n.load(prepared(settings, ["Webhook", *(["Store a file"] if storage else [])], {}), credentials)
    n8n.start()
    yield n8n
    n8n.kill()


def ended(launchpad: Server, workflow_id: str) -> Object:
    """The run when it has ended."""
    found: Object = wait_until(lambda: run if (run := launchpad.workflow(workflow_id))["status"] in ENDED else None, 600)
    return found


def launch(n8n: N8n, params: Any, pipeline: str = "") -> httpx.Response:
    return httpx.post(f"{n8n.address}/webhook/llamaflow/launch", params={"pipeline": pipeline}, json=params, headers=KEY, timeout=60)


@pytest.fixture(scope="module")
def runs(n8n: N8n, model: Path) -> dict[str, str]:
    """Ids of runs that were launched by the webhook, all at once."""
    whole = {"input": str(ROOT / "assets/examples/qa_en.jsonl"), "models": str(model), "techniques": "lora", "learning_rate": "3e-2"}
    whole |= {"num_train_epochs": "1", "max_length": "256", "gate_metric": "perplexity", "release_name": "from-n8n"}
    answers = {"whole": launch(n8n, whole)} | {ending: launch(n8n, {"ending": ending}, "ending") for ending in ("late", "lost", "bad")}
    for answer in answers.values():
        assert answer.status_code == 202, answer.text
    return {name: answer.json()["workflowId"] for name, answer in answers.items()}


def test_webhook_asks_for_its_key(n8n: N8n) -> None:
    assert httpx.post(f"{n8n.address}/webhook/llamaflow/launch", json={}).status_code == 403


def test_bad_parameters_get_the_messages_of_the_api(n8n: N8n) -> None:
    answer = launch(n8n, {"input": "https://example.org/a.csv", "models": "a/b", "max_eval_rows": 1, "leraning_rate": "1"})
    assert answer.status_code == 400
    assert "--max_eval_rows: 1 is too small; it must be at least 2." in answer.json()["message"]
    assert "did you mean --learning_rate?" in answer.json()["message"]
    assert len(answer.json()["errors"]) == 2


def test_a_list_of_parameters_is_refused(n8n: N8n) -> None:
    answer = launch(n8n, ["input"])
    assert answer.status_code == 400
    assert "must be a mapping" in answer.json()["message"]


def test_n8n_killed_in_the_first_seconds_of_runs_follows_them_all_the_same(n8n: N8n, runs: dict[str, str], launchpad: Server) -> None:
    """The tests below wait for what it tells of each of them."""
    wait_until(lambda: n8n.executions("waiting") == len(runs), 60)
    n8n.kill()
    assert launchpad.workflow(runs["late"])["status"] not in ENDED
    n8n.start()


def test_failing_run_reaches_people_with_its_reason(runs: dict[str, str], sink: Sink, launchpad: Server) -> None:
    run = ended(launchpad, runs["bad"])
    message = sink.message(run["runName"])
    assert message["title"] == "llamaflow-monitor failed"
    assert "the data cannot be used as it is" in message["text"]
    assert "It failed" in message["text"]


def test_lost_run_is_launched_again_and_goes_on(runs: dict[str, str], sink: Sink, launchpad: Server) -> None:
    first = ended(launchpad, runs["lost"])
    assert first["status"] == "FAILED"

    def second() -> Object | None:
        return next((run for run in launched(launchpad) if run["sessionId"] == first["sessionId"] and run["id"] != first["id"]), None)

    again = wait_until(second)
    assert again["resume"] is True
    assert ended(launchpad, again["id"])["status"] == "SUCCEEDED"
    message = sink.message(again["runName"])
    assert message["title"] == f"{again['runName']} ended without a release"
    assert "1. base-tiny: rouge_l 0.25" in message["text"]


def test_form_launches_and_a_cancelled_run_is_told(n8n: N8n, launchpad: Server, sink: Sink, model: Path) -> None:
    labels = [field["fieldLabel"] for field in form_fields(json.loads((ROOT / "nextflow_schema.json").read_text()))]
    given = {"input": str(ROOT / "assets/examples/qa_en.jsonl"), "models": str(model), "techniques": '["lora","dora"]', "gate_min_gain": "0.5"}
    filled = {f"field-{at}": (None, given[name]) for at, label in enumerate(labels) if (name := re.split("[ :]", label)[0]) in given}
    assert httpx.post(f"{n8n.address}/form/llamaflow-launch", files=filled, timeout=60).is_success

    run = wait_until(lambda: next((run for run in launched(launchpad) if run["params"].get("techniques") == "lora,dora"), None), 60)
    assert run["params"]["gate_min_gain"] == 0.5
    assert "learning_rate" not in run["params"]
    with launchpad.client() as client:
        client.post(f"/workflow/{run['id']}/cancel", json={}).raise_for_status()
    assert sink.message(f"Run {run['runName']} was cancelled")


def test_uploaded_file_becomes_a_dataset_and_nothing_is_taken_twice(n8n: N8n, launchpad: Server) -> None:
    rows = [["question", "answer"], ["Which form?", "F-2, in blue"], ["When?", "On Monday"]]
    for version, given in ((1, rows[:2]), (2, rows)):
        text = "\n".join(f'"{question}","{answer}"' for question, answer in given)
        answer = httpx.post(f"{n8n.address}/form/llamaflow-collect", files={"field-0": ("faq.csv", text, "text/csv")}, timeout=60)
        assert wait_until(lambda version=version: dataset_version(launchpad, "collected", version), 60) == given
    # one press launches a run with it: a link opens the form with the dataset's address in its first field
    page = wait_until(lambda: shown if "Launch a run" in (shown := httpx.get(answer.json()["formWaitingUrl"]).text) else None, 60)
    assert "2 records are in the dataset" in page
    form = httpx.get(html.unescape(page.split('href="')[-1].split('"')[0]))
    assert re.search(rf'value="http://127.0.0.1:{launchpad.port}/api/datasets/\w+/v/2/n/records.csv"', html.unescape(form.text))


def test_run_that_takes_longer_than_a_wait_is_followed(runs: dict[str, str], sink: Sink, launchpad: Server) -> None:
    assert sink.message(launchpad.workflow(runs["late"])["runName"])["title"].endswith("ended without a release")


def test_whole_way_to_a_released_model(runs: dict[str, str], sink: Sink, launchpad: Server) -> None:
    run = ended(launchpad, runs["whole"])
    assert run["status"] == "SUCCEEDED", run["errorReport"]
    message = sink.message(f"{run['runName']} made release/from-n8n/")
    assert "is better than its base" in message["text"]
    assert "\n1. tiny-model-lora" in message["text"]
    with launchpad.client() as client:
        report = client.get(message["text"].split("Report: ")[1].split("\n")[0])
    assert "Learning curves" in report.text


def test_release_is_in_the_storage(runs: dict[str, str], sink: Sink, launchpad: Server, storage: str | None) -> None:
    if storage is None:
        pytest.skip("moto is not installed: there is no S3 server to copy to")
    run = ended(launchpad, runs["whole"])
    sink.message(f"{run['runName']} made release/from-n8n/")
    with launchpad.client() as client:
        index = client.get(f"/workflow/{run['id']}").json()["results"]
    released = [file for file in index["files"] if file["path"].startswith(index["release"])]
    assert any(file["path"].endswith(".safetensors") for file in released)
    names = {
        "endpoint_url": storage,
        "region_name": STORAGE["region"],
        "aws_access_key_id": STORAGE["accessKeyId"],
        "aws_secret_access_key": STORAGE["secretAccessKey"],
    }
    bucket = boto3.client("s3", **names)
    stored = {entry["Key"]: entry["Size"] for entry in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert stored == {f"llamaflow/{file['path']}": file["bytes"] for file in released}
    bucket.close()
