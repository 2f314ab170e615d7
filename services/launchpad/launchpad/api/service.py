"""Who and where: the service, the user, workspaces, compute environments."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from launchpad import launches
from launchpad.api.common import Config
from launchpad.auth import Reader
from launchpad.errors import forbidden
from launchpad.shapes import ComputeEnv, Object, Shape

API_VERSION = "1.181.0"  # of the Platform, whose shapes these are
ORG = "llamaflow"
router = APIRouter(tags=["service"])


class ServiceInfo(Shape):
    version: str
    api_version: str
    commit_id: str | None = None
    auth_types: list[str]
    login_path: str
    navbar: Object | None = None
    heartbeat_interval: int
    user_workspace_enabled: bool
    allow_instance_credentials: bool
    landing_url: str | None = None
    terms_of_use_url: str | None = None
    content_url: str | None = None


class ServiceInfoAnswer(Shape):
    service_info: ServiceInfo


class UserShape(Shape):
    id: int
    user_name: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    trusted: bool = True


class UserInfo(Shape):
    user: UserShape
    need_consent: bool = False
    default_workspace_id: int


class OrgAndWorkspace(Shape):
    org_id: int
    org_name: str
    workspace_id: int
    workspace_name: str
    workspace_full_name: str
    visibility: str
    roles: list[str]


class OrgsAndWorkspaces(Shape):
    orgs_and_workspaces: list[OrgAndWorkspace]


class ComputeEnvs(Shape):
    compute_envs: list[ComputeEnv]


class ComputeEnvAnswer(Shape):
    compute_env: ComputeEnv


@router.get("/service-info")
def service_info() -> ServiceInfoAnswer:
    return ServiceInfoAnswer(
        service_info=ServiceInfo(
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
def user_info(caller: Reader) -> UserInfo:
    return UserInfo(user=UserShape(id=caller.user_id, user_name=caller.user_name), default_workspace_id=caller.workspace_id)


@router.get("/user/{userId}/workspaces")
def workspaces(caller: Reader, user_id: Annotated[int, Path(alias="userId")]) -> OrgsAndWorkspaces:
    if user_id != caller.user_id:
        raise forbidden()
    roles = ["owner"] if caller.may("admin") else ["launch"] if caller.may("launch") else ["view"]
    own = OrgAndWorkspace(
        org_id=1,
        org_name=ORG,
        workspace_id=caller.workspace_id,
        workspace_name=caller.user_name,
        workspace_full_name=f"{caller.user_name}'s workspace",
        visibility="PRIVATE",
        roles=roles,
    )
    return OrgsAndWorkspaces(orgs_and_workspaces=[own])


@router.get("/compute-envs")
def compute_envs(_: Reader, settings: Config, status: str | None = None) -> ComputeEnvs:
    only = launches.compute_env(settings)
    return ComputeEnvs(compute_envs=[only] if status in (None, only.status) else [])


@router.get("/compute-envs/{computeEnvId}")
def compute_env(_: Reader, settings: Config, compute_env_id: Annotated[str, Path(alias="computeEnvId")]) -> ComputeEnvAnswer:
    only = launches.compute_env(settings)
    if compute_env_id != only.id:
        raise forbidden()
    return ComputeEnvAnswer(compute_env=only)
