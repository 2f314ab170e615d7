"""From a launch request to a run that waits for its turn."""

from __future__ import annotations

import json
import random
import re
import secrets
import shutil
import string
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from launchpad import datasets, params
from launchpad.auth import Caller
from launchpad.errors import bad_request, conflict
from launchpad.folders import RunFolder, places
from launchpad.settings import Settings
from launchpad.shapes import ComputeEnv, Launch, LaunchRequest
from launchpad.store import Pipeline, Workflow
from launchpad.trace import FIELDS

COMPUTE_ENV = "local"
WAITING = ("SUBMITTED", "RUNNING")
BASE62 = string.digits + string.ascii_letters
EXAMPLES = ("test", "demo")  # profiles of a small run, which anyone may try
PIPELINE_ID = re.compile(r"[0-9]{1,15}")
RUN_NAME = re.compile(r"[a-z](?:[a-z0-9]|[-_](?=[a-z0-9])){0,79}")  # Nextflow's own rule
PROFILE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,49}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
FOR_ADMINISTRATORS = {
    "config_text": "configText", "pre_run_script": "preRunScript", "post_run_script": "postRunScript", "tower_config": "towerConfig",
    "main_script": "mainScript", "entry_name": "entryName", "schema_name": "schemaName", "pull_latest": "pullLatest",
    "user_secrets": "userSecrets", "workspace_secrets": "workspaceSecrets",
}  # fmt: skip
ADJECTIVES = ["amber", "bold", "brave", "bright", "calm", "clever", "curious", "deft", "eager", "fair", "fleet", "gentle", "golden", "keen", "kind", "lively", "loyal", "lucid", "merry", "nimble", "noble", "patient", "quick", "quiet", "sharp", "silver", "sunny", "swift", "warm", "wise"]  # fmt: skip
ANIMALS = ["alpaca", "badger", "beaver", "condor", "crane", "deer", "dolphin", "falcon", "finch", "fox", "gecko", "heron", "ibis", "jaguar", "koala", "lark", "llama", "lynx", "marten", "otter", "owl", "panda", "puma", "raven", "robin", "seal", "swan", "tapir", "toucan", "vicuna"]  # fmt: skip


def new_id() -> str:
    return "".join(secrets.choice(BASE62) for _ in range(14))


def compute_env(settings: Settings) -> ComputeEnv:
    """The one that there is: this machine."""
    work_dir = str(settings.data / "runs")
    config: dict[str, Any] = {
        "discriminator": "local-platform",
        "workDir": work_dir,
        "preRunScript": None,
        "postRunScript": None,
        "environment": [],
        "headJobCpus": None,
    }
    return ComputeEnv(id=COMPUTE_ENV, name="This machine", platform="local-platform", status="AVAILABLE", primary=True, work_dir=work_dir, config=config)


def launch_shape(settings: Settings, launch_id: str, kept: dict[str, Any], pipeline_id: int | None = None) -> Launch:
    """What GET .../launch answers: a launch as it was asked for, with its compute environment whole."""
    fields = {name: value for name, value in LaunchRequest.model_validate(kept).model_dump().items() if value is not None and name in Launch.model_fields}
    return Launch(**{"pipeline": "", **fields, "id": launch_id, "pipeline_id": pipeline_id, "compute_env": compute_env(settings)})


def submit(session: Session, settings: Settings, caller: Caller, request: LaunchRequest) -> Workflow:
    """Check a launch, make its folder and queue it. Raises ApiError; then nothing is left of it."""
    pipeline = pipeline_of(session, caller, request)
    request = with_defaults(pipeline, request)
    original = _original(session, caller, request) if request.resume else None
    _refuse_full_queue(session, settings)
    name = free_name(session, caller, request.run_name)
    workflow_id = new_id()
    folder = RunFolder(settings, workflow_id)
    repository = pipeline.repository if pipeline else request.pipeline or ""
    resolved = _resolved(session, settings, caller, repository, request, folder.results)
    launch_dir = Path(original.launch_dir) if original else folder.launch_dir
    workflow = Workflow(
        id=workflow_id,
        user_id=caller.user_id,
        user_name=caller.user_name,
        run_name=name,
        session_id=original.session_id if original else str(uuid.uuid4()),
        project_name=pipeline.name if pipeline else repository,
        repository=repository,
        launch_dir=str(launch_dir),
        work_dir=original.work_dir if original else _work_dir(settings, caller, request, launch_dir),
        output_dir=_output_dir(resolved, launch_dir),
        launch=request.model_dump(exclude_none=True) | {"pipeline": repository},
        params=resolved,
        resume=bool(request.resume),
        revision=request.revision,
        profile=",".join(request.config_profiles or []) or None,
        config_text=request.config_text,
        label_ids=request.label_ids or [],
    )
    try:
        _write(folder, workflow, request)
        session.add(workflow)
        session.commit()
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return workflow


