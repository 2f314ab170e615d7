"""What Nextflow's plugin nf-tower sends of a run: create, begin, progress, heartbeat, complete.

A run that the launchpad started itself sends its id (TOWER_WORKFLOW_ID) and keeps its row; any other gets one. Tasks are known by their
hash, so that they are one row whether the plugin or the trace file tells of them.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from launchpad import launches, shapes, trace
from launchpad.api.workflows import own
from launchpad.auth import Caller, Launcher, Store
from launchpad.errors import bad_request
from launchpad.shapes import Object
from launchpad.store import Task, Workflow, now

router = APIRouter(prefix="/trace", tags=["trace"])
Id = Annotated[str, Path(alias="workflowId")]
TIME = TypeAdapter(dt.datetime)
Whole = Annotated[int, Field(ge=-shapes.MOST, le=shapes.MOST)]
# of nf-tower's workflow -> of ours, taken over as they are
FACTS = {
    "projectName": "project_name", "repository": "repository", "sessionId": "session_id", "runName": "run_name", "scriptName": "script_name",
    "revision": "revision", "commitId": "commit_id", "commandLine": "command_line", "launchDir": "launch_dir", "workDir": "work_dir", "profile": "profile",
    "configText": "config_text", "container": "container", "errorMessage": "error_message", "errorReport": "error_report",
}  # fmt: skip
OBJECTS = {"params": "params", "manifest": "manifest", "nextflow": "nextflow", "stats": "stats"}


class Create(shapes.Shape):
    session_id: str = Field(max_length=100)
    run_name: str = Field(max_length=100)
    project_name: str = Field("", max_length=1000)
    repository: str | None = Field(None, max_length=1000)
    workflow_id: str | None = None


class Created(shapes.Shape):
    workflow_id: str
    watch_url: str
    message: str | None = None
    metadata: Object | None = None


class Taken(shapes.Shape):
    status: str = "OK"
    workflow_id: str
    watch_url: str | None = None


class SentTask(BaseModel):
    model_config = ConfigDict(extra="allow")
    taskId: int = Field(ge=0, le=shapes.MOST)  # noqa: N815 - nf-tower's names
    status: str = Field(pattern="^(NEW|PENDING|SUBMITTED|RUNNING|CACHED|COMPLETED|FAILED|ABORTED)$")
    hash: str | None = Field(None, max_length=100)
    name: str = Field("", max_length=1000)
    process: str = Field("", max_length=1000)
    tag: str | None = None
    exit: Whole | None = None
    attempt: Whole | None = 1
    workdir: str | None = None
    duration: Whole | None = None
    realtime: Whole | None = None


TASKS = TypeAdapter(list[SentTask])


def plain(body: Object) -> Object:
    """Raises ValueError for numbers and characters that are none, which Python would take from JSON."""
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return body


Sent = Annotated[Object, Body(), AfterValidator(plain)]


@router.post("/create")
def create(caller: Launcher, session: Store, request: Request, body: Create) -> Created:
    workflow = own(session, caller, body.workflow_id) if body.workflow_id else _row(session, caller, body)
    session.commit()
    return Created(workflow_id=workflow.id, watch_url=f"{request.base_url}runs/{workflow.id}")


@router.put("/{workflowId}/begin")
def begin(caller: Launcher, session: Store, request: Request, workflow_id: Id, body: Sent) -> Taken:
    workflow = own(session, caller, workflow_id)
    _take_facts(workflow, body.get("workflow"))
    if not workflow.ours:
        workflow.status, workflow.start = "RUNNING", workflow.start or now()
    session.commit()
    return Taken(workflow_id=workflow_id, watch_url=f"{request.base_url}runs/{workflow_id}")


@router.put("/{workflowId}/progress")
@router.put("/{workflowId}/heartbeat")
def progress(caller: Launcher, session: Store, workflow_id: Id, body: Sent) -> Taken:
    workflow = own(session, caller, workflow_id)
    _take_tasks(session, workflow, body.get("tasks") or [])
    if workflow.status == "UNKNOWN":  # it was silent for a while
        workflow.status = "RUNNING"
    session.commit()
    return Taken(workflow_id=workflow_id)


@router.put("/{workflowId}/complete")
def complete(caller: Launcher, session: Store, workflow_id: Id, body: Sent) -> Taken:
    """A run of our own is settled when its processes are gone; another here."""
    workflow = own(session, caller, workflow_id)
    sent = body.get("workflow")
    _take_facts(workflow, sent)
    if not workflow.ours and isinstance(sent, dict):
        exit_status = sent.get("exitStatus")
        workflow.success, workflow.exit_status = bool(sent.get("success")), exit_status if isinstance(exit_status, int) and _is_number(exit_status) else None
        workflow.status = "CANCELLED" if workflow.cancelled else "SUCCEEDED" if workflow.success else "FAILED"
        workflow.complete = now()
        workflow.duration = int((workflow.complete - (workflow.start or workflow.submit)).total_seconds() * 1000)
    session.commit()
    return Taken(workflow_id=workflow_id)


def _row(session: Session, caller: Caller, body: Create) -> Workflow:
    workflow = Workflow(
        id=launches.new_id(),
        user_id=caller.user_id,
        user_name=caller.user_name,
        run_name=body.run_name,
        session_id=body.session_id,
        project_name=body.project_name,
        repository=body.repository or body.project_name,
        launch_dir="",
        work_dir="",
        launch={"pipeline": body.repository or body.project_name},
        ours=False,
    )
    session.add(workflow)
    return workflow


def _take_facts(workflow: Workflow, sent: Any) -> None:
    """Our own runs keep what the launchpad knows better; of no run are facts taken that are not of their kind."""
    if not isinstance(sent, dict):
        return
    kept = (
        {"launch_dir", "work_dir", "session_id", "run_name", "project_name", "repository", "params", "error_message", "error_report"}
        if workflow.ours
        else set()
    )
    for names, kind in ((FACTS, str), (OBJECTS, dict)):
        for theirs, name in names.items():
            if isinstance(sent.get(theirs), kind) and name not in kept:
                setattr(workflow, name, sent[theirs])
    workflow.last_updated = now()


def _take_tasks(session: Session, workflow: Workflow, sent: Any) -> None:
    try:
        tasks = TASKS.validate_python(sent)
    except ValidationError as error:
        raise bad_request(f"tasks: {error.errors()[0]['msg']} at {'.'.join(map(str, error.errors()[0]['loc']))}") from None
    workflow.last_updated = now()
    session.flush()  # takes the lock: the runner may tell of the same tasks at this moment
    for task in (_task(workflow, task) for task in tasks):
        known = session.get(Task, (workflow.id, task.hash))
        if known or workflow.ours:
            task.task_id = known.task_id if known else _next_number(session, workflow)
        if known is None or known.status not in trace.ENDED or task.status in trace.ENDED:  # what was sent before the end may come after it
            session.merge(task)
    session.flush()
    trace.note_progress(workflow, list(session.scalars(select(Task).where(Task.workflow_id == workflow.id))))


def _next_number(session: Session, workflow: Workflow) -> int:
    """Of a run of our own, whose log and trace file tell of tasks too."""
    return 1 + (session.scalar(select(func.max(Task.task_id)).where(Task.workflow_id == workflow.id)) or 0)


def _task(workflow: Workflow, sent: SentTask) -> Task:
    extra = sent.model_extra or {}
    return Task(
        workflow_id=workflow.id,
        hash=sent.hash or f"#{sent.taskId}",
        task_id=sent.taskId,
        status=sent.status,
        name=sent.name,
        process=sent.process,
        tag=sent.tag,
        exit=sent.exit,
        attempt=sent.attempt or 1,
        submit=_time(extra.get("submit")),
        start=_time(extra.get("start")),
        complete=_time(extra.get("complete")),
        duration=sent.duration,
        realtime=sent.realtime,
        workdir=sent.workdir if _inside(sent.workdir, workflow) else None,
        measured={name: extra[name] for name in trace.MEASURED.values() if _fits(name, extra.get(name))},
    )


def _fits(name: str, value: Any) -> bool:
    return isinstance(value, str) if name in trace.WORDS else _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= shapes.MOST


def _inside(workdir: str | None, workflow: Workflow) -> bool:
    """A task's directory is read from: it has to be the run's own."""
    return workflow.ours and bool(workdir) and str(workdir).startswith(workflow.work_dir + "/") and ".." not in str(workdir)


def _time(value: Any) -> dt.datetime | None:
    """Milliseconds or ISO 8601."""
    try:
        found = dt.datetime.fromtimestamp(value / 1000, dt.UTC) if isinstance(value, int) else TIME.validate_python(value)
        return (found.astimezone(dt.UTC) if found.tzinfo else found).replace(tzinfo=None)
    except (ValidationError, OverflowError, OSError, ValueError):
        return None
