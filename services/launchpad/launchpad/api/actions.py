"""Launches that are kept, to be made again with other parameters: what a schedule or a web hook calls."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from launchpad import launches, params, shapes
from launchpad.api.common import NOTHING, Config, Runs
from launchpad.auth import Caller, Launcher, Reader, Store
from launchpad.errors import conflict, forbidden
from launchpad.settings import Settings
from launchpad.shapes import Launch, LaunchRequest, Object, Shape, Time
from launchpad.store import Action, now

router = APIRouter(prefix="/actions", tags=["actions"])
Id = Annotated[str, Path(alias="actionId")]


class ActionShape(Shape):
    id: str
    name: str
    source: str = "tower"
    status: str = "ACTIVE"
    launch: Launch
    endpoint: str
    last_seen: Time | None
    date_created: Time
    last_updated: Time


class ActionAnswer(Shape):
    action: ActionShape


class Actions(Shape):
    actions: list[ActionShape]


class ActionRequest(Shape):
    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,98}$")
    source: str = Field(pattern="^tower$")
    launch: LaunchRequest


class ActionCreated(Shape):
    action_id: str


class ActionLaunchBody(Shape):
    params: Object = Field(default_factory=dict)


@router.get("")
def list_actions(caller: Reader, session: Store, settings: Config, request: Request) -> Actions:
    found = session.scalars(select(Action).where(Action.user_id == caller.user_id).order_by(Action.date_created))
    return Actions(actions=[_shape(settings, request, action) for action in found])


@router.post("")
def create_action(caller: Launcher, session: Store, body: ActionRequest) -> ActionCreated:
    if session.scalar(select(Action.id).where(Action.user_id == caller.user_id, Action.name == body.name)) is not None:
        raise conflict(f"You have an action called {body.name} already.")
    launches.pipeline_of(session, caller, body.launch)
    params.parse(body.launch.params_text)
    action = Action(id=launches.new_id(), user_id=caller.user_id, name=body.name, launch=body.launch.model_dump(exclude_none=True))
    session.add(action)
    session.commit()
    return ActionCreated(action_id=action.id)


@router.get("/{actionId}")
def get_action(caller: Reader, session: Store, settings: Config, request: Request, action_id: Id) -> ActionAnswer:
    return ActionAnswer(action=_shape(settings, request, _own(session, caller, action_id)))


@router.delete("/{actionId}", status_code=204)
def delete_action(caller: Launcher, session: Store, action_id: Id) -> Response:
    session.delete(_own(session, caller, action_id))
    session.commit()
    return NOTHING


@router.post("/{actionId}/launch")
def launch_action(caller: Launcher, session: Store, settings: Config, runner: Runs, action_id: Id, body: ActionLaunchBody) -> shapes.Launched:
    """Launch with the action's parameters, and the body's in their place where both have them."""
    action = _own(session, caller, action_id)
    kept = LaunchRequest.model_validate(action.launch)
    merged = params.parse(kept.params_text) | body.params
    workflow = launches.submit(session, settings, caller, kept.model_copy(update={"params_text": json.dumps(merged), "run_name": None}))
    action.last_seen = now()
    session.commit()
    runner.wake()
    return shapes.Launched(workflow_id=workflow.id)


def _own(session: Session, caller: Caller, action_id: str) -> Action:
    found = session.get(Action, action_id)
    if found is None or found.user_id != caller.user_id:
        raise forbidden()
    return found


def _shape(settings: Settings, request: Request, action: Action) -> ActionShape:
    fields = {name: getattr(action, name) for name in ("id", "name", "last_seen", "date_created", "last_updated")}
    endpoint = f"{str(request.base_url).rstrip('/')}/api/actions/{action.id}/launch"
    return ActionShape(**fields, launch=launches.launch_shape(settings, action.id, action.launch), endpoint=endpoint)
