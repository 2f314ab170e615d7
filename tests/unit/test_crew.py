"""Processes that share the work of a step: the same training as by one, and nothing left behind when one of them ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ROOT, SETTINGS, Child, Lab, history, same_weights, weights_of, with_values

from llamaflow import passes
from llamaflow.crew import Crew, share_with_forks
from llamaflow.passes import divided

PROCESSES = 3


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of few tokens are shared too, and without threads: of those, a fork of pytest's process would have none."""
    monkeypatch.setattr(passes, "processes_for", lambda *_: PROCESSES)


def children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def trials_of(lab: Lab) -> list[dict[str, Any]]:
    """Of different techniques, one with dropout and one with half as many examples a step."""
    trials = lab.trials(techniques="lora,dora,pissa", learning_rate=1e-3)
    return [with_values(trials[0], lora_dropout=0.1), trials[1], with_values(trials[2], per_device_train_batch_size=4)]


def test_it_is_the_training_of_one_process(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    trials, before = trials_of(lab), children(os.getpid())
    alone = lab.train(trials, tmp_path / "alone")
    request.getfixturevalue("shared")
    together = lab.train(trials, tmp_path / "together")
    assert children(os.getpid()) == before
    for one, other in zip(alone, together, strict=True):
        for row, found in zip(history(one), history(other), strict=True):
            assert found == pytest.approx(row, rel=1e-4)
        first, second = weights_of(one / "adapter"), weights_of(other / "adapter")
        assert all(float((first[name] - second[name]).norm() / first[name].norm()) < 1e-3 for name in first)
    assert not same_weights(alone[0] / "adapter", together[0] / "adapter"), "sums of other parts are rounded otherwise: else nothing is shown"


@pytest.mark.usefixtures("shared")
def test_it_goes_on_after_a_kill_as_if_nothing_had_happened(lab: Lab, tmp_path: Path) -> None:
    trials, settings = trials_of(lab)[:1], {"store": tmp_path / "store", "save_steps": 2, "logging_steps": 1}
    (undisturbed,) = lab.train(trials, tmp_path / "undisturbed")
    killed = Child(lambda: lab.train(trials, tmp_path / "killed", **settings))
    helpers: list[int] = []
    with killed.output as output:
        for line in output:
            helpers = children(killed.pid) or helpers
            if "step 3/" in line:
                os.kill(killed.pid, signal.SIGKILL)
        # the end of the output: no process holds it open any longer
    assert len(helpers) == PROCESSES - 1
    os.waitpid(killed.pid, 0)
    (trained,) = lab.train(trials, tmp_path / "again", **settings)
    assert same_weights(trained / "adapter", undisturbed / "adapter")


@pytest.mark.usefixtures("shared")
def test_a_helper_that_is_killed_ends_the_attempt(lab: Lab, tmp_path: Path) -> None:
    trials, settings = trials_of(lab), {"store": tmp_path / "store", "save_steps": 2, "logging_steps": 1}
    child = Child(lambda: lab.train(trials, tmp_path / "attempt", **settings))
    with child.output as output:
        for line in output:
            if "step 3/" in line:
                for pid in children(child.pid)[:1]:  # none when the other trials' lines of the step are read: the first one's was enough
                    os.kill(pid, signal.SIGKILL)
            last = line
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 75
    assert last.startswith("error: a process that helped to train was killed")
    assert len(lab.train(trials, tmp_path / "again", **settings)) == 3


@pytest.mark.usefixtures("shared")
def test_sigterm_is_for_the_process_that_trains(lab: Lab, tmp_path: Path) -> None:
    """Some systems send it to all processes of a task."""
    settings = {"store": tmp_path / "store", "save_steps": 1_000, "logging_steps": 1}
    child = Child(lambda: lab.train(trials_of(lab), tmp_path / "attempt", **settings))
    with child.output as output:
        for line in output:
            if "step 2/" in line:
                for pid in (*children(child.pid), child.pid):
                    os.kill(pid, signal.SIGTERM)
            last = line
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 75
    assert "what was learnt is saved" in last


@pytest.mark.usefixtures("shared")
def test_out_of_memory_in_a_helper_goes_on_with_less(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    trials, stack, pid = lab.trials(lora_r="4,8", num_train_epochs=1), passes.stack, os.getpid()
    expected = [history(trained) for trained in lab.train(trials, tmp_path / "expected")]

    def stack_in_little_memory(rows: Any) -> Any:
        if os.getpid() != pid and not (tmp_path / "full").exists():
            (tmp_path / "full").touch()
            raise MemoryError("no room for so many tokens")
        return stack(rows)

    monkeypatch.setattr(passes, "stack", stack_in_little_memory)
    found = [history(trained) for trained in lab.train(trials, tmp_path / "found")]
    assert "out of memory: goes on with" in capsys.readouterr().out
    for one, other in zip(expected, found, strict=True):
        assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in other], rel=1e-4)


