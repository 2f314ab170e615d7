"""What Nextflow writes, read as it grows: its log, its trace file, what it says on the console."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from launchpad import logs, trace
from launchpad.runner import error_message
from launchpad.store import Task

LOG = """\
Nov-22 11:14:16.249 [main] DEBUG nextflow.Session - Session UUID: 0135bb16-f727-44cf-9b0b-4bd866d8505b
Nov-22 11:14:16.250 [main] DEBUG nextflow.Session - Run name: loving_cantor
Nov-22 11:14:16.310 [main] DEBUG nextflow.cli.CmdRun -\x20
  Version: 25.04.4 build 5950
  Created: 16-06-2025 14:23 UTC\x20
Nov-22 11:14:22.738 [Task submitter] DEBUG n.executor.local.LocalTaskHandler - Launch cmd line: /bin/bash -ue .command.run
Nov-22 11:14:22.742 [Task submitter] INFO  nextflow.Session - [ab/05ea0d] Submitted process > INITIALISE:CHECK_PARAMS
Nov-22 11:14:24.708 [Task submitter] INFO  nextflow.Session - [94/86f758] Submitted process > LLAMAFLOW:PREPARE_DATA:COLLECT_SOURCE (pref)
Nov-22 04:37:06.746 [Actor Thread 11] INFO  nextflow.processor.TaskProcessor - [98/773ded] Cached process > LLAMAFLOW:TRAINING_GRID:FETCH_MODEL (tiny)
Nov-22 05:34:29.029 [TaskFinalizer-1] INFO  nextflow.processor.TaskProcessor - [1e/72198c] NOTE: Process `T` terminated with an error exit status (75) -- Execution is retried (1)
Nov-22 05:34:29.110 [Task submitter] INFO  nextflow.Session - [8b/c97f13] Re-submitted process > T
"""
# written with trace.raw: sizes in bytes, times in milliseconds
ROW = {
    "task_id": "3", "hash": "94/86f758", "native_id": "850", "process": "COLLECT_SOURCE", "tag": "pref", "name": "COLLECT_SOURCE (pref)", "status": "COMPLETED", "exit": "0",
    "attempt": "1", "submit": "1795346064708", "start": "1795346064794", "complete": "1795346066786", "duration": "2078", "realtime": "2000", "cpus": "2",
    "memory": "1000", "%cpu": "82.2", "peak_rss": "250", "workdir": "/w/94/86f758188e58", "error_action": "-", "read_bytes": "0",
}  # fmt: skip
REPORT = """\
ERROR ~ Error executing process > 'COLLECT'

Caused by:
  Process `COLLECT` terminated with an error exit status (3)


Command executed:

  exit 3

Command exit status:
  3

Command output:
  (empty)

Command error:
  there is no sugar left
  none at all

Work dir:
  /w/94/86f758
