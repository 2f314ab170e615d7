"""The Platform's JSON: snake_case here, camelCase outside, times as YYYY-MM-DDTHH:MM:SSZ."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

Object = dict[str, Any]
Time = Annotated[dt.datetime, PlainSerializer(lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str)]
Id = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]
MOST = 2**53 - 1  # JSON's largest exact integer


class Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class Fault(Shape):
    code: str
    message: str


class Failure(Shape):
    message: str
    errors: list[Fault] | None = None


class ComputeEnv(Shape):
    id: str
    name: str
    platform: str
    status: str
    primary: bool
    work_dir: str
    config: Object
    workspace_name: str | None = None
    message: str | None = None
    last_used: Time | None = None


class LaunchRequest(Shape):
    """What is to run. paramsText is a string of JSON or YAML."""

    id: Id | None = None
    compute_env_id: str | None = None
    run_name: str | None = Field(None, max_length=80)
    pipeline: str | None = None
    work_dir: str | None = None
    revision: str | None = None
    session_id: str | None = None
    config_profiles: list[str] | None = None
    user_secrets: list[str] | None = None
    workspace_secrets: list[str] | None = None
    config_text: str | None = None
    tower_config: str | None = None
    params_text: str | None = None
    pre_run_script: str | None = None
    post_run_script: str | None = None
    main_script: str | None = None
    entry_name: str | None = None
    schema_name: str | None = None
    resume: bool | None = None
    pull_latest: bool | None = None
    stub_run: bool | None = None
    label_ids: list[Annotated[int, Field(ge=0, le=MOST)]] | None = None
    head_job_cpus: int | None = None
    head_job_memory_mb: int | None = None
    output_dir: str | None = None


class LaunchBody(Shape):
    launch: LaunchRequest


class Launched(Shape):
    workflow_id: str


class Launch(Shape):
    """A launch as it is kept: of a run, or of a pipeline."""

    id: str
    compute_env: ComputeEnv
    pipeline: str
    pipeline_id: int | None = None
    work_dir: str | None = None
    revision: str | None = None
    session_id: str | None = None
    config_profiles: list[str] = []
    user_secrets: list[str] = []
    workspace_secrets: list[str] = []
    config_text: str | None = None
    tower_config: str | None = None
    params_text: str | None = None
    pre_run_script: str | None = None
    post_run_script: str | None = None
    main_script: str | None = None
    entry_name: str | None = None
    schema_name: str | None = None
    resume: bool = False
    resume_dir: str | None = None
    resume_commit_id: str | None = None
    pull_latest: bool = False
    stub_run: bool = False
    date_created: Time | None = None


class LaunchAnswer(Shape):
    launch: Launch


class LabelShape(Shape):
    id: int
    name: str
    value: str | None = None
    resource: bool = False
    is_default: bool = False


class WorkflowShape(Shape):
    """A run; what is not known yet is null."""

    id: str
    owner_id: int = Field(validation_alias="user_id", serialization_alias="ownerId")
    run_name: str
    session_id: str
    status: str
    submit: Time
    start: Time | None
    complete: Time | None
    duration: int | None
    date_created: Time
    last_updated: Time
    user_name: str
    command_line: str | None
    project_name: str
    script_name: str | None
    repository: str
    revision: str | None
    commit_id: str | None
    launch_id: str = Field(validation_alias="id", serialization_alias="launchId")
    launch_dir: str
    work_dir: str
    output_dir: str | None
    profile: str | None
    params: Object
    config_files: list[str]
    config_text: str | None
    container: str | None
    manifest: Object | None
    nextflow: Object | None
    stats: Object | None
    success: bool | None
    exit_status: int | None
    error_message: str | None
    error_report: str | None
    resume: bool


class ProgressShape(Shape):
    workflow_progress: Object | None
    processes_progress: list[Object]
    total_processes: int


class ProgressAnswer(Shape):
    progress: ProgressShape


class WorkflowEntry(Shape):
    workflow: WorkflowShape
    progress: ProgressShape | None = None
    labels: list[LabelShape] | None = None
    starred: bool = False
    org_id: int
    org_name: str
    workspace_id: int
    workspace_name: str


class Workflows(Shape):
    workflows: list[WorkflowEntry]
    total_size: int | None = None
    has_more: bool


class WorkflowAnswer(WorkflowEntry):
    platform: Object
    job_info: Object
    messages: list[str]
    results: Object | None = None


class TaskShape(Shape):
    model_config = ConfigDict(extra="allow")
    id: int
    task_id: int
    status: str
    hash: str
    name: str
    process: str
    tag: str | None
    exit: int | None
    attempt: int
    submit: Time | None
    start: Time | None
    complete: Time | None
    duration: int | None
    realtime: int | None
    workdir: str | None


class TaskEntry(Shape):
    task: TaskShape


class Tasks(Shape):
    tasks: list[TaskEntry]
    total: int


class Metrics(Shape):
    metrics: list[Object]


class Download(Shape):
    save_name: str
    file_name: str
    display_text: str


class Log(Shape):
    entries: list[str]
    truncated: bool
    pending: bool
    message: str | None = None
    forward_token: str | None = None
    rewind_token: str | None = None
    downloads: list[Download]


class LogAnswer(Shape):
    log: Log


class Report(Shape):
    display: str
    mime_type: str
    path: str
    size: int
    external_link: str | None = None


class Reports(Shape):
    base_path: str
    reports: list[Report]
