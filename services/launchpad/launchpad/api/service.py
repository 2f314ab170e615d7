"""Who and where: the service, the user, workspaces, compute environments."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from launchpad import launches, shapes
from launchpad.api.common import Config
from launchpad.auth import Reader
from launchpad.errors import forbidden

API_VERSION = "1.181.0"  # of the Platform, whose shapes these are
ORG = "llamaflow"
router = APIRouter(tags=["service"])


@router.get("/service-info")
def service_info() -> shapes.ServiceInfoAnswer:
    return shapes.ServiceInfoAnswer(
        service_info=shapes.ServiceInfo(
            version="0.1.0",
            api_version=API_VERSION,
            auth_types=["token"],
            login_path="/login",
            heartbeat_interval=60,
            user_workspace_enabled=True,
            allow_instance_credentials=False,
        )
    )


@router.get("/user-info")
def user_info(caller: Reader) -> shapes.UserInfo:
    return shapes.UserInfo(user=shapes.UserShape(id=caller.user_id, user_name=caller.user_name), default_workspace_id=caller.workspace_id)


@router.get("/user/{userId}/workspaces")
def workspaces(caller: Reader, user_id: Annotated[int, Path(alias="userId")]) -> shapes.OrgsAndWorkspaces:
    if user_id != caller.user_id:
        raise forbidden()
    roles = ["owner"] if caller.may("admin") else ["launch"] if caller.may("launch") else ["view"]
    own = shapes.OrgAndWorkspace(
        org_id=1,
        org_name=ORG,
        workspace_id=caller.workspace_id,
        workspace_name=caller.user_name,
        workspace_full_name=f"{caller.user_name}'s workspace",
        visibility="PRIVATE",
        roles=roles,
    )
    return shapes.OrgsAndWorkspaces(orgs_and_workspaces=[own])


@router.get("/compute-envs")
def compute_envs(_: Reader, settings: Config, status: str | None = None) -> shapes.ComputeEnvs:
    only = launches.compute_env(settings)
    return shapes.ComputeEnvs(compute_envs=[only] if status in (None, only.status) else [])


@router.get("/compute-envs/{computeEnvId}")
def compute_env(_: Reader, settings: Config, compute_env_id: Annotated[str, Path(alias="computeEnvId")]) -> shapes.ComputeEnvAnswer:
    only = launches.compute_env(settings)
    if compute_env_id != only.id:
        raise forbidden()
    return shapes.ComputeEnvAnswer(compute_env=only)
