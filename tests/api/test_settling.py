"""How the launchpad settles runs by what it finds in their folders, whatever has happened in between."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

from launchpad.folders import RunFolder
from launchpad.runner import WRAPPER, Runner
from launchpad.trace import FIELDS

ROW = {"task_id": "1", "hash": "ab/000001", "name": "GREET", "process": "GREET", "status": "COMPLETED", "exit": "0", "attempt": "1", "realtime": "5"}


@pytest.fixture
def alone(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def looked(lab: Lab, workflow_id: str) -> dict[str, Any]:
    """The run after one look of the runner, whose thread is not started."""
    runner: Runner = lab.app.state.runner
    runner.look()
    found: dict[str, Any] = lab.client().get(f"/api/workflow/{workflow_id}").json()["workflow"]
    return found


def row(**values: str) -> str:
    return "\t".join((ROW | values).get(name, "-") for name in FIELDS) + "\n"


def test_a_run_that_ended_while_nobody_looked_is_read_to_its_end(alone: Lab) -> None:
    """More than is read in one go."""
    workflow_id = alone.launched()
    folder = RunFolder(alone.settings, workflow_id)
    folder.trace.write_text("".join(row(task_id=str(number), hash=f"ab/{number:06d}", name="x" * 1000) for number in range(1, 1201)))
    folder.lock.touch()
    folder.exit.write_text("0\n")
    workflow = looked(alone, workflow_id)
    assert (workflow["status"], workflow["stats"]["succeedCount"]) == ("SUCCEEDED", 1200)


def test_a_task_keeps_its_number(alone: Lab) -> None:
    """Nextflow's own is known when a task has ended; clients ask by the number that they were told before."""
    workflow_id = alone.launched()
    folder = RunFolder(alone.settings, workflow_id)
    lock = folder.take_lock()
    assert lock is not None

    def tasks() -> dict[str, int]:
        looked(alone, workflow_id)
        return {entry["task"]["name"]: entry["task"]["taskId"] for entry in alone.client().get(f"/api/workflow/{workflow_id}/tasks").json()["tasks"]}

    submitted = "Nov-22 11:14:22.742 [Task submitter] INFO  nextflow.Session - [ab/{:06d}] Submitted process > {}\n"
    with lock:
        folder.log.write_text(submitted.format(7, "SLOW") + submitted.format(8, "QUICK"))
        assert tasks() == {"SLOW": 1, "QUICK": 2}
        folder.trace.write_text(row(task_id="1", hash="ab/000008", name="QUICK") + row(task_id="9", hash="ab/000009", name="CACHED", status="CACHED"))
        assert tasks() == {"SLOW": 1, "QUICK": 2, "CACHED": 3}
        sent = {"taskId": 1, "hash": "ab/000010", "name": "TOLD", "status": "RUNNING"}
        assert alone.client().put(f"/api/trace/{workflow_id}/progress", json={"tasks": [sent, sent | {"hash": "ab/000007", "name": "SLOW"}]}).status_code == 200
        assert tasks() == {"SLOW": 1, "QUICK": 2, "CACHED": 3, "TOLD": 4}
    assert alone.client().get(f"/api/workflow/{workflow_id}/task/2").json()["task"]["name"] == "QUICK"


def test_a_run_whose_start_was_cut_off_by_a_kill_is_not_started_twice(alone: Lab) -> None:
    workflow_id = alone.launched()
    RunFolder(alone.settings, workflow_id).lock.touch()
    workflow = looked(alone, workflow_id)
    assert (workflow["status"], "Resume" in workflow["errorMessage"]) == ("FAILED", True)


def test_a_run_that_lives_is_left_alone(alone: Lab) -> None:
    """Its lock is held by its processes, here by the test."""
    workflow_id = alone.launched()
    folder = RunFolder(alone.settings, workflow_id)
    lock = folder.take_lock()
    assert lock is not None
    with lock:
        folder.trace.write_text(row())
        assert [looked(alone, workflow_id)["status"] for _ in range(2)] == ["RUNNING", "RUNNING"]
        assert folder.group() is None
    assert looked(alone, workflow_id)["status"] == "FAILED"


