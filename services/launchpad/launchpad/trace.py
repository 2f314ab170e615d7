"""What Nextflow writes while it runs: its trace file and its log, read as they grow."""

from __future__ import annotations

import csv
import datetime as dt
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launchpad.store import Task, Workflow

Object = dict[str, Any]
# of the trace file -> of the API's task
MEASURED = {
    "native_id": "nativeId", "container": "container", "queue": "queue", "cpus": "cpus", "memory": "memory", "time": "time", "disk": "disk",
    "error_action": "errorAction", "%cpu": "pcpu", "%mem": "pmem", "rss": "rss", "vmem": "vmem", "peak_rss": "peakRss", "peak_vmem": "peakVmem",
    "rchar": "rchar", "wchar": "wchar", "syscr": "syscr", "syscw": "syscw", "read_bytes": "readBytes", "write_bytes": "writeBytes",
    "vol_ctxt": "volCtxt", "inv_ctxt": "invCtxt",
}  # fmt: skip
FIELDS = [*"task_id hash process tag name status exit attempt submit start complete duration realtime workdir".split(), *MEASURED]  # noqa: SIM905
WORDS = {"nativeId", "container", "queue", "errorAction"}
ENDED = {"COMPLETED", "CACHED", "FAILED", "ABORTED"}
AT_ONCE = 1_000_000  # bytes of a file that are read in one go


def grown(file: Path, read: int) -> tuple[list[str], int]:
    """The whole lines that a file has after its first `read` bytes, and how many bytes are read then."""
    try:
        with file.open("rb") as stream:
            stream.seek(read)
            data = stream.read(AT_ONCE)
    except FileNotFoundError:
        return [], read
    end = data.rfind(b"\n") + 1
    if not end and len(data) == AT_ONCE:  # a line longer than that: take it in pieces rather than never
        end = len(data)
    return data[:end].decode(errors="replace").splitlines(), read + end


def tasks_in_trace(workflow_id: str, lines: Iterable[str]) -> Iterator[Task]:
    """Rows of a trace file that was written with trace.raw, in FIELDS; the header is passed over. Their task_id is Nextflow's."""
    for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
        if len(row) == len(FIELDS) and row[0].isdigit():
            values = {name: None if value in ("-", "") else value for name, value in zip(FIELDS, row, strict=True)}
            yield task_of(workflow_id, values)


def task_of(workflow_id: str, values: dict[str, str | None]) -> Task:
    measured = {ours: values[name] if ours in WORDS else _number(values[name]) for name, ours in MEASURED.items() if values.get(name) is not None}
    return Task(
        workflow_id=workflow_id,
        hash=values["hash"] or f"#{values['task_id']}",
        task_id=int(values["task_id"] or 0),
        status=values["status"] or "NEW",
        name=values["name"] or "",
        process=values["process"] or "",
        tag=values["tag"],
        exit=_whole(values["exit"]),
        attempt=_whole(values["attempt"]) or 1,
        submit=_time(values["submit"]),
        start=_time(values["start"]),
        complete=_time(values["complete"]),
        duration=_whole(values["duration"]),
        realtime=_whole(values["realtime"]),
        workdir=values["workdir"],
        measured=measured,
    )


def _number(text: str | None) -> int | float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value) if value.is_integer() else value


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _time(text: str | None) -> dt.datetime | None:
    milliseconds = _number(text)
    return None if milliseconds is None else dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).replace(tzinfo=None)


@dataclass
class Told:
    """What the log has told: facts of the run, and the tasks that were started."""

    session_id: str | None = None
    nextflow: Object | None = None
    started: dict[str, str] = field(default_factory=dict)  # hash -> name


SESSION = re.compile(r"nextflow\.Session - Session UUID: ([0-9a-f-]{36})")
VERSION = re.compile(r"^\s*Version: (\S+) build (\d+)")
SUBMITTED = re.compile(r" - \[([0-9a-z]{2}/[0-9a-f]{6})\] (?:Submitted|Re-submitted) process > (.+)$")


def told_by_log(lines: Iterable[str]) -> Told:
    told = Told()
    for line in lines:
        if found := SUBMITTED.search(line):
            told.started[found[1]] = found[2]
        elif found := SESSION.search(line):
            told.session_id = found[1]
        elif found := VERSION.match(line):
            told.nextflow = {"version": found[1], "build": found[2], "timestamp": None}
    return told


def split_name(name: str) -> tuple[str, str | None]:
    """NAME (tag) to its parts."""
    process, bracket, tag = name.partition(" (")
    return process, tag.removesuffix(")") if bracket else None


COUNTED = {
    "SUBMITTED": "submitted",
    "RUNNING": "running",
    "COMPLETED": "succeeded",
    "CACHED": "cached",
    "FAILED": "failed",
    "ABORTED": "aborted",
    "NEW": "pending",
    "PENDING": "pending",
}


def progress_of(tasks: list[Task]) -> Object:
    """The Platform's counters, of the run and of each process, as a Workflow keeps them."""
    processes = list(dict.fromkeys(task.process for task in sorted(tasks, key=lambda task: task.task_id)))
    each = [{"process": name, **counters([task for task in tasks if task.process == name])} for name in processes]
    return {"workflow_progress": counters(tasks), "processes_progress": each, "total_processes": len(each)}


