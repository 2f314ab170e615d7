"""Training a trial with one of TRL's trainers: its checkpoints, history and outcome are those of every other trial."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
from datasets.arrow_writer import ArrowWriter
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, TrainerCallback

from llamaflow.adalora import ADAPTER
from llamaflow.adapters import peft_config, save_adapter
from llamaflow.distributed import sharding
from llamaflow.errors import TemporaryError, is_out_of_memory
from llamaflow.files import write_json
from llamaflow.halving import Halving
from llamaflow.heads import head_tokenizer, padded_tokenizer
from llamaflow.learner import CHECKPOINT
from llamaflow.limits import VALIDATION_EXAMPLES
from llamaflow.models import device, resolve_dtype
from llamaflow.params import Compute, Training
from llamaflow.progress import Diverged, Outcome, Progress, State
from llamaflow.ranks import rank, world_size
from llamaflow.records import read_rows
from llamaflow.stages import rows_of, token_rows, trainer_of
from llamaflow.steps import say
from llamaflow.store import Store
from llamaflow.techniques import WholeModel, quiet_peft, refuse_unknown_layers, save_model
from llamaflow.tokens import Tokens
from llamaflow.tracking import Tracker
from llamaflow.training import StopRequest
from llamaflow.trials import Trial

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

FRUITLESS = 10  # steps without any reward after which grpo gives up
TRIED = 16  # validation prompts for which grpo and distillation write answers: that takes its time


@dataclass(frozen=True)
class Source:
    """What a trial learns from."""

    load: Callable[[], PreTrainedModel]  # a new base each time
    model: Path  # its directory
    tokens: Path
    dataset: Path
    teacher: PreTrainedModel | None
    trust_remote_code: bool


@dataclass(frozen=True)
class Keeping:
    """When a trial is saved, measured and stopped, and where it is kept."""

    settings: Training
    compute: Compute
    store: Store
    code: str
    halving: Halving | None
    stop: StopRequest


class StageTraining:
    """One trial of a stage besides sft, from its base to its outcome."""

    def __init__(self, trial: Trial, source: Source, tracker: Tracker, keeping: Keeping) -> None:
        """Raises DataError if the data do not fit the stage."""
        self.trial, self.source, self.keeping = trial, source, keeping
        self.scratch = tracker.directory.with_name(f"{trial.trial_id}.trainer")  # shared by all processes
        trust = source.trust_remote_code
        self.tokenizer = head_tokenizer(source.model, trial, trust_remote_code=trust) if trial.head else padded_tokenizer(source.model, trust_remote_code=trust)
        datasets.disable_progress_bars()
        self.train, self.validation = self._data("train", None), self._data("validation", self._measured_on)
        self.progress = Progress(trial, {}, len(self.train), tracker)
        self.weights: dict[str, torch.Tensor] | None = None  # gathered from all processes

    @property
    def _measured_on(self) -> int:
        return TRIED if self.trial.stage in ("grpo", "distillation") else VALIDATION_EXAMPLES

    def _data(self, split: str, limit: int | None) -> Any:
        """Memory-mapped, in the task's own directory."""
        part = self.scratch / f"{split}{rank()}.arrow"
        part.parent.mkdir(parents=True, exist_ok=True)
        if self.trial.stage == "sft":
            rows: Iterator[dict[str, Any]] = islice(token_rows(Tokens(self.source.tokens, split)), limit)
        else:
            rows = rows_of(self.trial, islice(read_rows(self.source.dataset / f"{split}.parquet"), limit), self.tokenizer)
        with ArrowWriter(path=str(part)) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()
        return datasets.Dataset.from_file(str(part))

    def run(self) -> Outcome:
        """Train from the last checkpoint, if there is one. Raises TemporaryError on SIGTERM, once the trial is saved."""
        size, checkpointing = self._fitting(self.progress.values["per_device_train_batch_size"] // world_size()), False
        while True:
            try:
                with quiet_peft():
                    return self._run(size, checkpointing)
            except Exception as error:
                if not is_out_of_memory(error) or checkpointing or world_size() > 1:  # other processes would wait for this one
                    raise
            vars(self).pop("trainer", None)  # and the base with it, which may have been trained
            size, checkpointing = self._fitting(size // 2), size == 1
            say(f"out of memory: goes on with {'activation checkpointing, which is slower' if checkpointing else f'{size} examples at once'}")

    def _fitting(self, size: int) -> int:
        """The largest number of examples at once, at most so many, that a process's share of a step is a multiple of."""
        share = self.progress.examples_per_step // world_size()
        return next(number for number in range(max(1, size), 0, -1) if share % number == 0)

    def _run(self, size: int, checkpointing: bool) -> Outcome:
        progress, follower = self.progress, Follower(self.progress, self.keeping)
        progress.state, checkpoint = State(), self.keeping.store.find(self.trial.trial_id, CHECKPOINT, self.keeping.code)
        self.trainer = self._trainer(size, checkpointing, follower)
        progress.parameters = {name: parameter for name, parameter in self.trainer.model.named_parameters() if parameter.requires_grad}
        for parameter in progress.parameters.values():
            parameter.data = parameter.data.float()
        follower.tokens_a_step = self._tokens_a_step()
        if checkpoint:
            follower.resume(checkpoint)
        self.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if world_size() > 1:
            self.weights = self.trainer.accelerator.get_state_dict(self.trainer.model_wrapped)  # all processes give their part
        if not progress.outcome:
            progress.end_if_done()  # it was saved at its last step
        if not progress.outcome:
            kept = "the next attempt goes on from there" if self.keeping.store.root else "without --checkpoint_dir the next attempt starts anew"
            raise TemporaryError(f"stopped by the system at step {progress.state.step} of {progress.total_steps}; {kept}")
        return progress.outcome

    def _trainer(self, size: int, checkpointing: bool, follower: Follower) -> Trainer:
        trial = self.trial
        torch.manual_seed(trial.hyperparameters["seed"])  # for a new head
        base = self.source.load()
        base.requires_grad_(False)
        refuse_unknown_layers(base, trial)
        adapter = peft_config(trial) if trial.traits.is_adapter else None
        if not adapter:
            WholeModel(base, self.source.model, trial, self.source.trust_remote_code)
        parts = {"model": base, "processing_class": self.tokenizer, "peft_config": adapter, "callbacks": [follower]}
        trainer = trainer_of(trial, self._arguments(size, checkpointing), self.source.teacher, train_dataset=self.train, eval_dataset=self.validation, **parts)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _arguments(self, size: int, checkpointing: bool) -> dict[str, Any]:
        """Values of transformers.TrainingArguments that are the same for all stages."""
        values = self.progress.values
        same = ("learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "seed", "eval_steps")
        return {name: values[name] for name in same} | {
            "output_dir": str(self.scratch / "checkpoints"),
            "per_device_train_batch_size": size,
            "per_device_eval_batch_size": size,
            "gradient_accumulation_steps": self.progress.examples_per_step // size // world_size(),
            "max_steps": self.progress.total_steps,
            "warmup_steps": self.progress.warmup_steps,
            "bf16": resolve_dtype(values["dtype"]) == torch.bfloat16,
            "use_cpu": device() == "cpu",
            "activation_checkpointing": checkpointing,
            "gradient_checkpointing": checkpointing,  # the older name, which TRL sets unless it is told
            "eval_strategy": "steps",
            "save_strategy": "steps" if self.keeping.store.root else "no",
            "save_steps": self.keeping.settings.save_steps,
            "save_total_limit": 1,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "report_to": "none",  # the tracker reports
            "disable_tqdm": True,
            **sharding(self.keeping.compute),
        }

    def _tokens_a_step(self) -> float:
        """Of the trainers that do not count what they read: ORPO's."""
        data: Any = self.trainer.train_dataset
        columns = [data[name] for name in data.column_names if name.endswith("_input_ids")]
        tokens = sum(len(ids) for column in columns for ids in column)
        return float(tokens / len(data) * self.progress.examples_per_step)

    def save(self, trial: Trial, target: Path) -> None:
        """Write target/adapter or target/model."""
        model: Any = self.trainer.model
        if not trial.traits.is_adapter:
            save_model(model, self.source.model, target, trust_remote_code=self.source.trust_remote_code, weights=self.weights)
            return
        tensors = get_peft_model_state_dict(model, state_dict=self.weights, adapter_name=ADAPTER, save_embedding_layers=False)
        save_adapter(model.peft_config[ADAPTER], tensors, trial, target)

    def close(self) -> None:
        """Remove what the trainer kept for itself, and of other processes than the first everything."""
        shutil.rmtree(self.progress.tracker.directory if rank() else self.scratch, ignore_errors=True)


class Follower(TrainerCallback):  # type: ignore[misc]
    """Follows a trainer step by step: history, validation, patience, halving, checkpoints, and when to stop."""

    def __init__(self, progress: Progress, keeping: Keeping) -> None:
        self.progress, self.settings, self.store, self.code = progress, keeping.settings, keeping.store, keeping.code
        self.halving, self.stop = keeping.halving, keeping.stop
        self.started = self.tokens_a_step = 0.0
        self.tokens_before = 0  # of earlier attempts, which most of TRL's trainers forget

    @property
    def _at_rung(self) -> bool:
        step = self.progress.state.step
        return bool(self.halving and self.halving.is_rung(step) and step < self.progress.total_steps)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        """The trainer then logs, evaluates and saves, in this order, what is asked of it here."""
        progress = self.progress
        progress.state.seconds += time.monotonic() - self.started
        progress.state.step = state.global_step
        control.should_evaluate = progress.validation_due or self._at_rung
        if agreed(self.stop.received):
            control.should_save, control.should_training_stop = self.store.root is not None, True

    def on_log(self, _: Any, state: Any, control: Any, logs: dict[str, Any], **__: Any) -> None:
        progress = self.progress
        if "loss" not in logs or state.global_step != progress.state.step:
            return
        since = self.tokens_before + logs["num_tokens"] if "num_tokens" in logs else state.global_step * self.tokens_a_step
        progress.state.tokens = int(state.num_input_tokens_seen or since)
        more = {"reward": logs["reward"]} if "reward" in logs else {}
        progress.stepped(float(logs["loss"]), float(logs["learning_rate"]), **more)
        with self._ending(control):
            progress.refuse_infinite(progress.state.step, loss=float(logs["loss"]), gradient=float(logs.get("grad_norm") or 0))
        if more and progress.state.step >= FRUITLESS and not any(row["reward"] > 0 for row in progress.state.history):
            names = ", ".join(progress.values["reward_metrics"])
            progress.end("failed", f"no answer got any reward by {names} in {FRUITLESS} steps, so there is nothing to learn from; see the answers of the base")
            control.should_training_stop = True

    @contextmanager
    def _ending(self, control: Any) -> Iterator[None]:
        """A trial that diverges ends here."""
        try:
            yield
        except Diverged as diverged:
            self.progress.end("failed", str(diverged))
            control.should_training_stop = True

    def on_evaluate(self, _: Any, state: Any, control: Any, metrics: dict[str, float], **__: Any) -> None:
        """For grpo, the validation loss is what is missing of the full reward."""
        progress = self.progress
        progress.state.validation_seconds += metrics.get("eval_runtime", 0.0)
        loss = 1 - metrics["eval_reward"] if "eval_reward" in metrics else metrics["eval_loss"]
        with self._ending(control):
            progress.validated(loss)
        if not progress.outcome:
            progress.end_if_done()
        if not progress.outcome and self._at_rung and self.halving:
            self.halving.post(progress.state.step, progress.trial.trial_id, progress.recent_validation_loss)
            if reason := agreed(self.halving.reason_to_stop(progress.state.step, progress.trial.trial_id)):
                control.should_save = self.store.root is not None
                progress.end("stopped", reason)
        if progress.outcome:
            control.should_training_stop = True
        if progress.outcome or progress.state.step % self.settings.logging_steps == 0:
            progress.log()

    def on_save(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the trainer's checkpoint in the store, with what it does not know."""
        if rank():
            return
        directory = Path(arguments.output_dir) / f"checkpoint-{state.global_step}"
        write_json(directory / "state.json", asdict(self.progress.state))
        if self.progress.best_weights:
            save_file({name: weight.contiguous() for name, weight in self.progress.best_weights.items()}, directory / "best.safetensors")
        self.store.keep(self.progress.trial.trial_id, CHECKPOINT, self.code, directory)

    def resume(self, checkpoint: Path) -> None:
        self.progress.state = State(**json.loads((checkpoint / "state.json").read_text(encoding="utf-8")))
        self.tokens_before = self.progress.state.tokens
        if (checkpoint / "best.safetensors").exists():
            self.progress.best_weights = load_file(checkpoint / "best.safetensors")


def agreed(decision: Any) -> Any:
    """The first process's decision: all must take the same step next, or they wait for each other for ever."""
    if world_size() == 1:
        return decision
    decisions = [decision]
    torch.distributed.broadcast_object_list(decisions, src=0)
    return decisions[0]
