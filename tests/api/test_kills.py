"""What is killed in the middle, the service or Nextflow, loses no run and leaves none stuck."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Server, processes, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A service of the test's own."""
    server = Server(tmp_path, max_running=2, grace=5).start()
    yield server
    server.end()


def test_a_killed_service_finds_its_runs_again(own: Server) -> None:
    """One goes on all the while, one ends while the service is gone, one still waits for its turn."""
    long, short, queued = own.launched({"seconds": 20}), own.launched({"seconds": 4}), own.launched({"times": 1})
    for workflow_id in (long, short):
        own.wait_for_last_task(workflow_id)
    own.kill()
    ended = own.folder(short) / "exit"
    wait_until(ended.exists)
    own.start()
    restarted = own.process
    assert own.workflow(long)["status"] == "RUNNING"
    settled = own.followed(short)
    assert settled["status"] == "SUCCEEDED"
    assert settled["complete"] == utc(ended.stat().st_mtime)
    assert own.tasks(short)["COLLECT"]["status"] == "COMPLETED"
    for workflow_id in (long, queued):
        workflow = own.followed(workflow_id)
        assert (workflow["status"], workflow["stats"]["failedCount"], workflow["start"] < workflow["complete"]) == ("SUCCEEDED", 0, True)
    assert restarted.poll() is None


def utc(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_killed_nextflow_is_a_failed_run_without_leftovers(own: Server) -> None:
    """Nextflow alone is killed, and all of a run at once as when the machine runs out of memory."""
    alone, all_of_it = own.launched({"seconds": 300}), own.launched({"seconds": 300})
    for workflow_id in (alone, all_of_it):
        own.wait_for_last_task(workflow_id)
    for pid, line in processes(own.folder(alone)).items():
        if "nextflow.cli.Launcher" in line:
            os.kill(pid, signal.SIGKILL)
    os.killpg(own.group(all_of_it), signal.SIGKILL)
    for workflow_id, said in ((alone, "Nextflow"), (all_of_it, "killed")):
        workflow = own.followed(workflow_id)
        assert (workflow["status"], workflow["success"]) == ("FAILED", False)
        assert said in workflow["errorMessage"]
        assert own.tasks(workflow_id)["COLLECT"]["status"] == "ABORTED"
    wait_until(lambda: processes(own.data) == {}, 60)


def test_a_second_service_in_the_same_directory_is_refused(own: Server) -> None:
    second = subprocess.run([sys.executable, "-m", "launchpad.cli", "serve"], env=own.environment, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode not in {0, None}
    assert "another launchpad works in" in second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    assert own.answers()


def test_a_service_that_is_stopped_lets_its_runs_go_on(own: Server) -> None:
    workflow_id = own.launched({"seconds": 5})
    own.wait_for_last_task(workflow_id)
    own.process.terminate()
    assert own.process.wait() in {0, -signal.SIGTERM}
    own.start()
    assert own.followed(workflow_id)["status"] == "SUCCEEDED"
