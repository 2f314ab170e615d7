"""Pipelines that can be launched: LlamaFlow, and what administrators add."""

from __future__ import annotations

from pathlib import Path as File
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from launchpad import launches, params, shapes
from launchpad.api.common import NOTHING, Config, Max, Offset, Search, contains, count, labels_of, refuse_foreign_labels
from launchpad.auth import Admin, Reader, Store
from launchpad.errors import bad_request, conflict, forbidden
from launchpad.shapes import MOST, LabelShape, LaunchRequest, Shape, Time
from launchpad.store import Pipeline, now

router = APIRouter(prefix="/pipelines", tags=["pipelines"])
Id = Annotated[int, Path(alias="pipelineId", ge=0, le=MOST)]


class PipelineShape(Shape):
    pipeline_id: int
    name: str
    description: str | None
    icon: str | None
    repository: str
    user_name: str | None = None
    user_first_name: str | None = None
    user_last_name: str | None = None
    org_id: int | None = None
    org_name: str | None = None
    workspace_id: int | None = None
    workspace_name: str | None = None
    visibility: str = "SHARED"
    labels: list[LabelShape] | None = None
    date_created: Time
    last_updated: Time


class PipelineAnswer(Shape):
    pipeline: PipelineShape


class Pipelines(Shape):
    pipelines: list[PipelineShape]
    total_size: int


class PipelineRequest(Shape):
    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{1,98}$")
    description: str | None = Field(None, max_length=1000)
    icon: str | None = Field(None, max_length=255)
    label_ids: list[Annotated[int, Field(ge=0, le=MOST)]] | None = None
    launch: LaunchRequest


class PipelineSchema(Shape):
    """schema_ is the text of nextflow_schema.json, params what a launch begins with, both strings."""

    schema_: str = Field(alias="schema")
    params: str | None


@router.get("")
def list_pipelines(_: Reader, session: Store, max: Max = 50, offset: Offset = 0, search: Search = None) -> Pipelines:  # noqa: A002 - the Platform's name
    found = select(Pipeline).order_by(Pipeline.pipeline_id)
    if search:
        found = found.where(Pipeline.name.like(contains(search), escape="\\"))
    page = session.scalars(found.limit(max).offset(offset))
    return Pipelines(pipelines=[_shape(session, pipeline) for pipeline in page], total_size=count(session, found))


@router.post("")
def add_pipeline(caller: Admin, session: Store, body: PipelineRequest) -> PipelineAnswer:
    _refuse_taken(session, body.name)
    pipeline = Pipeline(name=body.name, repository="")
    session.add(pipeline)
    refuse_foreign_labels(session, caller, body.label_ids)
    return _take_over(session, pipeline, body)


@router.get("/{pipelineId}")
def get_pipeline(_: Reader, session: Store, pipeline_id: Id) -> PipelineAnswer:
    return PipelineAnswer(pipeline=_shape(session, _known(session, pipeline_id)))


@router.put("/{pipelineId}")
def change_pipeline(caller: Admin, session: Store, pipeline_id: Id, body: PipelineRequest) -> PipelineAnswer:
    pipeline = _known(session, pipeline_id)
    if pipeline.name != body.name:
        _refuse_taken(session, body.name)
    refuse_foreign_labels(session, caller, body.label_ids)
    return _take_over(session, pipeline, body)


@router.delete("/{pipelineId}", status_code=204)
def remove_pipeline(_: Admin, session: Store, pipeline_id: Id) -> Response:
    session.delete(_known(session, pipeline_id))
    session.commit()
    return NOTHING


@router.get("/{pipelineId}/launch")
def get_launch(_: Reader, session: Store, settings: Config, pipeline_id: Id) -> shapes.LaunchAnswer:
    pipeline = _known(session, pipeline_id)
    kept = pipeline.launch | {"pipeline": pipeline.repository}
    return shapes.LaunchAnswer(launch=launches.launch_shape(settings, str(pipeline_id), kept, pipeline_id))


@router.get("/{pipelineId}/schema", responses={204: {"description": "The pipeline has none, or is not on this machine."}})
def get_schema(_: Reader, session: Store, pipeline_id: Id) -> PipelineSchema:
    pipeline = _known(session, pipeline_id)
    text = params.read_schema(File(pipeline.repository), pipeline.launch.get("schema_name")) if File(pipeline.repository).is_dir() else None
    if text is None:
        return NOTHING  # type: ignore[return-value]
    return PipelineSchema(schema_=text, params=pipeline.launch.get("params_text"))


def _known(session: Session, pipeline_id: int) -> Pipeline:
    found = session.get(Pipeline, pipeline_id)
    if found is None:
        raise forbidden()
    return found


def _refuse_taken(session: Session, name: str) -> None:
    if session.scalar(select(Pipeline.pipeline_id).where(Pipeline.name == name)) is not None:
        raise conflict(f"There is a pipeline called {name} already.")


def _take_over(session: Session, pipeline: Pipeline, body: PipelineRequest) -> PipelineAnswer:
    repository = body.launch.pipeline
    if not repository or repository.startswith("-"):
        raise bad_request("launch.pipeline is missing: a directory on this machine, or the address of a git repository.")
    launches.refuse_unusable(body.launch)
    params.parse(body.launch.params_text)
    pipeline.name, pipeline.repository, pipeline.description, pipeline.icon = body.name, repository, body.description, body.icon
    pipeline.label_ids, pipeline.last_updated = body.label_ids or [], now()
    pipeline.launch = body.launch.model_dump(exclude_none=True)
    session.commit()
    return PipelineAnswer(pipeline=_shape(session, pipeline))


def _shape(session: Session, pipeline: Pipeline) -> PipelineShape:
    return PipelineShape.model_validate(pipeline).model_copy(update={"labels": labels_of(session, pipeline.label_ids)})
