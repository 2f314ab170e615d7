"""Files that are broken, out of bounds, or cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from full_disk import no_room_beyond
from lab import Lab, launch_body, told


def test_broken_files_of_pipelines_and_runs(lab: Lab, admin: TestClient, tmp_path: Path) -> None:
    for number, text in enumerate(("{", "[]", '{"type": 7}', "\udcff")):
        (tmp_path / "nextflow_schema.json").write_bytes(text.encode(errors="surrogateescape"))
        answer = admin.post("/api/workflow/launch", json={"launch": {"pipeline": str(tmp_path)}})
        assert "nextflow_schema.json" in told(answer, 400), number
    results = tmp_path / "results"
    results.mkdir()
    workflow_id = lab.ended(output_dir=str(results))
    for text in ("{", "[]", "\udcff"):
        (results / "index.json").write_bytes(text.encode(errors="surrogateescape"))
        assert admin.get(f"/api/workflow/{workflow_id}").json()["results"] is None


def test_files_of_results_stay_in_their_folder(lab: Lab, ana: TestClient, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "index.json").write_text("{}")
    (tmp_path / "secret.txt").write_text("secret")
    (results / "link.txt").symlink_to(tmp_path / "secret.txt")
    workflow_id = lab.ended(output_dir=str(results))

    def status(name: str) -> int:
        code: int = ana.get(f"/api/workflow/{workflow_id}/download", params={"fileName": name}).status_code
        return code

    assert status("index.json") == status("./index.json") == 200
    for name in ("../secret.txt", str(tmp_path / "secret.txt"), "link.txt", "x/../../secret.txt", ".", "missing", "a\x00b", "x" * 500):
        assert status(name) == 403


@pytest.mark.parametrize("size", [0, 10, 20_000])
def test_a_launch_on_a_full_disk(tmp_path: Path, size: int) -> None:
    """First the run's files cannot be written, then only the database."""
    lab = Lab(tmp_path)
    ana = lab.client()
    ana.get("/api/workflow")  # when the token was last used is written once a minute
    with no_room_beyond(size):
        answer = ana.post("/api/workflow/launch", json=launch_body())
    assert "cannot write" in told(answer, 507)
    assert ana.get("/api/workflow").json()["totalSize"] == 0
    assert list((tmp_path / "runs").iterdir()) == []
    lab.launched()


def test_an_upload_on_a_full_disk(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    ana = lab.client()
    address = f"/api/datasets/{ana.post('/api/datasets', json={'name': 'rows'}).json()['dataset']['id']}"
    with no_room_beyond(100_000):
        answer = ana.post(f"{address}/upload", files={"file": ("x.csv", b"a\n" * 100_000)})
    assert "cannot write" in told(answer, 507)
    assert ana.get(f"{address}/versions").json() == {"versions": []}
    assert [path for path in (tmp_path / "datasets").rglob("*") if path.is_file()] == []
    assert ana.post(f"{address}/upload", files={"file": ("x.csv", b"a\n")}).json()["version"]["version"] == 1
