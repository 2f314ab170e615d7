"""Logs, read in pieces as they grow."""

from __future__ import annotations

from pathlib import Path

from launchpad.folders import RunFolder
from launchpad.shapes import Download, Log
from launchpad.store import Task

OF_RUN = {"console.txt": "Nextflow's output", "nextflow.log": "Nextflow's log", "trace.txt": "Trace of the tasks"}
OF_TASK = {".command.out": "Output", ".command.err": "Errors", ".command.log": "Log", ".command.sh": "Script", ".exitcode": "Exit status"}


def read(file: Path, begin: str | None, length: int, downloads: list[Download], *, pending: bool) -> Log:
    """Whole lines from a byte offset on, at most `length` bytes; forward_token is where the next reading begins.

    Without an offset, the end of the file: truncated says whether there is more before it.
    """
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            start = min(int(begin), size) if begin else max(0, size - length)
            stream.seek(start)
            data = stream.read(length)
    except FileNotFoundError:
        return Log(entries=[], truncated=False, pending=pending, message="Nothing was written yet.", forward_token=begin or "0", downloads=[])
    if not begin and start:  # not the rest of a line
        cut = data.find(b"\n") + 1
        start, data = start + cut, data[cut:]
    end = data.rfind(b"\n") + 1
    at_end = start + len(data) == size
    if (end and not at_end) or (pending and at_end):  # not half a line, unless it is longer than a page
        data = data[:end]
    entries = data.decode(errors="replace").splitlines()
    there = {"forward_token": str(start + len(data)), "rewind_token": "0"}
    return Log(entries=entries, truncated=not begin and start > 0, pending=pending, downloads=downloads, **there)


def downloads_of_run(folder: RunFolder) -> list[Download]:
    return [Download(save_name=name, file_name=name, display_text=text) for name, text in OF_RUN.items() if (folder.path / name).is_file()]


def downloads_of_task(task: Task) -> list[Download]:
    there = [(name, text) for name, text in OF_TASK.items() if task.workdir and Path(task.workdir, name).is_file()]
    return [Download(save_name=f"task-{task.task_id}{name}", file_name=name, display_text=text) for name, text in there]
