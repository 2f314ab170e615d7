#!/usr/bin/env python3
"""How soon the launchpad starts and answers with many runs in its store, alone and while clients poll a run that goes. See README.md.

launchpad.py --cache DIR
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common
import httpx

SERVICE = common.HERE.parent / "services" / "launchpad"
sys.path.insert(0, str(SERVICE))

from sqlalchemy import insert  # noqa: E402

from launchpad import auth, trace  # noqa: E402 - it is not installed
from launchpad.store import Task, Workflow, now, open_store  # noqa: E402

PIPELINE = common.HERE.parent / "tests" / "api" / "pipeline"
PROCESSES = (
    "CHECK_PARAMS COLLECT_SOURCE CLEAN_RECORDS DEDUPLICATE_RECORDS SPLIT_DATASET FETCH_MODEL TOKENIZE_DATASET PLAN_TRIALS TRAIN_TRIALS EVALUATE_MODEL "
    "COMPARE_TRIALS SELECT_WINNER EXPORT_MODEL WRITE_REPORT PUBLISH_MODEL"
)
STARTS, READS = 5, 100
Latencies = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where the launchpad has its data; made anew in it")
    parser.add_argument("--results", type=Path, default=common.RESULTS / "launchpad.json")
    parser.add_argument("--runs", type=int, default=10_000, help="in the store")
    parser.add_argument("--clients", type=int, default=50, help="that poll, each once a second")
    parser.add_argument("--seconds", type=int, default=30, help="how long the run's last task takes")
    args = parser.parse_args()
    folder, figures = args.cache / "launchpad", common.begin(args)
    shutil.rmtree(folder, ignore_errors=True)
    secret, workflow_id = fill(folder, args.runs)
    figures["store_bytes"] = (folder / "launchpad.sqlite").stat().st_size
    figures["start_seconds"] = [started_in(folder) for _ in range(STARTS)]
    process, address = start(folder)
    headers = {"Authorization": f"Bearer {secret}"}
    try:
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
            figures["alone"] = summary(read_in_turn(client, workflow_id, READS))
            launch = {"pipeline": str(PIPELINE), "paramsText": json.dumps({"word": "hello", "seconds": args.seconds})}
            going = client.post("/workflow/launch", json={"launch": launch}).raise_for_status().json()["workflowId"]
            figures["polled"] = summary(poll(client, going, args.clients))
            figures["run_status"] = status(client, going)
    finally:
        process.terminate()
        process.wait()
    print(f"start: {statistics.median(figures['start_seconds']):.2f} s with {args.runs} runs in the store; the polled run: {figures['run_status']}")
    for load in ("alone", "polled"):
        print(f"{load}: " + ", ".join(f"{name} {of['median_ms']:.1f} ms (95 %: {of['p95_ms']:.1f})" for name, of in figures[load].items()))
    common.keep(args.results, figures)


def fill(folder: Path, runs: int) -> tuple[str, str]:
    """A store with ended runs of one user, each of LlamaFlow's processes; returns a token, and the id of a run."""
    sessions = open_store(folder / "launchpad.sqlite")
    with sessions() as session:
        token, secret = auth.create_token(session, "me", "benchmark", "launch")
        measured = {"cpus": 2, "memory": 8 * 2**30, "pcpu": 95.5, "peakRss": 2**30, "peakVmem": 2**31, "rchar": 10**8, "wchar": 10**7, "readBytes": 10**6}
        tasks = [
            Task(workflow_id="", hash=f"ab/{number:06d}", task_id=number, status="COMPLETED", name=f"LLAMAFLOW:{name} (1)", process=f"LLAMAFLOW:{name}", tag="1",
                 exit=0, submit=now(), start=now(), complete=now(), duration=60_000, realtime=59_000, measured=measured)
            for number, name in enumerate(PROCESSES.split(), 1)
        ]  # fmt: skip
        run = Workflow(
            id="", user_id=token.user_id, user_name="me", run_name="", session_id="", project_name="llamaflow", repository=str(PIPELINE), launch_dir="", work_dir="",
            status="SUCCEEDED", params={"learning_rate": "1e-4,2e-4", "lora_r": "8,16"}, **trace.progress_of(tasks), stats=trace.stats_of(tasks),
            success=True, exit_status=0, complete=now(), duration=900_000,
        )  # fmt: skip
        many = range(runs)
        session.execute(insert(Workflow), [changed(run, number) for number in many])
        session.execute(insert(Task), [{**columns(task), "workflow_id": identity(number)} for number in many for task in tasks])
        session.commit()
    return secret, identity(runs // 2)


def identity(number: int) -> str:
    return f"run{number:011d}"


def changed(run: Workflow, number: int) -> dict[str, Any]:
    submitted = now() - dt.timedelta(minutes=number)
    own = {"id": identity(number), "run_name": f"calm_llama_{number}", "session_id": str(uuid.uuid4()), "submit": submitted, "start": submitted}
    return {**columns(run), **own, "launch_dir": f"/data/runs/{number}/launch"}


def columns(row: Workflow | Task) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The service, when it answers, and the address of its API."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # imports take seconds without bytecode
    own = {"DATA": folder, "PORT": port, "PIPELINE": PIPELINE, "REQUESTS_PER_MINUTE": 1_000_000}
    environment = kept | {"PYTHONPATH": str(SERVICE), "NXF_OFFLINE": "true"} | {f"LAUNCHPAD_{name}": str(value) for name, value in own.items()}
    with (folder / "service.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "launchpad.cli", "serve"], env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/api"
    with httpx.Client() as client:
        while not answers(client, address):
            if process.poll() is not None:
                raise SystemExit(f"the launchpad did not start: {folder / 'service.log'}")
            time.sleep(0.01)
    return process, address


def answers(client: httpx.Client, address: str) -> bool:
    try:
        return client.get(f"{address}/service-info").is_success
    except httpx.TransportError:
        return False


def started_in(folder: Path) -> float:
    begin = time.monotonic()
    process, _ = start(folder)
    seconds = time.monotonic() - begin
    process.terminate()
    process.wait()
    return round(seconds, 3)


def reads(workflow_id: str) -> dict[str, str]:
    run = f"/workflow/{workflow_id}"
    return {"list": "/workflow", "run": run, "progress": f"{run}/progress", "tasks": f"{run}/tasks"}


def timed(client: httpx.Client, path: str) -> float:
    begin = time.monotonic()
    client.get(path).raise_for_status()
    return (time.monotonic() - begin) * 1000


def read_in_turn(client: httpx.Client, workflow_id: str, times: int) -> Latencies:
    return {name: [timed(client, path) for _ in range(times)] for name, path in reads(workflow_id).items()}


def poll(client: httpx.Client, workflow_id: str, clients: int) -> Latencies:
    """Each client has a connection of its own, and each second one read, of all kinds in turn, until the run has ended."""
    paths = list(reads(workflow_id).items())
    found: Latencies = {name: [] for name, _ in paths}
    ended = False

    def one(number: int) -> None:
        time.sleep(number / clients)  # not all in the same moment
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as own:
            turn = number
            while not ended:
                name, path = paths[turn % len(paths)]
                found[name].append(timed(own, path))
                turn += 1
                time.sleep(1)

    with ThreadPoolExecutor(clients) as pool:
        done = [pool.submit(one, number) for number in range(clients)]
        wait_for(lambda: status(client, workflow_id) not in ("SUBMITTED", "RUNNING"))
        ended = True
    for future in done:
        future.result()
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(1)


def status(client: httpx.Client, workflow_id: str) -> str:
    found: str = client.get(f"/workflow/{workflow_id}").raise_for_status().json()["workflow"]["status"]
    return found


def summary(latencies: Latencies) -> dict[str, dict[str, float]]:
    return {
        name: {
            "median_ms": round(statistics.median(of), 2),
            "p95_ms": round(statistics.quantiles(of, n=20)[-1], 2),
            "most_ms": round(max(of), 2),
            "reads": len(of),
        }
        for name, of in latencies.items()
    }


if __name__ == "__main__":
    main()
