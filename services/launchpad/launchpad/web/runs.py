"""Runs: the list, a run's page, what it has written, cancel and resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from launchpad import logs, results, shapes, trace
from launchpad.api import workflows
from launchpad.api.common import Config, Offset, Runs, Search
from launchpad.auth import Caller, Launcher, Reader, Store
from launchpad.errors import forbidden
from launchpad.folders import RunFolder, below
from launchpad.launches import WAITING
from launchpad.settings import Settings
from launchpad.store import Pipeline, Task, Workflow
from launchpad.web.board import read_board
from launchpad.web.chart import chart_of
from launchpad.web.guard import Page
from launchpad.web.history import trials_of
from launchpad.web.render import page

PAGE = 25  # runs of a page
MOST_TASKS = 100
LOG_BYTES, TASK_LOG_BYTES = 30_000, 200_000
SHOWN = ("succeeded", "cached", "running", "submitted", "failed", "ignored", "aborted", "pending")
# what a browser would rather save than show
READABLE = {".csv": "text/plain", ".tsv": "text/plain", ".md": "text/plain", ".log": "text/plain"}
# a file of a run may be any page: it has its scripts, but is nobody here
SANDBOX = {"Content-Security-Policy": "sandbox allow-scripts allow-popups"}
STORAGE = File(__file__).with_name("storage.html")
router = APIRouter(route_class=Page, include_in_schema=False)
Id = Annotated[str, Path(alias="workflowId")]


@router.get("/")
def list_runs(caller: Reader, session: Store, request: Request, search: Search = None, offset: Offset = 0) -> Response:
    found = workflows.list_workflows(caller, session, max=PAGE, offset=offset, search=search)
    return page("runs.html", caller=caller, found=found, search=search or "", offset=offset, size=PAGE, here=f"/?{request.url.query}", going=WAITING, bar=bar)


@router.get("/runs/{workflowId}")
def show_run(caller: Reader, session: Store, settings: Config, workflow_id: Id) -> Response:
    return page("run.html", **_view(session, settings, caller, workflows.own(session, caller, workflow_id)))


@router.get("/runs/{workflowId}/live")
def show_live(caller: Reader, session: Store, settings: Config, workflow_id: Id) -> Response:
    """The part of a run's page that changes."""
    return page("_run.html", **_view(session, settings, caller, workflows.own(session, caller, workflow_id)))


@router.get("/runs/{workflowId}/tasks/{digest:path}")
def show_task(caller: Reader, session: Store, workflow_id: Id, digest: str) -> Response:
    """By its hash, as Nextflow's own messages name it."""
    run = workflows.own(session, caller, workflow_id)
    task = session.get(Task, (run.id, digest))
    if task is None:
        raise forbidden()
    directory, pending = File(task.workdir or "/nowhere"), task.status not in trace.ENDED
    log = logs.read(directory / ".command.log", None, TASK_LOG_BYTES, logs.downloads_of_task(task), pending=pending)
    return page("task.html", caller=caller, run=run, task=task, log=log, pending=pending)


@router.get("/runs/{workflowId}/files/{name:path}")
def show_file(caller: Reader, session: Store, workflow_id: Id, name: str) -> Response:
    """A file of the run's results, shown if the browser can."""
    directory = results.root(workflows.own(session, caller, workflow_id))
    if directory is None:
        raise forbidden()
    file = below(directory, name)
    kind = READABLE.get(file.suffix) or results.mime_type(file)
    if kind == "text/html":
        return StreamingResponse(_with_storage(file), media_type=kind, headers=SANDBOX)
    return FileResponse(file, media_type=kind, headers=SANDBOX, filename=file.name, content_disposition_type="inline")


def _with_storage(file: File) -> Iterator[bytes]:
    """A page after the script that gives it what it lacks in the sandbox, and MultiQC's reports do not work without."""
    yield STORAGE.read_bytes()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 16):
            yield piece


@router.post("/runs/{workflowId}/cancel")
def cancel(caller: Launcher, session: Store, runner: Runs, workflow_id: Id, force: bool = False) -> Response:
    workflows.cancel(caller, session, runner, workflow_id, force=force)
    return RedirectResponse(f"/runs/{workflow_id}", 303)


@router.post("/runs/{workflowId}/resume")
def resume(caller: Launcher, session: Store, settings: Config, runner: Runs, workflow_id: Id) -> Response:
    """Launch the same again, which goes on from what was finished."""
    run = workflows.own(session, caller, workflow_id)
    changes = {"session_id": run.session_id, "resume": True, "run_name": None}
    request = shapes.LaunchRequest.model_validate(run.launch).model_copy(update=changes)
    launched = workflows.launch(caller, session, settings, runner, shapes.LaunchBody(launch=request))
    return RedirectResponse(f"/runs/{launched.workflow_id}", 303)


def _view(session: Session, settings: Settings, caller: Caller, run: Workflow) -> dict[str, Any]:
    """What a run's page shows."""
    directory, going = results.root(run), run.status in WAITING
    chosen = select(Task).where(Task.workflow_id == run.id)
    folder = RunFolder(settings, run.id)
    return {
        "caller": caller,
        "run": run,
        "going": going,
        "progress": workflows.progress_of(run),
        "bar": bar,
        "tasks": session.scalars(chosen.order_by(Task.task_id.desc()).limit(MOST_TASKS)).all(),
        "task_count": session.scalar(select(func.count()).select_from(chosen.subquery())),
        "chart": chart_of(trials_of(session, run)),
        "board": read_board(directory) if directory else None,
        "index": results.index(run) or {},
        "reports": results.reports(run),
        "log": logs.read(folder.console, None, LOG_BYTES, logs.downloads_of_run(folder), pending=going),
        "pipeline_id": session.scalar(select(Pipeline.pipeline_id).where(Pipeline.repository == run.repository)),
    }


def bar(counters: dict[str, Any]) -> list[tuple[str, int, float, float]]:
    """Status, count, and where its part of a bar of 100 begins and how long it is."""
    total, parts, at = sum(counters.get(name) or 0 for name in SHOWN), [], 0.0
    for name in SHOWN:
        if count := counters.get(name) or 0:
            parts.append((name, count, round(at, 2), round(100 * count / total, 2)))
            at += 100 * count / total
    return parts
