"""The launch form, and a launch from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import FormData, UploadFile

from launchpad import datasets, params, shapes
from launchpad.api import datasets as datasets_api
from launchpad.api import workflows
from launchpad.api.common import Config, Runs
from launchpad.auth import Caller, Launcher, Store
from launchpad.errors import ApiError, bad_request, forbidden
from launchpad.folders import checked_file_name
from launchpad.settings import Settings
from launchpad.shapes import MOST
from launchpad.store import Dataset, DatasetVersion, Pipeline
from launchpad.web.forms import Field, Group, faults_by_field, fields_of, groups_of, params_of, sections_of, text_of, typed_into
from launchpad.web.guard import Form, Page
from launchpad.web.render import page

MOST_DATASETS = 50  # versions that can be chosen from
router = APIRouter(route_class=Page, include_in_schema=False)
Id = Annotated[int, Path(alias="pipelineId", ge=0, le=MOST)]
From = Annotated[str | None, Query(alias="from", description="a run to begin with the parameters of")]


@dataclass
class Typed:
    """What a form holds. Of a pipeline without a schema the parameters are one text."""

    fields: dict[str, str] = field(default_factory=dict)
    params_text: str = ""
    run_name: str = ""
    profiles: str = ""


@router.get("/launch")
def choose_pipeline(caller: Launcher, session: Store) -> Response:
    found = session.scalars(select(Pipeline).order_by(Pipeline.pipeline_id)).all()
    if len(found) == 1:
        return RedirectResponse(f"/launch/{found[0].pipeline_id}", 303)
    return page("pipelines.html", caller=caller, pipelines=found)


@router.get("/launch/{pipelineId}")
def show_form(caller: Launcher, session: Store, pipeline_id: Id, run: From = None) -> Response:
    pipeline = _known(session, pipeline_id)
    kept = workflows.own(session, caller, run).launch if run else pipeline.launch
    text = kept.get("params_text") or ""
    typed = Typed(params_text=text, profiles=", ".join(kept.get("config_profiles") or []))
    typed.fields = {name: text_of(value) for name, value in params.parse(text).items() if value is not None}
    return _form(session, caller, pipeline, typed)


# bodies may be as large as a dataset where the address ends so
@router.post("/launch/{pipelineId}")
@router.post("/launch/{pipelineId}/upload")
def launch(caller: Launcher, session: Store, settings: Config, runner: Runs, pipeline_id: Id, form: Form) -> Response:
    """Launch, or show the form again with all that is wrong."""
    pipeline = _known(session, pipeline_id)
    fields = fields_of(_groups(pipeline))
    typed = Typed(typed_into(fields, form), *(str(form.get(name, "")).strip() for name in ("params_text", "run_name", "profiles")))
    try:
        for field in fields:
            if field.kind == "data":
                typed.fields[field.name] = _data(session, settings, caller, field, form) or typed.fields[field.name]
        body = shapes.LaunchBody(launch=_request(pipeline, fields, typed))
        launched = workflows.launch(caller, session, settings, runner, body)
    except ApiError as error:
        if error.status not in (400, 409):
            raise
        return _form(session, caller, pipeline, typed, error)
    return RedirectResponse(f"/runs/{launched.workflow_id}", 303)


def _known(session: Session, pipeline_id: int) -> Pipeline:
    found = session.get(Pipeline, pipeline_id)
    if found is None:
        raise forbidden()
    return found


def _groups(pipeline: Pipeline) -> list[Group]:
    """None for a pipeline without a schema, or elsewhere."""
    directory = File(pipeline.repository)
    text = params.read_schema(directory, pipeline.launch.get("schema_name")) if directory.is_dir() else None
    return groups_of(json.loads(text)) if text else []


def _request(pipeline: Pipeline, fields: Sequence[Field], typed: Typed) -> shapes.LaunchRequest:
    text = json.dumps(params_of(fields, typed.fields), ensure_ascii=False) if fields else typed.params_text
    profiles = [name for name in typed.profiles.replace(",", " ").split() if name]
    changes: dict[str, Any] = {"pipeline": pipeline.repository, "params_text": text, "config_profiles": profiles, "run_name": typed.run_name or None}
    return shapes.LaunchRequest.model_validate(pipeline.launch).model_copy(update=changes)


def _data(session: Session, settings: Settings, caller: Caller, field: Field, form: FormData) -> str | None:
    """The address of the table that was uploaded or chosen, if one was."""
    file, chosen = form.get(f"{field.name}.file"), form.get(f"{field.name}.dataset")
    if not isinstance(file, UploadFile) or not file.filename:
        return chosen if isinstance(chosen, str) else None
    try:
        return datasets.address("", _kept(session, settings, caller, file.filename, file))
    except ApiError as error:
        raise bad_request(f"--{field.name}: {error.message}") from None


def _kept(session: Session, settings: Settings, caller: Caller, file_name: str, file: UploadFile) -> DatasetVersion:
    """An upload, as the next version of the dataset of its name; without one it is the first of a new one."""
    name = checked_file_name(file_name).replace(" ", "-")[:100]
    dataset = session.scalar(select(Dataset).where(Dataset.user_id == caller.user_id, Dataset.name == name))
    is_new = dataset is None
    if dataset is None:
        made = datasets_api.create_dataset(caller, session, datasets_api.DatasetRequest(name=name))
        dataset = datasets.own(session, caller, made.dataset.id)
    try:
        return datasets.add_version(session, settings, dataset, file_name, file.file, header=True)
    except ApiError:
        if is_new:
            datasets.delete(session, settings, dataset)
        raise


def _form(session: Session, caller: Caller, pipeline: Pipeline, typed: Typed, error: ApiError | None = None) -> Response:
    groups = _groups(pipeline)
    faults, others = faults_by_field((error.errors or [error.message]) if error else [], fields_of(groups))
    return page(
        "launch.html",
        error.status if error else 200,
        caller=caller,
        pipeline=pipeline,
        typed=typed,
        sections=sections_of(groups, typed.fields, faults),
        others=others,
        faults=faults,
        datasets=_datasets(session, caller),
    )


def _datasets(session: Session, caller: Caller) -> list[tuple[str, str]]:
    """Address and name of the user's tables, the latest first."""
    found = select(Dataset, DatasetVersion).join(DatasetVersion, DatasetVersion.dataset_id == Dataset.id).where(Dataset.user_id == caller.user_id)
    rows = session.execute(found.order_by(DatasetVersion.date_created.desc()).limit(MOST_DATASETS))
    return [(datasets.address("", version), f"{dataset.name}, version {version.version}") for dataset, version in rows]
