"""What the tests of the launchpad share: its data in a temporary directory, tokens of two users, and the service as a process."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from fastapi.testclient import TestClient
from ports import free_port

import launchpad
from launchpad import auth
from launchpad.app import create_app
from launchpad.auth import SCOPES
from launchpad.folders import RunFolder
from launchpad.launches import new_id
from launchpad.settings import Settings
from launchpad.store import Sessions, Workflow, now, open_store

SERVICE = Path(launchpad.__file__).parents[1]
PIPELINE = Path(__file__).parent / "pipeline"
USERS = ("ana", "bo")
ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}

Secrets = dict[tuple[str, str], str]  # (user, scope) -> token


def create_tokens(sessions: Sessions) -> Secrets:
    with sessions() as session:
        return {(user, scope): auth.create_token(session, user, scope, scope)[1] for user in USERS for scope in SCOPES}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def launch_body(params: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"launch": {"pipeline": str(PIPELINE), "paramsText": json.dumps({"word": "hello"} | (params or {})), **fields}}


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What the condition is once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.1)
    return found


def told(answer: Any, status: int) -> str:
    """The message of an error, which is in the Platform's shape."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) <= {"message", "errors"}
    assert all(set(fault) == {"code", "message"} for fault in body.get("errors", []))
    message: str = body["message"]
    return message


class Lab:
    """A launchpad without its runner: what is launched stays SUBMITTED."""

    def __init__(self, data: Path, **settings: Any) -> None:
        self.settings = Settings.model_validate({"data": data, "pipeline": PIPELINE, "requests_per_minute": 1_000_000} | settings)
        self.app = create_app(self.settings)
        self.sessions: Sessions = self.app.state.sessions
        self.secrets = create_tokens(self.sessions)

    def client(self, user: str = "ana", scope: str = "launch") -> TestClient:
        return TestClient(self.app, headers=bearer(self.secrets[user, scope]))

    def user_id(self, user: str) -> int:
        found: int = self.client(user).get("/api/user-info").json()["user"]["id"]
        return found

    def launched(self, params: dict[str, Any] | None = None, **fields: Any) -> str:
        answer = self.client().post("/api/workflow/launch", json=launch_body(params, **fields))
        assert answer.status_code == 200, answer.text
        found: str = answer.json()["workflowId"]
        return found

    def ended(self, user: str = "ana", **fields: Any) -> str:
        """The id of a run that has ended, put straight into the store."""
        workflow_id = new_id()
        launch_dir = RunFolder(self.settings, workflow_id).launch_dir
        known: dict[str, Any] = {
            "id": workflow_id,
            "user_id": self.user_id(user),
            "user_name": user,
            "run_name": f"run_{uuid.uuid4().hex}",
            "session_id": str(uuid.uuid4()),
            "project_name": "tiny",
            "repository": str(PIPELINE),
            "launch_dir": str(launch_dir),
            "work_dir": str(launch_dir / "work"),
            "status": "SUCCEEDED",
            "launch": {"pipeline": str(PIPELINE)},
            "start": now() - dt.timedelta(seconds=5),
            "complete": now(),
        }
        with self.sessions() as session:
            session.add(Workflow(**(known | fields)))
            session.commit()
        return workflow_id

    def change(self, workflow_id: str, **fields: Any) -> None:
        with self.sessions() as session:
            workflow = session.get_one(Workflow, workflow_id)
            for name, value in fields.items():
                setattr(workflow, name, value)
            session.commit()

    def files(self) -> set[Path]:
        return {path for kind in ("runs", "datasets") for path in (self.settings.data / kind).rglob("*")}

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(method, path, operation) of everything in the API's own description."""
        for path, methods in self.app.openapi()["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation


class Server:
    """The service as its operator starts it: a process, which can be killed and started again."""

    def __init__(self, data: Path, **settings: Any) -> None:
        self.data, self.port = data, free_port()
        given = {"data": data, "port": self.port, "pipeline": PIPELINE, "requests_per_minute": 1_000_000} | settings
        # without the modules' bytecode, which this variable forbids to keep, imports take most of the time
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = kept | {"PATH": path, "PYTHONPATH": str(SERVICE), "NXF_OFFLINE": "true"}
        self.environment |= {f"LAUNCHPAD_{name.upper()}": str(value) for name, value in given.items()}
        self.secrets = create_tokens(open_store(data / "launchpad.sqlite"))

    def start(self) -> Server:
        with (self.data / "service.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "launchpad.cli", "serve"], env=self.environment, stdout=log, stderr=log)
        wait_until(self.answers, 60)
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.data / "service.log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/api/service-info").is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Stop the service, and end what runs are left."""
        self.process.terminate()
        self.process.wait()
        for pid in processes(self.data / "runs"):
            os.kill(pid, signal.SIGKILL)

    def client(self, user: str = "ana", scope: str = "launch") -> httpx.Client:
        # without TLS nothing is to be verified, and reading all certificates takes longer than a request
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api", headers=bearer(self.secrets[user, scope]), timeout=30, verify=False)

    def launched(self, params: dict[str, Any] | None = None, **fields: Any) -> str:
        with self.client() as client:
            answer = client.post("/workflow/launch", json=launch_body(params, **fields))
        assert answer.is_success, answer.text
        found: str = answer.json()["workflowId"]
        return found

    def workflow(self, workflow_id: str) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.get(f"/workflow/{workflow_id}").raise_for_status().json()["workflow"]
        return found

    def tasks(self, workflow_id: str) -> dict[str, dict[str, Any]]:
        """Tasks by name."""
        with self.client() as client:
            found = client.get(f"/workflow/{workflow_id}/tasks").raise_for_status().json()["tasks"]
        return {entry["task"]["name"]: entry["task"] for entry in found}

    def followed(self, workflow_id: str) -> dict[str, Any]:
        """The run when it has ended."""

        def ended() -> dict[str, Any] | None:
            workflow = self.workflow(workflow_id)
            return workflow if workflow["status"] in ENDED else None

        found: dict[str, Any] = wait_until(ended)
        return found

    def wait_for_last_task(self, workflow_id: str) -> None:
        wait_until(lambda: self.tasks(workflow_id).get("COLLECT", {}).get("status") == "RUNNING")

    def folder(self, workflow_id: str) -> Path:
        return self.data / "runs" / workflow_id

    def group(self, workflow_id: str) -> int:
        return int((self.folder(workflow_id) / "pid").read_text())


def processes(folder: Path) -> dict[int, str]:
    """Command lines of the processes that work in a folder or below; ids of processes and groups are soon used again for others."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it has just ended, or is the system's own
            if (process / "cwd").readlink().is_relative_to(folder):
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found
