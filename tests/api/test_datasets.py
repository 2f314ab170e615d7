"""Datasets and uploads that clients get wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from lab import Lab, launch_body, told

from launchpad.params import MOST_FAULTS


@pytest.mark.parametrize(
    "url", ["/api/datasets/xyz/v/1/n/a.csv", "http://testserver/api/datasets/xyz/v/1/n/..%2f..%2fa.csv", "/api/datasets/xyz/v/999999999/n/a.csv"]
)
def test_datasets_that_are_not_there(launch: Callable[..., Any], url: str) -> None:
    assert "no dataset of that address" in told(launch({"input": url}), 400)


@pytest.mark.parametrize(
    "name", ["../../x.csv", "/etc/x.csv", "..", "a/b.csv", "a\\b.csv", ".hidden.csv", "x.exe", "x", "é.csv", "a\x00.csv", "x" * 300 + ".csv"]
)
def test_datasets_have_plain_file_names(lab: Lab, ana: TestClient, name: str) -> None:
    made = ana.post("/api/datasets", json={"name": f"d{abs(hash(name))}"}).json()["dataset"]
    before = lab.files()
    assert told(ana.post(f"/api/datasets/{made['id']}/upload", files={"file": (name, b"a\n")}), 400)
    assert lab.files() == before
    assert ana.get(f"/api/datasets/{made['id']}/versions").json() == {"versions": []}


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x" * 101, "é", "a b"])
def test_datasets_have_plain_names(ana: TestClient, name: str) -> None:
    assert told(ana.post("/api/datasets", json={"name": name}), 400)


def test_uploads_that_are_none(lab: Lab, ana: TestClient) -> None:
    address = f"/api/datasets/{ana.post('/api/datasets', json={'name': 'uploads'}).json()['dataset']['id']}/upload"
    assert "'x.csv' is empty" in told(ana.post(address, files={"file": ("x.csv", b"")}), 400)
    assert told(ana.post(address, json={}), 400)
    assert told(ana.post(address, files={"other": ("x.csv", b"a")}), 400)
    assert told(ana.post(address, content=b"junk", headers={"Content-Type": "multipart/form-data; boundary=x"}), 400)


def test_uploads_at_the_same_time_are_versions_of_their_own(lab: Lab, ana: TestClient) -> None:
    dataset_id = ana.post("/api/datasets", json={"name": "at_once"}).json()["dataset"]["id"]

    def upload(number: int) -> Any:
        return lab.client().post(f"/api/datasets/{dataset_id}/upload", files={"file": ("x.csv", b"a\n%d\n" % number)})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(upload, range(6)))
    done = [answer.json()["version"] for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert [version["version"] for version in ana.get(f"/api/datasets/{dataset_id}/versions").json()["versions"]] == sorted(
        version["version"] for version in done
    )
    assert len({ana.get(version["url"]).content for version in done}) == len(done)


def test_an_upload_that_was_cut_off_by_a_kill_is_not_in_the_way(lab: Lab, ana: TestClient) -> None:
    dataset_id = ana.post("/api/datasets", json={"name": "cut_off"}).json()["dataset"]["id"]
    left = lab.settings.data / "datasets" / dataset_id / "1"
    left.mkdir(parents=True)
    (left / "x.csv.part").write_text("a")
    assert ana.post(f"/api/datasets/{dataset_id}/upload", files={"file": ("x.csv", b"a\n")}).status_code == 200


def test_samplesheets_name_no_foreign_files(lab: Lab, ana: TestClient, admin: TestClient) -> None:
    """A table with the columns id and path is one: a run would read what it names."""
    dataset_id = ana.post("/api/datasets", json={"name": "samplesheet"}).json()["dataset"]["id"]

    def launched(table: str, name: str = "samples.csv") -> Any:
        version = ana.post(f"/api/datasets/{dataset_id}/upload", files={"file": (name, table.encode())}).json()["version"]
        return ana.post("/api/workflow/launch", json=launch_body({"input": version["url"]}))

    assert launched("id,path\na,https://host/a.csv\nb,s3://bucket/b.csv\nc,postgresql://reader@host/tickets\n").status_code == 200
    for table in ("id,path\na,/etc/passwd\n", "\ufeffid,path\na,../../x\n", 'id,path\na,"/etc/passwd"\n', "path,id,note\nfile:///etc/passwd,a,x\n"):
        assert "outside the directories that you may use" in told(launched(table), 400)
    for table in ("id\tpath\na\t/etc/passwd\n", "id,path\na,/etc/passwd\n"):
        assert "/etc/passwd is outside" in told(launched(table, "samples.tsv"), 400)
    assert "cannot be read as a table" in told(launched("id,path\na," + "x" * 200_000 + "\n"), 400)
    assert launched("id,path\n").status_code == launched("\x00\xff\n").status_code == 200


@pytest.mark.parametrize(
    "table",
    ["id, path\na, /etc/passwd\n", " id ,\"path\"\na,/etc/passwd\n", "path,id,note\n/etc/passwd,a\n", "id,path\na,/etc/passwd,more\n", "id,path,path\na,x.csv,/etc/passwd\n",
     "id,path\na,FILE:/etc/passwd\n", "id,path\na,local:///etc/passwd\n", "id,path\na,simplecache::/etc/passwd\n", "id,path\n" + "a,/etc/passwd\n" * 10_000],
)  # fmt: skip
def test_samplesheets_that_a_pipeline_reads_in_another_way(lab: Lab, ana: TestClient, table: str) -> None:
    """As LlamaFlow does: spaces around names and fields, and rows with fewer fields, are no fault; of columns of one name the last counts."""
    dataset_id = ana.post("/api/datasets", json={"name": f"sheet{abs(hash(table))}"}).json()["dataset"]["id"]
    version = ana.post(f"/api/datasets/{dataset_id}/upload", files={"file": ("samples.csv", table.encode())}).json()["version"]
    answer = ana.post("/api/workflow/launch", json=launch_body({"input": version["url"]}))
    assert "outside the directories that you may use" in told(answer, 400)
    assert len(answer.json()["errors"]) <= MOST_FAULTS
