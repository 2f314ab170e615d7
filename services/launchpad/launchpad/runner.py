"""Starts runs that wait, follows those that go, and settles those that ended: one thread, which can be stopped and started at any time.

What a run does is known from its folder alone, so that a launchpad that was killed finds all its runs again: the lock is held as long as
a run lives, the exit file says how it ended.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from launchpad import trace
from launchpad.folders import RunFolder, environment
from launchpad.launches import command
from launchpad.locks import claim
from launchpad.settings import Settings
from launchpad.store import Sessions, Task, Workflow, now

EVERY = 1.0  # seconds between two looks
SILENT = dt.timedelta(minutes=10)
LONGEST_REPORT = 20_000  # characters
KILLED = 128  # exit statuses above it tell of a signal
WRAPPER = Path(__file__).with_name("run.sh")
log = logging.getLogger("launchpad")


class Runner:
    """The thread, and the processes that it has started itself."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings, self.sessions = settings, sessions
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.asked: dict[str, float] = {}  # runs that were asked to end, and when
        self.woken, self.stopped = threading.Event(), False
        self.thread = threading.Thread(target=self._run, name="runner", daemon=True)
        self.lock: BinaryIO | None = None

    def claim(self) -> None:
        """Raises ApiError 409 if another launchpad works in the same directory."""
        self.lock = claim(self.settings.data)

    def start(self) -> None:
        if self.lock is None:
            self.claim()
        self.thread.start()

    def stop(self) -> None:
        """Runs go on."""
        self.stopped = True
        self.woken.set()
        self.thread.join()
        if self.lock:
            self.lock.close()

    def wake(self) -> None:
        self.woken.set()

    def _run(self) -> None:
        while not self.stopped:
            try:
                self.look()
            except Exception:
                log.exception("the runs could not be looked after; trying again")
            self.woken.wait(EVERY)
            self.woken.clear()

    def look(self) -> None:
        """Once over all runs that have not ended."""
        self.children = {workflow_id: child for workflow_id, child in self.children.items() if child.poll() is None}
        with self.sessions() as session:
            going = session.scalars(select(Workflow).where(Workflow.status.in_(("SUBMITTED", "RUNNING")), Workflow.ours).order_by(Workflow.submit)).all()
            self._give_up_on_silent(session)
            running = 0
            for workflow in going:
                folder = RunFolder(self.settings, workflow.id)
                if workflow.status == "RUNNING" or folder.was_started:
                    self._follow_safely(session, workflow, folder)
                elif workflow.cancelled:
                    settle(session, workflow, "CANCELLED")
                running += workflow.status == "RUNNING"
            for workflow in going:
                if workflow.status == "SUBMITTED" and running < self.settings.max_running:
                    self._start_or_fail(session, workflow)
                    running += workflow.status == "RUNNING"

    def _give_up_on_silent(self, session: Session) -> None:
        """Runs that nf-tower tells of, each minute, and has not for a while."""
        for workflow in session.scalars(select(Workflow).where(Workflow.status == "RUNNING", ~Workflow.ours, Workflow.last_updated < now() - SILENT)):
            workflow.status = "UNKNOWN"
        session.commit()

    def _start_or_fail(self, session: Session, workflow: Workflow) -> None:
        try:
            self._start(session, workflow)
        except (OSError, ValueError) as error:
            workflow.error_message = f"Nextflow could not be started: {error}"
            settle(session, workflow, "FAILED")

    def _follow_safely(self, session: Session, workflow: Workflow, folder: RunFolder) -> None:
        """One run that cannot be read must not keep the others from being followed."""
        try:
            self._follow(session, workflow, folder)
        except Exception:
            session.rollback()
            log.exception("run %s could not be followed; trying again", workflow.id)

    def _start(self, session: Session, workflow: Workflow) -> None:
        folder = RunFolder(self.settings, workflow.id)
        words = command(self.settings, workflow)
        lock = folder.take_lock()
        if lock is None:  # it was started just now, by a launchpad that has ended since
            return
        # a session of its own: the whole group can be ended; NXF_UUID and the other let the launchpad choose the session's id
        env = environment() | {"NXF_UUID": workflow.session_id, "NXF_IGNORE_RESUME_HISTORY": "true", "NXF_ANSI_LOG": "false"}
        with lock, folder.console.open("ab") as console:
            self.children[workflow.id] = subprocess.Popen(
                ["sh", WRAPPER, folder.path, *words],
                cwd=workflow.launch_dir,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        workflow.status, workflow.start, workflow.last_updated = "RUNNING", now(), now()
        workflow.command_line = " ".join(words)
        session.commit()

    def _follow(self, session: Session, workflow: Workflow, folder: RunFolder) -> None:
        if workflow.status == "SUBMITTED":  # the launchpad was killed just after it had started it
            workflow.status, workflow.start = "RUNNING", _changed(folder.lock)
        alive = folder.is_alive  # before reading: what was written before the end is read then
        while read_files(session, workflow, folder) and not alive:
            pass  # all that is left of an ended run
        if alive:
            if workflow.cancelled:
                self._end(workflow, folder)
            session.commit()
            return
        self.asked.pop(workflow.id, None)
        finish(session, workflow, folder)

    def _end(self, workflow: Workflow, folder: RunFolder) -> None:
        """Ask the run's processes to end; kill them if they have not after the time of grace."""
        group = folder.group()
        if group is None:
            return
        first = workflow.id not in self.asked
        waited = time.monotonic() - self.asked.setdefault(workflow.id, time.monotonic())
        if workflow.cancel_force or waited > self.settings.grace:
            os.killpg(group, signal.SIGKILL)
        elif first:
            log.info("ending run %s", workflow.id)
            os.killpg(group, signal.SIGTERM)


def read_files(session: Session, workflow: Workflow, folder: RunFolder) -> bool:
    """Take over what the run's log and trace file have said since the last look; whether that was anything."""
    lines, workflow.log_read = trace.grown(folder.log, workflow.log_read)
    told = trace.told_by_log(lines)
    workflow.session_id = told.session_id or workflow.session_id
    workflow.nextflow = told.nextflow or workflow.nextflow
    ended, workflow.trace_read = trace.grown(folder.trace, workflow.trace_read)
    if not (told.started or ended or _has_waiting(session, workflow)):
        return bool(lines)
    known = {task.hash: task for task in session.scalars(select(Task).where(Task.workflow_id == workflow.id))}
    numbers = count(1 + max((task.task_id for task in known.values()), default=0))
    new = [_just_started(workflow, digest, name) for digest, name in told.started.items() if digest not in known]
    changed = [_add(session, known, task, numbers) for task in (*new, *trace.tasks_in_trace(workflow.id, ended))]
    changed += [task for task in known.values() if task.status == "SUBMITTED" and _has_begun(task, Path(workflow.work_dir))]
    if changed:
        workflow.last_updated = now()
        trace.note_progress(workflow, list(known.values()))
    return bool(lines or ended)


def _has_waiting(session: Session, workflow: Workflow) -> bool:
    """Whether there are tasks that have been submitted, and may have begun by now."""
    return session.scalar(select(Task.hash).where(Task.workflow_id == workflow.id, Task.status == "SUBMITTED").limit(1)) is not None


def _just_started(workflow: Workflow, digest: str, name: str) -> Task:
    process, tag = trace.split_name(name)
    return Task(workflow_id=workflow.id, hash=digest, task_id=0, status="SUBMITTED", name=name, process=process, tag=tag, submit=now())


def _add(session: Session, known: dict[str, Task], task: Task, numbers: Iterator[int]) -> Task:
    """One row a task, whoever tells of it. It keeps the number that it got first: Nextflow's own is not in its log, and clients ask by it."""
    task.task_id = known[task.hash].task_id if task.hash in known else next(numbers)
    known[task.hash] = session.merge(task)
    return known[task.hash]


def _has_begun(task: Task, work_dir: Path) -> bool:
    """Whether a task that was submitted runs by now, as its directory on this machine shows."""
    if task.workdir is None:
        task.workdir = next((str(path) for path in work_dir.glob(f"{task.hash}*")), None)
    begin = Path(task.workdir or "", ".command.begin")
    if task.workdir is None or not begin.exists():
        return False
    task.status, task.start = "RUNNING", _changed(begin)
    return True


def finish(session: Session, workflow: Workflow, folder: RunFolder) -> None:
    """Settle a run whose processes are gone."""
    try:
        workflow.exit_status = int(folder.exit.read_text())
    except (FileNotFoundError, ValueError):
        workflow.exit_status = None
    if workflow.exit_status == 0:  # even if it was to be cancelled: all of it is there
        status = "SUCCEEDED"
    elif workflow.cancelled:
        status = "CANCELLED"
    else:
        status = "FAILED"
        workflow.error_report = error_report(folder)
        workflow.error_message = error_message(workflow.error_report) or f"Nextflow ended with status {workflow.exit_status}; what it said is in the log."
        if workflow.exit_status is None or workflow.exit_status > KILLED:
            workflow.error_message = "Nextflow was killed, or the machine was restarted, before it could say how it ended. Resume the run to go on."
    settle(session, workflow, status, _changed(folder.exit) if folder.exit.exists() else now())


def settle(session: Session, workflow: Workflow, status: str, complete: dt.datetime | None = None) -> None:
    workflow.status, workflow.complete, workflow.success = status, complete or now(), status == "SUCCEEDED"
    workflow.last_updated = now()
    if workflow.start:
        workflow.duration = max(0, int((workflow.complete - workflow.start).total_seconds() * 1000))
    tasks = list(session.scalars(select(Task).where(Task.workflow_id == workflow.id)))
    for task in tasks:
        if task.status not in trace.ENDED or _ended_by_cancel(task, workflow):
            task.status, task.complete = "ABORTED", task.complete or workflow.complete
    trace.note_progress(workflow, tasks)
    workflow.stats = trace.stats_of(tasks)
    session.commit()


def _ended_by_cancel(task: Task, workflow: Workflow) -> bool:
    """The signal reaches the tasks too, and Nextflow may note one's exit status as a failure before it ends itself."""
    return task.status == "FAILED" and workflow.cancelled is not None and task.complete is not None and task.complete >= workflow.cancelled


def _changed(path: Path) -> dt.datetime:
    return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).replace(tzinfo=None)


def error_report(folder: RunFolder) -> str | None:
    """What Nextflow said of the error: its console from there on, or its end."""
    try:
        text = folder.console.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    at = text.find("ERROR ~ ")
    return text[at:][:LONGEST_REPORT].strip() if at >= 0 else text[-LONGEST_REPORT:].strip() or None


def error_message(report: str | None) -> str | None:
    """The sentence that helps: what the task that failed said, or else the cause that Nextflow gives."""
    for heading in ("Command error:", "Caused by:"):
        found = re.search(rf"^{heading}\n((?:[ \t]+\S.*\n?)+)", report or "", re.MULTILINE)
        if found:
            return "\n".join(line.strip() for line in found[1].strip().splitlines()[-10:])
    paragraphs = (report or "").split("\n\n")
    first = paragraphs[0] if paragraphs[0].startswith("ERROR ~ ") else paragraphs[-1]  # what comes first is its banner
    return first.removeprefix("ERROR ~ ").strip() or None
