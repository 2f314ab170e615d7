#!/usr/bin/env python3
"""Train a pack of trials that share one base model, which is loaded once.

train_trials.py --model model/ --tokens tokens/ --dataset dataset/ [--teacher model/]
    < {"code": "...", "training": {...}, "compute": {...}, "models": {...}, "grid": "...", "trials": [{...}]}
    ->  trials/<trial_id>/ each with adapter/ or model/, history.jsonl, events.tfevents (TensorBoard), trial.json and train_trials.json
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.distributed import launch
from llamaflow.energy import EnergyMeter
from llamaflow.errors import as_llamaflow_error, exits_cleanly
from llamaflow.files import read_json, write_json
from llamaflow.models import trusted, use_task_threads
from llamaflow.params import Compute, Training
from llamaflow.ranks import launched, rank, world_size
from llamaflow.steps import read_settings, receipt, say
from llamaflow.store import TRAINED, Store
from llamaflow.tracking import Server, Tracker, servers_of
from llamaflow.trials import Trial

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llamaflow.halving import Halving
    from llamaflow.progress import Outcome, Progress
    from llamaflow.techniques import Trainable
    from llamaflow.trainers import StageTraining


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True, help="what the stage sft reads")
    parser.add_argument("--dataset", type=Path, required=True, help="what the other stages read")
    parser.add_argument("--teacher", type=Path, help="for the stage distillation")
    parser.add_argument("--outdir", type=Path, default=Path())
    parser.add_argument("--settings", type=Path, help="a file with what standard input would hold")
    return parser.parse_args(argv)


def run(inputs: argparse.Namespace, trials: list[Trial], given: dict[str, Any]) -> None:
    """Bring every trial to inputs.outdir/trials/<trial_id>: from the store if it was finished before, else by training it."""
    shutil.rmtree(inputs.outdir / "trials", ignore_errors=True)
    task = Task(inputs, given)
    waiting = [trial for trial in trials if not task.reuse(trial)]
    if waiting and task.compute.num_processes > 1:
        launch(__file__, arguments_of(inputs), given | {"trials": [trial.model_dump() for trial in waiting]}, task.compute, inputs.outdir)
    elif waiting:
        task.train(waiting)


def arguments_of(inputs: argparse.Namespace) -> list[str]:
    return [text for name, value in vars(inputs).items() if value is not None for text in (f"--{name}", str(value))]


def train_together(inputs: argparse.Namespace, trials: list[Trial], given: dict[str, Any]) -> None:
    """As one of the processes that train each trial together; the first one speaks and writes."""
    if rank():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the end
    task = Task(inputs, given)
    for trial in trials:
        task.train([trial])


class Task:
    """Training of trials on one base, and where their results go."""

    def __init__(self, inputs: argparse.Namespace, given: dict[str, Any]) -> None:
        self.inputs, self.given, self.outdir, self.code = inputs, given, inputs.outdir, given.get("code", "")
        self.settings, self.compute = Training.model_validate(given.get("training", {})), Compute.model_validate(given.get("compute", {}))
        self.store, self.servers = Store(self.compute.checkpoint_dir), servers_of(self.settings.report_to) if rank() == 0 else []

    def reuse(self, trial: Trial) -> bool:
        """Take the trial from the store, if it was finished before."""
        directory = self.outdir / "trials" / trial.trial_id
        if not self.store.restore(trial.trial_id, TRAINED, self.code, directory):
            return False
        mark_reused(directory / "train_trials.json")
        report_finished(self.servers, trial, self.code, directory)
        say(f"{trial.trial_id}  was finished before: taken from the store")
        return True

    def train(self, trials: list[Trial]) -> None:
        """Train all together; if that fails for a reason that nobody foresaw, each alone, so that one trial does not take the others down."""
        from llamaflow.training import StopRequest

        use_task_threads()
        self.stop, self.meter = StopRequest(), EnergyMeter()
        if len(trials) == 1:
            self._train(trials)
        elif self._crash_of(trials):
            say("the pack crashed: its trials go on one by one")
            self._train_alone([trial for trial in trials if not (self.outdir / "trials" / trial.trial_id).exists()])

    def _train_alone(self, trials: list[Trial]) -> None:
        """Raises the last error if no trial at all can be trained."""
        crashes = [(trial, crash) for trial in trials if (crash := self._crash_of([trial]))]
        if crashes and len(crashes) == len(trials):
            raise crashes[-1][1]
        for trial, crash in crashes:
            self._write_crashed(trial, crash)

    def _crash_of(self, trials: list[Trial]) -> Exception | None:
        """Train a pack and return the error that nobody foresaw, printed and without its frames, which would keep the base in memory."""
        try:
            self._train(trials)
        except Exception as error:
            if as_llamaflow_error(error):
                raise
            traceback.print_exc()
            return error.with_traceback(None)
        return None

    def _train(self, trials: list[Trial]) -> None:
        from llamaflow.techniques import load_base

        kernels = self.compute.attn_implementation
        base = functools.partial(load_base, self.inputs.model, trials[0], attn_implementation=kernels, trust_remote_code=trusted(self.given))
        if trials[0].stage == "sft" and world_size() == 1:
            self._train_pack(base(), trials)
        else:
            self._train_stage(base, trials[0])

    def _train_stage(self, base: Callable[[], PreTrainedModel], trial: Trial) -> None:
        from llamaflow.trainers import Keeping, Source, StageTraining

        source = Source(base, self.inputs.model, self.inputs.tokens, self.inputs.dataset, self._teacher(trial), trusted(self.given))
        keeping = Keeping(self.settings, self.compute, self.store, self.code, self._halving(), self.stop)
        training = StageTraining(trial, source, Tracker(trial, self.code, self._new_part(trial), self.servers), keeping)
        try:
            outcome = training.run()
            if rank() == 0:
                self._write(training, training.progress, outcome)
        finally:
            training.close()

    def _teacher(self, trial: Trial) -> PreTrainedModel | None:
        from llamaflow.models import load_model, resolve_dtype

        if trial.stage != "distillation":
            return None
        return load_model(self.inputs.teacher, resolve_dtype(trial.hyperparameters["dtype"]), trust_remote_code=trusted(self.given))

    def _train_pack(self, base: Any, trials: list[Trial]) -> None:
        from llamaflow.learner import Learner
        from llamaflow.techniques import prepared
        from llamaflow.tokens import Tokens
        from llamaflow.training import PackTraining

        data = Tokens(self.inputs.tokens, "train"), Tokens(self.inputs.tokens, "validation")
        with prepared(base, self.inputs.model, trials, trust_remote_code=trusted(self.given)) as trainable:
            learners = [
                Learner(trial, trainable.parameters(trial), data, self.store, self.code, Tracker(trial, self.code, self._new_part(trial), self.servers))
                for trial in trials
            ]
            training = PackTraining(trainable, learners, self.settings, self._halving(), self.stop)
            for learner, outcome in training.run():
                self._write(trainable, learner, outcome, training.memory_of_helpers)

    def _new_part(self, trial: Trial) -> Path:
        """An empty directory for the trial's results, which gets its name once they are complete."""
        part: Path = self.outdir / "trials" / f"{trial.trial_id}.part{rank() or ''}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        return part

    def _halving(self) -> Halving | None:
        from llamaflow.halving import Halving

        if self.settings.scheduler == "none":
            return None
        board = self.store.root / "halving" / f"{self.given['grid']}-{self.code}" if self.store.root else None
        return Halving(self.settings.halving_eta, self.settings.halving_min_steps, board)

    def _write(self, trained: Trainable | StageTraining, learner: Progress, outcome: Outcome, memory_of_helpers: int = 0) -> None:
        """Write a trial's results as soon as it has ended, and keep them in the store."""
        trial, tracker, part = learner.trial, learner.tracker, learner.tracker.directory
        directory = part.with_name(trial.trial_id)
        tracker.log(learner.state.history)
        write_json(part / "trial.json", trial.model_dump())
        with receipt("train_trials", {key: self.given[key] for key in self.given if key != "trials"}, part, self.meter) as written:
            learner.write_history(part / "history.jsonl")
            if outcome.status in ("finished", "early_stopped"):
                trained.save(trial, part)
            written.inputs = {"model": trial.model["sha256"], "data": trial.data["sha256"]}
            written.counts = asdict(outcome)
            written.seconds = learner.state.seconds + learner.state.validation_seconds
            written.peak_memory_bytes = memory_of_helpers
            for result in sorted(part.iterdir()):
                written.add_output(result)
        part.rename(directory)
        if outcome.status != "stopped":  # what halving stopped goes on from its checkpoint, should a later run want it whole
            self.store.keep(trial.trial_id, TRAINED, self.code, directory)
            self.store.drop(trial.trial_id, "checkpoint")
        tracker.end(learner.state.history, outcome.status, outcome.reason)
        say(f"{trial.trial_id}  {outcome.status}{f' ({outcome.reason})' if outcome.reason else ''}")

    def _write_crashed(self, trial: Trial, error: Exception) -> None:
        part, reason = self._new_part(trial), f"crashed: {type(error).__name__}: {error}"
        write_json(part / "trial.json", trial.model_dump())
        with receipt("train_trials", {key: self.given[key] for key in self.given if key != "trials"}, part) as written:
            written.counts = {"status": "failed", "reason": reason, "validation_loss": None}
        part.rename(part.with_name(trial.trial_id))
        for server in self.servers:
            server.send(trial, self.code, [], ended=("failed", reason))


def mark_reused(receipt_file: Path) -> None:
    """A hard link into the store must not be written through: replace the receipt as a new file."""
    write_json(receipt_file, read_json(receipt_file) | {"reused": True})


def report_finished(servers: list[Server], trial: Trial, code: str, directory: Path) -> None:
    """Tell servers of a trial that another run trained, which may have been reported nowhere."""
    history = [json.loads(line) for line in (directory / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = read_json(directory / "train_trials.json")["counts"]
    for server in servers:
        server.send(trial, code, history, ended=(counts["status"], counts["reason"]))


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings(args.settings)
    trials = [Trial.model_validate(trial) for trial in given["trials"]]
    if launched():
        train_together(args, trials, given)
    else:
        run(args, trials, given)


if __name__ == "__main__":
    main()