@pytest.mark.parametrize(
    ("status", "said"), [("1", "No such variable"), ("137", "Nextflow was killed"), ("", "Nextflow was killed"), ("x", "Nextflow was killed")]
)
def test_a_failed_run_says_what_is_known(alone: Lab, status: str, said: str) -> None:
    workflow_id = alone.launched()
    folder = RunFolder(alone.settings, workflow_id)
    folder.lock.touch()
    folder.exit.write_text(status)
    folder.console.write_text("N E X T F L O W  ~  version 25.04.4\n\nERROR ~ No such variable: x\n\n -- Check script\n")
    workflow = looked(alone, workflow_id)
    assert (workflow["status"], said in workflow["errorMessage"]) == ("FAILED", True)


def test_a_queued_run_is_cancelled_without_being_started(alone: Lab) -> None:
    workflow_id = alone.launched()
    assert alone.client().post(f"/api/workflow/{workflow_id}/cancel", json={}).status_code == 204
    workflow = looked(alone, workflow_id)
    assert (workflow["status"], workflow["start"], workflow["complete"] >= workflow["submit"]) == ("CANCELLED", None, True)
    assert not RunFolder(alone.settings, workflow_id).lock.exists()


def test_what_a_cancel_has_ended_did_not_fail(alone: Lab) -> None:
    """Tasks get the signal too; Nextflow may have noted one's exit status when it ends itself."""
    workflow_id = alone.launched()
    folder = RunFolder(alone.settings, workflow_id)
    lock = folder.take_lock()
    assert lock is not None
    with lock:
        looked(alone, workflow_id)
        before = int(time.time() * 1000) - 1
        assert alone.client().post(f"/api/workflow/{workflow_id}/cancel", json={}).status_code == 204
        failed = {"status": "FAILED", "exit": "143"}
        folder.trace.write_text(row(complete=str(before), **failed) + row(task_id="2", hash="ab/000002", complete=str(before + 5000), **failed))
        folder.exit.write_text("143\n")
    workflow = looked(alone, workflow_id)
    tasks = alone.client().get(f"/api/workflow/{workflow_id}/tasks").json()["tasks"]
    assert (workflow["status"], sorted(entry["task"]["status"] for entry in tasks)) == ("CANCELLED", ["ABORTED", "FAILED"])


def test_a_run_that_cannot_be_started_fails_and_keeps_no_other_from_it(alone: Lab) -> None:
    first, second = alone.launched(), alone.launched()
    folder = RunFolder(alone.settings, first)
    folder.launch_dir.rmdir()
    RunFolder(alone.settings, second).lock.touch()  # the test starts no Nextflow
    workflow = looked(alone, first)
    assert (workflow["status"], "could not be started" in workflow["errorMessage"]) == ("FAILED", True)
    assert alone.client().get(f"/api/workflow/{second}").json()["workflow"]["status"] == "FAILED"


@pytest.mark.parametrize(
    "left", ["", "sh -c 'trap \"echo saved > saved; exit\" TERM; touch waits; while :; do sleep 0.1; done' & until [ -e waits ]; do sleep 0.1; done;"]
)
def test_a_failed_run_ends_as_soon_as_its_tasks_have(tmp_path: Path, left: str) -> None:
    """They are let save what they have; it does not wait out the 20 seconds that they may take."""
    done = subprocess.run(["sh", WRAPPER, tmp_path, "sh", "-c", f"{left} exit 3"], cwd=tmp_path, start_new_session=True, timeout=15, check=False)
    assert (done.returncode, (tmp_path / "exit").read_text(), (tmp_path / "saved").exists()) == (0, "3\n", bool(left))