def note_progress(workflow: Workflow, tasks: list[Task]) -> None:
    for name, value in progress_of(tasks).items():
        setattr(workflow, name, value)


def counters(tasks: list[Task]) -> Object:
    statuses = Counter(COUNTED.get(task.status, "ignored") for task in tasks)
    ignored = sum(task.status == "FAILED" and task.measured.get("errorAction") == "IGNORE" for task in tasks)
    going = [task for task in tasks if task.status in ("RUNNING", "SUBMITTED")]
    ran = [task for task in tasks if task.status in ("COMPLETED", "FAILED")]

    def total(name: str) -> int:
        return int(sum(task.measured.get(name) or 0 for task in ran))

    cpu_time = sum((task.realtime or 0) * (task.measured.get("cpus") or 1) for task in ran)
    cpu_load = sum((task.realtime or 0) * (task.measured.get("pcpu") or 0) / 100 for task in ran)
    memory, requested = total("peakRss"), total("memory")
    return {
        **{name: statuses[name] for name in ("pending", "submitted", "running", "succeeded", "cached", "aborted")},
        "failed": statuses["failed"] - ignored,
        "ignored": ignored,
        "retries": sum(task.measured.get("errorAction") == "RETRY" for task in tasks),
        "cpus": total("cpus"),
        "cpuTime": int(cpu_time),
        "cpuLoad": int(cpu_load),
        "memoryRss": memory,
        "memoryReq": requested,
        "readBytes": total("readBytes"),
        "writeBytes": total("writeBytes"),
        "volCtxSwitch": total("volCtxt"),
        "invCtxSwitch": total("invCtxt"),
        "loadTasks": len(going),
        "loadCpus": int(sum(task.measured.get("cpus") or 1 for task in going)),
        "loadMemory": int(sum(task.measured.get("memory") or 0 for task in going)),
        **_peaks(tasks),
        "cpuEfficiency": round(100 * cpu_load / cpu_time, 2) if cpu_time else 0.0,
        "memoryEfficiency": round(100 * memory / requested, 2) if requested else 0.0,
    }


def _peaks(tasks: list[Task]) -> Object:
    """The most processors, tasks and bytes that there were at one time, of those asked for. What was cached took none in this run."""
    begun = [task for task in tasks if task.start and task.status != "CACHED"]
    loads = {id(task): (task.measured.get("cpus") or 1, 1, task.measured.get("memory") or 0) for task in begun}
    # of what ends and begins in the same moment, the end comes first
    changes = [(task.complete, -1, loads[id(task)]) for task in begun if task.complete] + [(task.start, 1, loads[id(task)]) for task in begun]
    at_once, most = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for _, sign, load in sorted(changes, key=lambda change: change[:2]):
        at_once = [now + sign * part for now, part in zip(at_once, load, strict=True)]
        most = [max(pair) for pair in zip(most, at_once, strict=True)]
    return dict(zip(("peakCpus", "peakTasks", "peakMemory"), map(int, most), strict=True))


def stats_of(tasks: list[Task]) -> Object:
    counted = counters(tasks)
    names = {"succeedCount": "succeeded", "failedCount": "failed", "cachedCount": "cached", "ignoredCount": "ignored"}
    return {**{name: counted[ours] for name, ours in names.items()}, "computeTimeFmt": f"{counted['cpuTime'] / 3_600_000:.1f} h"}


def metrics_of(tasks: list[Task]) -> list[Object]:
    """Quartiles of what the tasks of each process took: percent, bytes and milliseconds; usages in percent of what was asked for."""
    found = []
    for process in dict.fromkeys(task.process for task in tasks):
        ran = [task for task in tasks if task.process == process and task.status in ("COMPLETED", "CACHED", "FAILED")]
        samples = {
            "cpu": [(task.name, task.measured.get("pcpu")) for task in ran],
            "mem": [(task.name, task.measured.get("peakRss")) for task in ran],
            "vmem": [(task.name, task.measured.get("peakVmem")) for task in ran],
            "time": [(task.name, task.realtime) for task in ran],
            "reads": [(task.name, task.measured.get("rchar")) for task in ran],
            "writes": [(task.name, task.measured.get("wchar")) for task in ran],
            "cpuUsage": [(task.name, _share(task.measured.get("pcpu"), (task.measured.get("cpus") or 0) * 100)) for task in ran],
            "memUsage": [(task.name, _share(task.measured.get("peakRss"), task.measured.get("memory"))) for task in ran],
            "timeUsage": [(task.name, _share(task.realtime, task.measured.get("time"))) for task in ran],
        }
        found.append(
            {"process": process, **{name: _quartiles([(label, value) for label, value in pairs if value is not None]) for name, pairs in samples.items()}}
        )
    return found


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else 100 * part / whole


def _quartiles(sample: list[tuple[str, float]]) -> Object | None:
    if not sample:
        return None
    values = sorted(value for _, value in sample)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    named = sorted(sample, key=lambda pair: pair[1])

    def nearest(value: float) -> str:
        return min(named, key=lambda pair: abs(pair[1] - value))[0]

    numbers = {"min": values[0], "q1": low, "q2": middle, "q3": high, "max": values[-1]}
    return {"mean": round(statistics.fmean(values), 2), **numbers, **{f"{name}Label": nearest(value) for name, value in numbers.items()}, "warnings": []}