def test_the_step_itself_on_two_cpus(lab: Lab, tmp_path: Path) -> None:
    """In a process of its own, with threads: pytest's has one. A fork that used the pool of threads, which it lacks, would wait for ever."""
    trials = lab.trials(lora_r="4,8", num_train_epochs=0.5)
    given = SETTINGS | {"code": "code-1", "trials": trials}
    command = [sys.executable, ROOT / "bin/train_trials.py", "--model", lab.model, "--tokens", lab.tokens, "--dataset", lab.dataset, "--outdir", tmp_path]
    step = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "2"}, text=True)
    assert step.stdin is not None
    step.stdin.write(json.dumps(given))
    step.stdin.close()
    helped, deadline = False, time.monotonic() + 120
    while step.poll() is None:
        with suppress(FileNotFoundError, ProcessLookupError):
            helped = helped or any(b"train_trials" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(step.pid))
        time.sleep(0.01)
        if time.monotonic() > deadline:
            step.kill()
    assert (step.returncode, helped) == (0, True)
    assert all((tmp_path / "trials" / trial["trial_id"] / "adapter").exists() for trial in trials)


def test_processes_share_a_step_if_each_has_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)

    def processes(length: int, examples: int, *, forks: bool = True) -> int:
        learner: Any = SimpleNamespace(examples_per_step=examples, train=SimpleNamespace(lengths=np.array([length] * 9)))
        trainable: Any = SimpleNamespace(forks=forks)
        return passes.processes_for(trainable, [learner, learner])

    assert processes(64, 4) == 4
    assert processes(64, 3) == 1, "less than 128 tokens each"
    assert processes(512, 8) == 4
    assert processes(513, 8) == 1, "long rows of all at once would take much memory"
    assert processes(64, 8, forks=False) == 1


def test_a_crew_gives_the_threads_back() -> None:
    threads, before = torch.get_num_threads(), children(os.getpid())
    torch.set_num_threads(2)
    try:
        crew = Crew(print, [torch.nn.Parameter(torch.zeros(1))], 2)
        assert torch.get_num_threads() == 1
        crew.close()
        assert torch.get_num_threads() == 2
        assert children(os.getpid()) == before
    finally:
        torch.set_num_threads(threads)


def test_without_a_second_process_it_goes_on_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    before = torch.get_num_threads()
    crew = Crew(abs, [torch.nn.Parameter(torch.zeros(1))], 3)
    assert crew.do([-2]) == [2]
    assert (crew.processes, torch.get_num_threads()) == (1, before)
    assert "no helping process could be started (Resource temporarily unavailable): the training goes on with 1" in capsys.readouterr().out


def test_the_memory_of_helpers_is_what_they_do_not_share() -> None:
    shared, kept = torch.ones(2**24), list[torch.Tensor]()

    def work(size: int) -> float:
        kept.append(torch.ones(size))
        return float(shared.sum())

    crew = Crew(work, [torch.nn.Parameter(torch.zeros(1))], 2)
    try:
        crew.do([1, 2**23])
        assert 4 * 2**23 <= crew.memory() < 4 * 2**24
    finally:
        crew.close()


def test_errors_of_helpers_are_raised_once_all_have_ended() -> None:
    def work(seconds: float) -> float:
        time.sleep(seconds)
        if seconds == 0.2:
            raise ValueError("no such task")
        return seconds

    crew = Crew(work, [torch.nn.Parameter(torch.zeros(2))], 3)
    try:
        with pytest.raises(ValueError, match="no such task"):
            crew.do([0.1, 0.2, 0.3])
        assert crew.do([0.1, 0.0]) == [0.1, 0.0], "not what the last tasks left"
    finally:
        crew.close()


def test_gradients_of_all_processes_are_added_up() -> None:
    weight, unused = (torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    share_with_forks([weight, unused])

    def work(factor: float) -> float:
        for part in (0.25, 0.75):
            (weight * factor * part).sum().backward()
        return float(weight.detach().sum())

    crew = Crew(work, [weight, unused], 3)
    try:
        for _ in range(2):
            weight.grad = None
            assert crew.do([1.0, 10.0, 100.0]) == [3.0] * 3
            assert weight.grad.tolist() == [111.0, 111.0]
        assert unused.grad is None
        with torch.no_grad():
            weight.copy_(torch.tensor([5.0, 6.0]))
        assert crew.do([1.0, 10.0, 100.0]) == [11.0] * 3, "all see what the optimiser does"
    finally:
        crew.close()


def test_rows_of_a_trial_stay_together() -> None:
    rows: Any = [(number, [0] * length) for number, length in ((0, 64), (0, 64), (1, 64), (2, 64), (2, 64), (3, 128))]
    assert [[number for number, _ in share] for share in divided(rows, 2)] == [[0, 0, 1], [2, 2, 3]]
    assert [len(share) for share in divided(rows[:1], 4)] == [1]
