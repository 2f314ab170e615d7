"""n8n as a process, with our workflows in it; and what it left at the launchpad."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from lab import Server, wait_until
from ports import free_port

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / ".venv/n8n/node_modules"
Object = dict[str, Any]


def dataset_version(launchpad: Server, name: str, number: int) -> list[list[str]] | None:
    """The rows of that version of a dataset; None if it is not there yet."""
    with launchpad.client() as client:
        datasets = client.get("/datasets", params={"search": name}).raise_for_status().json()["datasets"]
        versions = client.get(f"/datasets/{datasets[0]['id']}/versions").json()["versions"] if datasets else []
        found = next((version for version in versions if version["version"] == number), None)
        return list(csv.reader(io.StringIO(client.get(found["url"]).content.decode("utf-8-sig")))) if found else None


def launched(launchpad: Server) -> list[Object]:
    """All runs, the first one first."""
    with launchpad.client() as client:
        return [entry["workflow"] for entry in reversed(client.get("/workflow").raise_for_status().json()["workflows"])]


def prepared(settings: Mapping[str, Any], switched_on: Sequence[str], schedules: Mapping[str, str]) -> list[Object]:
    """Our workflows as a person leaves them in the editor: filled in, and nodes switched on that have their credential, or their time (cron, with seconds)."""
    workflows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((ROOT / "n8n/workflows").glob("*.json"))]
    for node in (node for workflow in workflows for node in workflow["nodes"]):
        if node["name"] in [*switched_on, *schedules]:
            node["disabled"] = False
        if node["name"] in schedules:
            node["parameters"]["rule"]["interval"] = [{"field": "cronExpression", "expression": schedules[node["name"]]}]
        if node["name"] == "Settings":
            for field in node["parameters"]["assignments"]["assignments"]:
                field["value"] = settings.get(field["name"], field["value"])
    return workflows


class N8n:
    """A fresh n8n, which can be killed and started again."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.port = folder, free_port()
        words = {
            "N8N_USER_FOLDER": folder,
            "N8N_ENCRYPTION_KEY": "only for tests",
            "N8N_LISTEN_ADDRESS": "127.0.0.1",
            "N8N_PORT": self.port,
            "N8N_RUNNERS_BROKER_PORT": free_port(),
            "N8N_SECURE_COOKIE": "false",
            **{f"N8N_{name}_ENABLED": "false" for name in ("DIAGNOSTICS", "VERSION_NOTIFICATIONS", "TEMPLATES", "PERSONALIZATION", "COMMUNITY_PACKAGES")},
        }
        path = f"{INSTALLED / 'node/bin'}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path} | {name: str(value) for name, value in words.items()} | (environment or {})

    def command(self, *words: str) -> None:
        """Raises CalledProcessError."""
        with (self.folder / "command.log").open("ab") as log:
            subprocess.run([INSTALLED / ".bin/n8n", *words], env=self.environment, stdout=log, stderr=log, check=True, timeout=120)

    def load(self, workflows: Sequence[Object], credentials: Sequence[Object]) -> None:
        directory = self.folder / "workflows"
        directory.mkdir()
        for workflow in workflows:
            (directory / f"{workflow['id']}.json").write_text(json.dumps(workflow), encoding="utf-8")
        (self.folder / "credentials.json").write_text(json.dumps(credentials), encoding="utf-8")
        self.command("import:credentials", f"--input={self.folder / 'credentials.json'}")
        self.command("import:workflow", "--separate", f"--input={directory}")
        for workflow in workflows:
            self.command("publish:workflow", f"--id={workflow['id']}")

    def start(self) -> N8n:
        with (self.folder / "n8n.log").open("ab") as log:
            self.process = subprocess.Popen([INSTALLED / ".bin/n8n", "start"], env=self.environment, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.is_ready, 120)
        return self

    def is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "n8n.log").read_text()
        try:
            # it says that it is ready before the workflows are
            return all(httpx.get(f"{self.address}/{path}").is_success for path in ("healthz/readiness", "form/llamaflow-launch", "form/llamaflow-collect"))
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """With everything that it has started, as when the machine goes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def executions(self, status: str, workflow: str = "%") -> int:
        """How many executions have that status; waiting are those whose wait is stored."""
        database = sqlite3.connect(f"file:{self.folder / '.n8n/database.sqlite'}?mode=ro", uri=True)
        try:
            found: int = database.execute('select count(*) from execution_entity where status = ? and "workflowId" like ?', (status, workflow)).fetchone()[0]
        finally:
            database.close()
        return found
