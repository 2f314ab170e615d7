"""Runs: launched, listed, followed, cancelled, deleted."""

from __future__ import annotations

import shutil
from pathlib import Path as File
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response
from fastapi.responses import FileResponse
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from launchpad import launches, logs, results, shapes, trace
from launchpad.api.common import NOTHING, Config, Max, Offset, Runs, Search, contains, count, labels_of, refuse_foreign_labels
from launchpad.api.service import ORG
from launchpad.auth import Caller, Launcher, Reader, Store
from launchpad.errors import bad_request, conflict, forbidden
from launchpad.folders import RunFolder, below
from launchpad.launches import WAITING
from launchpad.settings import Settings
from launchpad.shapes import MOST
from launchpad.store import Task, Workflow, now

router = APIRouter(prefix="/workflow", tags=["workflows"])
Id = Annotated[str, Path(alias="workflowId")]
TaskId = Annotated[int, Path(alias="taskId", ge=0, le=MOST)]
SORTED = {"taskId": Task.task_id, "status": Task.status, "name": Task.name, "process": Task.process, "submit": Task.submit, "duration": Task.duration}
STATUSES = {"SUBMITTED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "UNKNOWN"}


@router.post("/launch")
def launch(caller: Launcher, session: Store, settings: Config, runner: Runs, body: shapes.LaunchBody) -> shapes.Launched:
    refuse_foreign_labels(session, caller, body.launch.label_ids)
    workflow = launches.submit(session, settings, caller, body.launch)
    runner.wake()
    return shapes.Launched(workflow_id=workflow.id)


@router.get("")
def list_workflows(
    caller: Reader,
    session: Store,
    max: Max = 50,  # noqa: A002 - the Platform's name
    offset: Offset = 0,
    search: Search = None,
    attributes: str = "",
    include_total_size: Annotated[bool, Query(alias="includeTotalSize")] = True,
) -> shapes.Workflows:
    """The latest first, without the progress of each process. search: words of the run's or the pipeline's name; status:FAILED and the like choose by status."""
    found = select(Workflow).where(Workflow.user_id == caller.user_id).order_by(Workflow.submit.desc(), Workflow.id)
    for word in (search or "").split():
        kind, _, value = word.partition(":")
        if kind == "status" and value.upper() in STATUSES:
            found = found.where(Workflow.status == value.upper())
        else:
            found = found.where(or_(Workflow.run_name.like(contains(word), escape="\\"), Workflow.project_name.like(contains(word), escape="\\")))
    page = session.scalars(found.limit(max + 1).offset(offset)).all()
    return shapes.Workflows(
        workflows=[_entry(session, caller, workflow, attributes, each_process=False) for workflow in page[:max]],
        total_size=count(session, found) if include_total_size else None,
        has_more=len(page) > max,
    )


@router.get("/validate", status_code=204, responses={409: {"model": shapes.Failure}})
def validate(
    caller: Reader,
    session: Store,
    run_name: Annotated[str | None, Query(alias="runName")] = None,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
) -> Response:
    """204 if a run may be called so."""
    if run_name and launches.is_taken(session, caller, run_name):
        raise conflict(f"There is a run called {run_name[:80]} already.")
    if run_name and not launches.RUN_NAME.fullmatch(run_name):
        raise bad_request(f"{run_name[:80]!r} is no run name.")
    return NOTHING


@router.get("/{workflowId}")
def get_workflow(caller: Reader, session: Store, workflow_id: Id) -> shapes.WorkflowAnswer:
    """A run; `results` is its index.json when it has left one: whether a release was published, and every file with its hash."""
    workflow = own(session, caller, workflow_id)
    entry = _entry(session, caller, workflow, "progress,labels")
    platform = {"id": "local-platform", "name": "This machine"}
    job_info = {"id": None, "workflowId": workflow.id, "operationId": None, "message": None, "status": workflow.status, "exitCode": workflow.exit_status}
    return shapes.WorkflowAnswer(**dict(entry), platform=platform, job_info=job_info, messages=[], results=results.index(workflow))


@router.get("/{workflowId}/launch")
def get_launch(caller: Reader, session: Store, settings: Config, workflow_id: Id) -> shapes.LaunchAnswer:
    workflow = own(session, caller, workflow_id)
    shape = launches.launch_shape(settings, workflow.id, workflow.launch)
    return shapes.LaunchAnswer(
        launch=shape.model_copy(update={"session_id": workflow.session_id, "resume_dir": workflow.launch_dir, "resume": workflow.resume})
    )


@router.get("/{workflowId}/progress")
def get_progress(caller: Reader, session: Store, workflow_id: Id) -> shapes.ProgressAnswer:
    return shapes.ProgressAnswer(progress=progress_of(own(session, caller, workflow_id)))


@router.get("/{workflowId}/tasks")
def get_tasks(
    caller: Reader,
    session: Store,
    workflow_id: Id,
    max: Max = 100,  # noqa: A002 - the Platform's name
    offset: Offset = 0,
    sort_by: Annotated[str, Query(alias="sortBy")] = "taskId",
    sort_dir: Annotated[str, Query(alias="sortDir", pattern="^(asc|desc)$")] = "asc",
    search: Search = None,
) -> shapes.Tasks:
    own(session, caller, workflow_id)
    if sort_by not in SORTED:
        raise bad_request(f"sortBy {sort_by[:40]!r} is none of {', '.join(SORTED)}.")
    found = select(Task).where(Task.workflow_id == workflow_id)
    if search:
        found = found.where(or_(Task.name.like(contains(search), escape="\\"), Task.status == search.upper()))
    column = SORTED[sort_by]
    page = session.scalars(found.order_by(column.desc() if sort_dir == "desc" else column.asc(), Task.task_id).limit(max).offset(offset))
    return shapes.Tasks(tasks=[shapes.TaskEntry(task=task_shape(task)) for task in page], total=count(session, found))


@router.get("/{workflowId}/task/{taskId}")
def get_task(caller: Reader, session: Store, workflow_id: Id, task_id: TaskId) -> shapes.TaskEntry:
    return shapes.TaskEntry(task=task_shape(_task(session, own(session, caller, workflow_id), task_id)))


@router.get("/{workflowId}/metrics")
def get_metrics(caller: Reader, session: Store, workflow_id: Id) -> shapes.Metrics:
    workflow = own(session, caller, workflow_id)
    return shapes.Metrics(metrics=trace.metrics_of(list(session.scalars(select(Task).where(Task.workflow_id == workflow.id).order_by(Task.task_id)))))


Next = Annotated[str | None, Query(alias="next", pattern=r"^\d{1,15}$", description="the forwardToken of the answer before")]
Length = Annotated[int, Query(alias="maxLength", ge=1, le=1_000_000, description="bytes")]


@router.get("/{workflowId}/log")
def get_log(caller: Reader, session: Store, settings: Config, workflow_id: Id, begin: Next = None, length: Length = 100_000) -> shapes.LogAnswer:
    workflow = own(session, caller, workflow_id)
    downloads = logs.downloads_of_run(RunFolder(settings, workflow.id))
    return shapes.LogAnswer(log=logs.read(RunFolder(settings, workflow.id).console, begin, length, downloads, pending=workflow.status in WAITING))


@router.get("/{workflowId}/log/{taskId}")
def get_task_log(caller: Reader, session: Store, workflow_id: Id, task_id: TaskId, begin: Next = None, length: Length = 100_000) -> shapes.LogAnswer:
    task = _task(session, own(session, caller, workflow_id), task_id)
    pending = task.status not in trace.ENDED
    return shapes.LogAnswer(log=logs.read(File(task.workdir or "/nowhere", ".command.log"), begin, length, logs.downloads_of_task(task), pending=pending))


FileName = Annotated[str, Query(alias="fileName", min_length=1, max_length=1000)]


@router.get("/{workflowId}/download", response_class=FileResponse)
def download(caller: Reader, session: Store, settings: Config, workflow_id: Id, file_name: FileName) -> FileResponse:
    """A log of the run, or a file of its results by its path there, such as index.json."""
    workflow = own(session, caller, workflow_id)
    folder, directory = RunFolder(settings, workflow.id), results.root(workflow)
    if any(file_name == one.file_name for one in logs.downloads_of_run(folder)):
        file = folder.path / file_name
    elif directory:
        file = below(directory, file_name)
    else:
        raise forbidden()
    return FileResponse(file, media_type=results.mime_type(file), filename=file.name)


@router.get("/{workflowId}/download/{taskId}", response_class=FileResponse)
def download_of_task(caller: Reader, session: Store, workflow_id: Id, task_id: TaskId, file_name: FileName) -> FileResponse:
    task = _task(session, own(session, caller, workflow_id), task_id)
    if not any(file_name == one.file_name for one in logs.downloads_of_task(task)):
        raise forbidden()
    return FileResponse(File(task.workdir or "", file_name), media_type="text/plain", filename=file_name)


@router.get("/{workflowId}/reports")
def get_reports(caller: Reader, session: Store, workflow_id: Id) -> shapes.Reports:
    workflow = own(session, caller, workflow_id)
    return shapes.Reports(base_path=workflow.output_dir or "", reports=results.reports(workflow))


@router.post("/{workflowId}/cancel", status_code=204)
def cancel(
    caller: Launcher, session: Store, runner: Runs, workflow_id: Id, _: Annotated[dict[str, object] | None, Body()] = None, force: bool = False
) -> Response:
    """The run's processes are asked to end, and killed if they do not; force kills them at once."""
    workflow = own(session, caller, workflow_id)
    if workflow.status not in WAITING:
        raise conflict(f"Run {workflow.run_name} has ended: it is {workflow.status}.")
    workflow.cancelled, workflow.cancel_force = workflow.cancelled or now(), workflow.cancel_force or force
    if not workflow.ours:
        workflow.status, workflow.complete = "CANCELLED", now()
    session.commit()
    runner.wake()
    return NOTHING


@router.delete("/{workflowId}", status_code=204)
def delete_workflow(caller: Launcher, session: Store, settings: Config, workflow_id: Id) -> Response:
    """Forget a run that has ended and remove its files, its results among them if they are in its own folder."""
    workflow = own(session, caller, workflow_id)
    if workflow.status in WAITING:
        raise conflict(f"Run {workflow.run_name} is {workflow.status}: cancel it first.")
    shared = session.scalar(select(Workflow.id).where(Workflow.launch_dir == workflow.launch_dir, Workflow.id != workflow.id, Workflow.ours))
    session.execute(delete(Task).where(Task.workflow_id == workflow.id))
    session.delete(workflow)
    session.commit()
    if workflow.ours:  # the directories of another are what its client says
        _remove(settings, workflow, keep_launch=shared is not None)
    return NOTHING


def _remove(settings: Settings, workflow: Workflow, *, keep_launch: bool) -> None:
    """A run that goes on in another's launch directory needs it still."""
    folder, launch_dir = RunFolder(settings, workflow.id), File(workflow.launch_dir)
    for path in folder.path.iterdir() if folder.path.is_dir() else []:
        if not (keep_launch and path == launch_dir):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if not keep_launch:
        shutil.rmtree(folder.path, ignore_errors=True)
        if launch_dir != folder.launch_dir and launch_dir.is_relative_to(settings.data / "runs"):
            shutil.rmtree(launch_dir.parent, ignore_errors=True)  # the first run of the session is gone already


def own(session: Session, caller: Caller, workflow_id: str) -> Workflow:
    """Raises ApiError 403 if it is another's, or is not there."""
    found = session.get(Workflow, workflow_id)
    if found is None or found.user_id != caller.user_id:
        raise forbidden()
    return found


def _task(session: Session, workflow: Workflow, task_id: int) -> Task:
    found = session.scalar(select(Task).where(Task.workflow_id == workflow.id, Task.task_id == task_id))
    if found is None:
        raise forbidden()
    return found


def _entry(session: Session, caller: Caller, workflow: Workflow, attributes: str, *, each_process: bool = True) -> shapes.WorkflowEntry:
    wanted = attributes.split(",")
    return shapes.WorkflowEntry(
        workflow=shapes.WorkflowShape.model_validate(workflow),
        progress=progress_of(workflow, each=each_process) if "progress" in wanted or not attributes else None,
        labels=labels_of(session, workflow.label_ids) if "labels" in wanted or not attributes else None,
        org_id=1,
        org_name=ORG,
        workspace_id=caller.workspace_id,
        workspace_name=caller.user_name,
    )


def progress_of(workflow: Workflow, *, each: bool = True) -> shapes.ProgressShape:
    return shapes.ProgressShape(
        workflow_progress=workflow.workflow_progress or trace.counters([]),
        processes_progress=workflow.processes_progress if each else [],
        total_processes=workflow.total_processes,
    )


def task_shape(task: Task) -> shapes.TaskShape:
    shape = shapes.TaskShape.model_validate({name: getattr(task, name) for name in shapes.TaskShape.model_fields if name != "id"} | {"id": task.task_id})
    return shape.model_copy(update={"executor": "local", **{name: task.measured.get(name) for name in trace.MEASURED.values()}})