def pipeline_of(session: Session, caller: Caller, request: LaunchRequest) -> Pipeline | None:
    """The registered pipeline that is meant, None where an administrator runs another. Raises ApiError 400 if this caller may not launch that."""
    pipeline = _pipeline(session, caller, request)
    refuse_unusable(request)
    if pipeline and not caller.may("admin"):
        _refuse_not_own(pipeline, request)
    return pipeline


def with_defaults(pipeline: Pipeline | None, request: LaunchRequest) -> LaunchRequest:
    """What the pipeline was registered with, where the request says nothing."""
    kept = pipeline.launch if pipeline else {}
    return request.model_copy(update={name: value for name, value in kept.items() if getattr(request, name) is None})


def _pipeline(session: Session, caller: Caller, request: LaunchRequest) -> Pipeline | None:
    by_id = session.get(Pipeline, int(request.id)) if request.id and PIPELINE_ID.fullmatch(request.id) else None
    if by_id and request.pipeline in (None, "", by_id.repository):
        return by_id
    if not request.pipeline:
        raise bad_request("launch.pipeline is missing: the repository of a pipeline, as GET /pipelines/{id}/launch answers it.")
    found = session.scalar(select(Pipeline).where(Pipeline.repository == request.pipeline).order_by(Pipeline.pipeline_id))
    if found is None and not caller.may("admin"):
        raise bad_request(f"Unknown pipeline {request.pipeline[:200]!r}. Those that can be launched: GET /pipelines; an administrator can add one.")
    if found is None and request.pipeline.startswith("-"):
        raise bad_request("A pipeline's name does not begin with '-'.")
    return found


def _original(session: Session, caller: Caller, request: LaunchRequest) -> Workflow:
    """The run that is resumed: the latest of that session."""
    if not request.session_id:
        raise bad_request("resume needs the sessionId of the run to go on with, as GET /workflow/{id} answers it.")
    runs = select(Workflow).where(Workflow.user_id == caller.user_id, Workflow.session_id == request.session_id, Workflow.ours)
    found = session.scalars(runs.order_by(Workflow.submit.desc())).first()
    if found is None:
        raise bad_request(f"There is no run of session {request.session_id[:60]!r} to resume.")
    if found.status in WAITING:
        raise conflict(f"Run {found.run_name} of that session is {found.status}: cancel it, or wait for its end.")
    if found.start is None:
        raise bad_request(f"Run {found.run_name} never started, so there is nothing to resume: launch it without resume.")
    return found


def _refuse_full_queue(session: Session, settings: Settings) -> None:
    waiting = session.scalar(select(func.count()).select_from(Workflow).where(Workflow.status == "SUBMITTED", Workflow.ours)) or 0
    if waiting >= settings.max_queued:
        raise conflict(f"The queue is full: {waiting} runs wait already. Try again when some have ended.")


def free_name(session: Session, caller: Caller, wanted: str | None) -> str:
    """Raises ApiError 400 for a name that Nextflow would refuse, 409 for one that is taken."""
    if wanted:
        if not RUN_NAME.fullmatch(wanted):
            raise bad_request(f"{wanted[:100]!r} is no run name: up to 80 lower-case letters, digits, '-' and '_', a letter first.")
        if is_taken(session, caller, wanted):
            raise conflict(f"There is a run called {wanted} already.")
        return wanted
    while True:
        name = f"{random.choice(ADJECTIVES)}_{random.choice(ANIMALS)}_{random.randrange(1000)}"
        if not is_taken(session, caller, name):
            return name


def is_taken(session: Session, caller: Caller, name: str) -> bool:
    return session.scalar(select(Workflow.id).where(Workflow.user_id == caller.user_id, Workflow.run_name == name)) is not None


def refuse_unusable(request: LaunchRequest) -> None:
    """Raise ApiError 400 for a compute environment that is not there, and for profiles and revisions that cannot be any."""
    if request.compute_env_id not in (None, "", COMPUTE_ENV):
        raise bad_request(f"Unknown compute environment {request.compute_env_id[:60]!r}. There is one: {COMPUTE_ENV!r}, this machine.")
    for profile in request.config_profiles or []:
        if not PROFILE.fullmatch(profile):
            raise bad_request(f"{profile[:60]!r} is no profile's name.")
    if request.revision and not REVISION.fullmatch(request.revision):
        raise bad_request(f"{request.revision[:60]!r} is no revision.")


def _refuse_not_own(pipeline: Pipeline, request: LaunchRequest) -> None:
    """Raise ApiError 400 for what only administrators may ask for."""
    theirs = [ours for name, ours in FOR_ADMINISTRATORS.items() if getattr(request, name) and getattr(request, name) != pipeline.launch.get(name)]
    if theirs:
        raise bad_request(f"Only an administrator's token may launch with {', '.join(theirs)}.")
    allowed = [*(pipeline.launch.get("config_profiles") or []), *EXAMPLES]
    if set(request.config_profiles or []) - set(allowed):
        raise bad_request(f"Only an administrator's token may launch with profiles other than {', '.join(allowed)}.")
    revision = pipeline.launch.get("revision")
    if request.revision not in (None, "", revision):
        raise bad_request(f"Only an administrator's token may launch another revision than {revision or 'the one registered'}.")