"""


def row(**values: str) -> str:
    return "\t".join((ROW | values).get(name, "-") for name in trace.FIELDS)


def task(name: str = "T", status: str = "COMPLETED", realtime: int | None = None, **measured: Any) -> Task:
    return Task(
        workflow_id="w",
        hash=f"ab/{name}{status}",
        task_id=1,
        status=status,
        name=name,
        process=name.split(" ", maxsplit=1)[0],
        realtime=realtime,
        measured=measured,
    )


def test_a_growing_file_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    assert trace.grown(file, 0) == ([], 0)
    file.write_bytes(b"one\ntwo\nth")
    assert trace.grown(file, 0) == (["one", "two"], 8)
    file.write_bytes(b"one\ntwo\nthr\xc3\xa9\xffe\n")
    assert trace.grown(file, 8) == (["thr\xe9\ufffde"], 16)
    assert trace.grown(file, 16) == ([], 16)


def test_a_file_that_has_grown_much_is_read_in_pieces(tmp_path: Path) -> None:
    file = tmp_path / "nextflow.log"
    file.write_text("line of a log\n" * 200_000 + "x" * 1_500_000 + "\nend\n")
    read, lines = 0, []
    while found := trace.grown(file, read)[0]:
        lines += found
        read = trace.grown(file, read)[1]
    assert (lines.count("line of a log"), lines[-1], read) == (200_000, "end", file.stat().st_size)


def test_the_log_tells_of_the_session_the_version_and_what_was_submitted() -> None:
    told = trace.told_by_log(LOG.splitlines())
    assert told.session_id == "0135bb16-f727-44cf-9b0b-4bd866d8505b"
    assert (told.nextflow or {})["version"] == "25.04.4"
    assert told.started == {"ab/05ea0d": "INITIALISE:CHECK_PARAMS", "94/86f758": "LLAMAFLOW:PREPARE_DATA:COLLECT_SOURCE (pref)", "8b/c97f13": "T"}


@pytest.mark.parametrize(("name", "parts"), [("A:B", ("A:B", None)), ("A:B (x)", ("A:B", "x")), ("T (a (b))", ("T", "a (b)"))])
def test_names_have_a_process_and_a_tag(name: str, parts: tuple[str, str | None]) -> None:
    assert trace.split_name(name) == parts


def test_rows_of_the_trace_file_are_tasks() -> None:
    (found,) = trace.tasks_in_trace("w", ["\t".join(trace.FIELDS), row(), "a line\tcut off", ""])
    assert (found.task_id, found.hash, found.status, found.exit, found.tag) == (3, "94/86f758", "COMPLETED", 0, "pref")
    assert (found.submit.isoformat() if found.submit else None) == "2026-11-22T11:14:24.708000"
    assert (found.realtime, found.measured["pcpu"], found.measured["nativeId"], found.measured["readBytes"]) == (2000, 82.2, "850", 0)
    assert "errorAction" not in found.measured


def test_values_that_are_missing_or_odd_are_left_out() -> None:
    (found,) = trace.tasks_in_trace("w", [row(exit="-", realtime="soon", tag="-", hash="-", **{"%cpu": "-"})])
    assert (found.exit, found.realtime, found.tag, found.hash) == (None, None, None, "#3")
    assert "pcpu" not in found.measured


def test_progress_counts_tasks_by_status_and_process() -> None:
    tasks = [
        task("A (1)", realtime=1000, cpus=2, pcpu=100.0, peakRss=300, memory=1000, readBytes=7),
        task("A (2)", "CACHED", realtime=9000, cpus=2, pcpu=100.0),
        task("A (3)", "RUNNING", cpus=4, memory=500),
        task("B", "FAILED", realtime=1000, cpus=2, pcpu=50.0, errorAction="RETRY"),
        task("B2", "FAILED", errorAction="IGNORE"),
        task("C", "ABORTED"),
        task("D", "SUBMITTED"),
    ]
    found = trace.progress_of(tasks)
    counted = found["workflow_progress"]
    assert [counted[name] for name in ("succeeded", "cached", "running", "submitted", "failed", "ignored", "aborted", "retries", "pending")] == [
        1,
        1,
        1,
        1,
        1,
        1,
        1,
        1,
        0,
    ]
    assert [counted[name] for name in ("cpuTime", "cpuLoad", "cpuEfficiency")] == [4000, 1500, 37.5]
    assert [counted[name] for name in ("memoryRss", "memoryReq", "memoryEfficiency", "readBytes")] == [300, 1000, 30.0, 7]
    assert [counted[name] for name in ("loadTasks", "loadCpus", "loadMemory")] == [2, 5, 500]
    assert [(process["process"], process["succeeded"]) for process in found["processes_progress"]] == [("A", 1), ("B", 0), ("B2", 0), ("C", 0), ("D", 0)]
    assert found["total_processes"] == 5
    assert trace.counters([])["cpuEfficiency"] == 0


def test_metrics_are_quartiles_with_the_tasks_that_are_nearest() -> None:
    tasks = [task(f"A ({number})", realtime=number * 1000, peakRss=number, memory=10, time=10_000) for number in (5, 1, 3, 2, 4)]
    (found,) = trace.metrics_of([*tasks, task("A (9)", "RUNNING", realtime=10**9)])
    assert [found["mem"][name] for name in ("min", "q1", "q2", "q3", "max", "mean")] == [1, 2, 3, 4, 5, 3]
    assert [found["mem"][f"{name}Label"] for name in ("min", "q2", "max")] == ["A (1)", "A (3)", "A (5)"]
    assert (found["memUsage"]["max"], found["timeUsage"]["q2"], found["time"]["max"]) == (50, 30, 5000)
    assert found["cpu"] is None
    assert trace.metrics_of([task(realtime=7)])[0]["time"]["q3"] == 7


def test_the_message_is_what_the_task_said() -> None:
    assert error_message(REPORT) == "there is no sugar left\nnone at all"
    assert error_message(REPORT.replace("Command error:", "Command wrapper:")) == "Process `COLLECT` terminated with an error exit status (3)"
    assert error_message("ERROR ~ No such variable: x\n\n -- Check '.nextflow.log'") == "No such variable: x"
    assert error_message(None) is None


class TestLogPages:
    """Logs in pages of whole lines."""

    def read(self, file: Path, begin: str | None = None, length: int = 12, *, pending: bool = True) -> tuple[list[str], str | None, bool]:
        found = logs.read(file, begin, length, [], pending=pending)
        return found.entries, found.forward_token, found.truncated

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "console.txt"
        file.write_bytes(b"one\ntwo\nthree\nfour\nfi")
        return file

    def test_the_first_page_is_the_end(self, file: Path) -> None:
        assert self.read(file) == (["four"], "19", True)
        assert self.read(file, length=1000) == (["one", "two", "three", "four"], "19", False)

    def test_from_page_to_page_nothing_is_lost_and_nothing_comes_twice(self, file: Path) -> None:
        assert self.read(file, "0") == (["one", "two"], "8", False)
        assert self.read(file, "8") == (["three", "four"], "19", False)

    def test_a_line_that_is_written_comes_when_it_is_whole_or_the_run_has_ended(self, file: Path) -> None:
        with file.open("ab") as stream:
            stream.write(b"ve\n")
        assert self.read(file, "19") == (["five"], "24", False)
        assert self.read(file, "24") == ([], "24", False)

    def test_the_last_line_of_an_ended_run_needs_no_end(self, file: Path) -> None:
        assert self.read(file, "19", pending=False) == (["fi"], "21", False)

    def test_half_a_line_is_not_given_while_it_is_written(self, file: Path) -> None:
        assert self.read(file, "19") == ([], "19", False)

    def test_a_line_longer_than_a_page_comes_in_pieces(self, tmp_path: Path) -> None:
        file = tmp_path / "long.txt"
        file.write_bytes(b"x" * 30 + b"\nend\n")
        read, entries = "0", []
        while (found := self.read(file, read, pending=False))[0]:
            entries += found[0]
            read = found[1] or ""
        assert "".join(entries) == "x" * 30 + "end"

    def test_positions_beyond_the_end_and_files_that_are_not_there(self, file: Path, tmp_path: Path) -> None:
        assert self.read(file, "999") == ([], "21", False)
        assert self.read(tmp_path / "none.txt", "7") == ([], "7", False)
        assert self.read(tmp_path / "none.txt") == ([], "0", False)


def test_peaks_are_the_most_that_ran_at_one_time() -> None:
    """The second begins when the first ends, the third beside it; one has not ended, one not begun, and what was cached took nothing."""

    def ran(name: str, start: int | None, complete: int | None, status: str = "COMPLETED", **measured: Any) -> Task:
        found = task(name, status, **measured)
        found.start, found.complete = (None if second is None else dt.datetime(2026, 11, 22, 11, 0, second) for second in (start, complete))
        return found

    tasks = [
        ran("A", 0, 10, cpus=4, memory=100),
        ran("B", 10, 20, cpus=1, memory=30),
        ran("C", 15, None, "RUNNING", cpus=2),
        ran("D", None, None, "SUBMITTED", cpus=64),
        ran("E", 0, 20, "CACHED", cpus=64),
    ]
    assert [trace.counters(tasks)[name] for name in ("peakCpus", "peakTasks", "peakMemory")] == [4, 2, 100]
    assert [trace.counters([])[name] for name in ("peakCpus", "peakTasks", "peakMemory")] == [0, 0, 0]
