"""Tracking: TensorBoard, a real MLflow server and Weights & Biases show what the history holds, each step once; without a server trainings go on."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ports import free_port
from tiny import FAILING, ROOT, Child, Lab, history, with_values

from llamaflow.tracking import EVENTS, MlflowRun, WandbRun, hyperparameters_of, servers_of
from llamaflow.trials import Trial
from llamaflow.validation import resolve

CURVES = ("epoch", "learning_rate", "loss", "tokens", "validation_loss")
TRIAL = Trial(trial_id="tiny-1", model={"id": "tiny"}, data={"sha256": "0"}, technique="lora", hyperparameters={"lora_r": 8, "early_stopping_patience": None})
ROWS = [{"step": step, "loss": 1 / step} for step in range(1, 7)]
KEY = "key-that-nobody-may-see"


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What the tools, and the defaults for them, leave in the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def scalars(trial: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard's own reader finds them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(trial), size_guidance={"scalars": 0}).Reload()
    return {name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]}


def curve(trial: Path, name: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), row[name]) for row in history(trial) if name in row]


def test_tensorboard_shows_a_run_a_trial(lab: Lab, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    trials = lab.trials(lora_r="4,8")
    trained = lab.train(trials, tmp_path)
    shown = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "trials")).Reload()
    assert set(shown.Runs()) == {trial["trial_id"] for trial in trials}
    for trial, directory in zip(trials, trained, strict=True):
        found = scalars(directory)
        assert found == {name: [(step, float(np.float32(value))) for step, value in curve(directory, name)] for name in CURVES}
        content = shown.SummaryMetadata(trial["trial_id"], SESSION_START_INFO_TAG).plugin_data.content
        values = parse_session_start_info_plugin_data(content).hparams
        assert values["lora_r"].number_value == trial["hyperparameters"]["lora_r"]
        assert values["technique"].string_value == "lora"
        assert set(values) == set(hyperparameters_of(Trial.model_validate(trial)))


def test_events_are_written_while_a_trial_trains_and_continue_after_a_kill(lab: Lab, careful: dict[str, Any], undisturbed: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 3, "logging_steps": 1}
    child = Child(lambda: lab.train([careful], tmp_path / "first", **settings))
    assert child.kill_after("step 8/12", signal.SIGKILL) == -signal.SIGKILL
    (unfinished,) = (tmp_path / "first" / "trials").iterdir()
    steps = [step for step, _ in scalars(unfinished)["loss"]]
    assert steps[:7] == list(range(1, 8))
    assert steps[-1] < 12
    (resumed,) = lab.train([careful], tmp_path / "second", **settings)
    assert scalars(resumed) == scalars(undisturbed)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on a fresh SQLite database. What it needs besides mlflow-skinny is in requirements/dev.in: flask, flask-cors, graphene."""
    folder = tmp_path_factory.mktemp("mlflow")
    found = f"http://127.0.0.1:{(port := free_port())}"
    command = [Path(sys.executable).with_name("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "artifacts"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"{found}/health", server, folder / "server.log")
        yield found
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def wait_for(page: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(page):
                return
        except urllib.error.URLError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.fixture
def runs(address: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[], list[Any]]:
    """All runs of this test's own experiment."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)

    def found() -> list[Any]:
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name(request.node.name)
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    return found


def run_of(trial_id: str, runs: list[Any]) -> Any:
    (found,) = [run for run in runs if run.info.run_name == trial_id]
    return found


def metrics(address: str, run: Any, name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    return sorted((metric.step, metric.value) for metric in MlflowClient(address).get_metric_history(run.info.run_id, name))


@pytest.mark.slow
def test_mlflow_shows_a_run_a_trial_and_how_it_ended(lab: Lab, address: str, runs: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    worse, better = lab.trials(learning_rate="1e-5,2e-2")
    pack = {"stopped": worse, "finished": better, "failed": with_values(better, **FAILING)}
    capfd.readouterr()
    trained = lab.train(list(pack.values()), tmp_path, report_to=["mlflow"], scheduler="halving", halving_min_steps=2, grid="grid-1")
    output = capfd.readouterr()
    assert (output.err, address in output.out, "MLflow" in output.out) == ("", False, False)
    found = {status: run_of(trial["trial_id"], runs()) for status, trial in pack.items()}
    assert {status: run.info.status for status, run in found.items()} == {"stopped": "KILLED", "finished": "FINISHED", "failed": "FAILED"}
    for (status, trial), directory in zip(pack.items(), trained, strict=True):
        assert found[status].data.tags["status"] == status
        assert found[status].data.params == {name: str(value) for name, value in hyperparameters_of(Trial.model_validate(trial)).items()}
        assert {name: metrics(address, found[status], name) for name in CURVES} == {name: curve(directory, name) for name in CURVES}
    assert found["stopped"].data.tags["reason"].startswith("successive halving: place 2 of 2")
    assert found["failed"].data.tags["reason"].startswith("diverged")


@pytest.mark.slow
def test_mlflow_hears_of_a_crash(lab: Lab, runs: Any, tmp_path: Path) -> None:
    (good,) = lab.trials()
    bad = with_values(good, lr_scheduler_type="polygon")
    finished, crashed = lab.train([good, bad], tmp_path, report_to=["mlflow"])
    assert {run.info.run_name: run.info.status for run in runs()} == {finished.name: "FINISHED", crashed.name: "FAILED"}
    assert run_of(crashed.name, runs()).data.tags["reason"].startswith("crashed: ")
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == sorted([finished.name, crashed.name])


@pytest.mark.slow
def test_a_resumed_trial_continues_its_run(lab: Lab, address: str, runs: Any, careful: dict[str, Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 3, "logging_steps": 1, "report_to": ["mlflow"]}
    child = Child(lambda: lab.train([careful], tmp_path / "first", **settings))
    assert child.kill_after("step 8/12", signal.SIGKILL) == -signal.SIGKILL
    (killed,) = runs()
    assert killed.info.status == "RUNNING"
    assert metrics(address, killed, "loss")[-1][0] >= 7
    (resumed,) = lab.train([careful], tmp_path / "second", **settings)
    (finished,) = runs()
    assert (finished.info.run_id, finished.info.status) == (killed.info.run_id, "FINISHED")
    assert metrics(address, finished, "loss") == curve(resumed, "loss")
    assert metrics(address, finished, "validation_loss") == curve(resumed, "validation_loss")
    lab.train([careful], tmp_path / "third", **settings)
    assert [run.to_dictionary() for run in runs()] == [finished.to_dictionary()]


@pytest.mark.slow
def test_a_trial_from_the_store_is_reported_if_it_never_was(lab: Lab, address: str, runs: Any, tmp_path: Path) -> None:
    trials = lab.trials()
    lab.train(trials, tmp_path / "first", store=tmp_path / "store")
    assert runs() == []
    (reused,) = lab.train(trials, tmp_path / "second", store=tmp_path / "store", report_to=["mlflow"])
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert metrics(address, run, "loss") == curve(reused, "loss")


@pytest.mark.slow
def test_other_code_is_another_run(runs: Any) -> None:
    for code in ("code-1", "code-2", "code-1"):
        (server,) = servers_of(["mlflow"])
        server.send(TRIAL, code, ROWS, ended=("finished", None))
    assert sorted(run.data.tags["code"] for run in runs()) == ["code-1", "code-2"]


@pytest.mark.slow
def test_what_a_server_missed_follows(address: str, runs: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (server,) = servers_of(["mlflow"])
    server.send(TRIAL, "code-1", ROWS[:2])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = TRIAL.model_copy(update={"trial_id": "tiny-2"})
    server.send(away, "code-1", ROWS[:4])
    assert [run.info.run_name for run in runs()] == ["tiny-1"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    server.send(away, "code-1", ROWS[:5])
    assert [run.info.run_name for run in runs()] == ["tiny-1"], "it is left alone for a while"
    server.send(away, "code-1", ROWS, ended=("finished", None))
    assert metrics(address, run_of("tiny-2", runs()), "loss") == [(row["step"], row["loss"]) for row in ROWS]
    assert capsys.readouterr().out.count("MLflow does not take") == 1


@pytest.mark.slow
def test_without_its_server_a_training_goes_on(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{KEY}@127.0.0.1:{(port := free_port())}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    trials = lab.trials(lora_r="4,8")
    capfd.readouterr()
    trained = lab.train(trials, tmp_path, report_to=["mlflow"], logging_steps=1)
    output = "".join(capfd.readouterr())
    assert [history(trial)[-1]["step"] for trial in trained] == [8, 8]
    assert output.count("MLflow does not take what is reported to it (ConnectionError)") == 1
    written = output + "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    assert KEY not in written
    assert f":{port}" not in written


def test_mlflow_without_an_address(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SystemExit) as ended:
        lab.train(lab.trials(), tmp_path, report_to=["mlflow"])
    assert ended.value.code == 64
    assert "MLFLOW_TRACKING_URI, the address of your MLflow server, is not set" in capsys.readouterr().err
    assert not (tmp_path / "trials").exists()


def test_wandb_that_is_not_installed(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python remembers what cannot be imported
    with pytest.raises(SystemExit) as ended:
        lab.train(lab.trials(), tmp_path, report_to=["wandb"])
    assert ended.value.code == 64
    assert "the package wandb is not installed where the training runs. Install it there" in capsys.readouterr().err


@pytest.mark.slow
def test_wandb_offline(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_API_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    trials = lab.trials(lora_r="4,8")
    capfd.readouterr()
    trained = lab.train(trials, tmp_path, report_to=["wandb"])
    output = capfd.readouterr()
    assert (output.err, "wandb" in output.out, KEY in output.out) == ("", False, False)
    found = wandb_runs(tmp_path, len(trained))
    assert found.keys() == {trial.name for trial in trained}
    for directory in trained:
        logged = [{(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item} for record in found[directory.name]]
        assert [(row["_step"], row["loss"]) for row in logged if "loss" in row] == curve(directory, "loss")
        assert [record.exit.exit_code for record in found[directory.name] if record.HasField("exit")] == [0]


def wandb_runs(directory: Path, count: int) -> dict[str, list[Any]]:
    """The records of runs by their names, once all are written to their end: a process of wandb's own writes them."""
    for _ in range(200):
        found = [wandb_records(file) for file in directory.glob("wandb/offline-run-*/*.wandb")]
        if sum(any(record.HasField("exit") for record in records) for records in found) == count:
            break
        time.sleep(0.1)
    return {next(record.run.display_name for record in records if record.HasField("run")): records for records in found}


def wandb_records(file: Path) -> list[Any]:
    """The records of a small offline run: a header of 7 bytes, then each record behind its checksum (4 bytes), length (2) and kind (1)."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, records = file.read_bytes(), 7, []
    while place + 7 <= len(content):
        length = struct.unpack_from("<H", content, place + 4)[0]
        records.append(Record.FromString(content[place + 7 : place + 7 + length]))
        place += 7 + length
    return records


def test_where_a_trial_is_followed_is_no_part_of_it(lab: Lab) -> None:
    assert lab.trials({"report_to": ["mlflow", "wandb"]}) == lab.trials()


def test_several_tools() -> None:
    given = {"input": "data.csv", "outdir": "results", "models": "owner/name"}
    assert resolve({**given, "report_to": "mlflow,wandb"}).training.report_to == ("mlflow", "wandb")
    assert resolve(given).training.report_to == ("none",)
    assert servers_of(["none"]) == []


def test_containers_are_given_the_variables_that_the_documentation_names() -> None:
    section = (ROOT / "docs/usage.md").read_text(encoding="utf-8").split("## Following a training")[1].split("\n## ")[0]
    named = set(re.findall(r"(?:MLFLOW|WANDB)_[A-Z_]+", section))
    assert {MlflowRun.variable, WandbRun.variable} < named
    for engine in ("docker", "podman", "singularity", "apptainer"):
        (passed_on,) = re.findall(r"envWhitelist\s*= '(.*)'", (ROOT / f"conf/profiles/{engine}.config").read_text())
        assert named <= set(passed_on.split(","))


def test_a_file_is_one_that_tensorboard_looks_for() -> None:
    from tensorboard.backend.event_processing.io_wrapper import IsTensorFlowEventsFile

    assert IsTensorFlowEventsFile(EVENTS)