def _resolved(session: Session, settings: Settings, caller: Caller, repository: str, request: LaunchRequest, results: Path) -> dict[str, Any]:
    """The parameters as Nextflow gets them, datasets as files: checked against the schema, and against what the caller may read and write."""
    given = params.parse(request.params_text)
    if request.output_dir:
        given = {"outdir": request.output_dir} | given
    text = params.read_schema(Path(repository), request.schema_name) if Path(repository).is_dir() else None
    schema = json.loads(text) if text else {}
    resolved = datasets.as_files(session, settings, caller, given)
    if "outdir" in dict(params.properties(schema)):
        resolved = {"outdir": str(results)} | resolved
    # a profile may give what is required, which the pipeline itself sees to then
    params.refuse_invalid(resolved, schema, complete=not request.config_profiles)
    if not caller.may("admin"):
        named = {name: value for name, value in given.items() if resolved[name] == value}
        params.refuse_foreign_paths(named, [*places(settings, caller), *_own_results(session, settings, caller, named)])
        _refuse_foreign_code(given)
    return resolved


def _own_results(session: Session, settings: Settings, caller: Caller, named: dict[str, Any]) -> list[Path]:
    """The results of those of the caller's runs that parameters name: a run may go on from an earlier one, as `previous_dataset` does."""
    runs = settings.data / "runs"
    ids = {Path(word).relative_to(runs).parts[0] for word in params.local_paths(named) if runs in Path(word).parents}
    own = session.scalars(select(Workflow.id).where(Workflow.user_id == caller.user_id, Workflow.id.in_(ids)))
    return [RunFolder(settings, workflow_id).results for workflow_id in own]


def _refuse_foreign_code(given: dict[str, Any]) -> None:
    """Raise ApiError 400 for Hugging Face's parameter that runs Python files of whoever uploaded a model, here with the service's own rights."""
    if given.get("trust_remote_code"):
        raise bad_request("--trust_remote_code: only an administrator's token may launch with it: a run has the service's own rights.")


def _work_dir(settings: Settings, caller: Caller, request: LaunchRequest, launch_dir: Path) -> str:
    """Beside the run's other files, unless a place is named that is not just the compute environment's."""
    if request.work_dir in (None, "", compute_env(settings).work_dir):
        return str(launch_dir / "work")
    if not caller.may("admin"):
        params.refuse_foreign_paths({"workDir": request.work_dir}, places(settings, caller))
    return request.work_dir if params.REMOTE.match(request.work_dir) else str(launch_dir / request.work_dir)


def _output_dir(resolved: dict[str, Any], launch_dir: Path) -> str | None:
    """Where the results will be, if that is on this machine."""
    outdir = resolved.get("outdir")
    return str(launch_dir / outdir) if isinstance(outdir, str) and not params.REMOTE.match(outdir) else None


def _write(folder: RunFolder, workflow: Workflow, request: LaunchRequest) -> None:
    """Everything that the run is given, in files only its owner can read; in the end the folder is there whole."""
    folder.path.mkdir(parents=True, mode=0o700)
    Path(workflow.launch_dir).mkdir(exist_ok=True)
    folder.params.touch(mode=0o600)
    folder.params.write_text(json.dumps(workflow.params, ensure_ascii=False), encoding="utf-8")
    folder.config.write_text(launch_config(folder.trace), encoding="utf-8")
    for file, text in ((folder.extra_config, request.config_text), (folder.pre_run, request.pre_run_script), (folder.post_run, request.post_run_script)):
        if text:
            file.write_text(text, encoding="utf-8")


def launch_config(trace: Path) -> str:
    """Nextflow's trace where the launchpad reads it, in numbers instead of words."""
    quoted = str(trace).replace("\\", "\\\\").replace("'", "\\'")
    return (
        f"trace {{\n    enabled = true\n    overwrite = true\n    raw = true\n    sep = '\\t'\n    file = '{quoted}'\n    fields = '{','.join(FIELDS)}'\n}}\n"
    )


def command(settings: Settings, workflow: Workflow) -> list[str]:
    """The command line of a run; each part is one word, whatever is in it."""
    folder, launch = RunFolder(settings, workflow.id), workflow.launch
    configs = [folder.config, *([folder.extra_config] if folder.extra_config.exists() else [])]
    words = [settings.nextflow, "-log", folder.log, "run", workflow.repository, "-name", workflow.run_name, "-params-file", folder.params, "-ansi-log", "false"]
    words += ["-w", workflow.work_dir, *(word for config in configs for word in ("-c", config))]
    for flag, value in (
        ("-profile", workflow.profile),
        ("-r", workflow.revision),
        ("-main-script", launch.get("main_script")),
        ("-entry", launch.get("entry_name")),
    ):
        words += [flag, value] if value else []
    words += ["-resume", workflow.session_id] if workflow.resume else []
    words += [flag for flag, name in (("-latest", "pull_latest"), ("-stub-run", "stub_run")) if launch.get(name)]
    return [str(word) for word in words]
