"""A tiny model with a real tokenizer, a small dataset, and the steps of the pipeline on them."""

from __future__ import annotations

import copy
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from record_files import chat, write_records

ROOT = Path(__file__).resolve().parents[2]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SETTINGS = {"code": "code-1", "models": {"trust_remote_code": False}}
FAST = {"learning_rate": 2e-2, "max_length": 96, "num_train_epochs": 2, "per_device_train_batch_size": 8, "warmup_steps": 0, "lr_scheduler_type": "constant"}
FAILING = {"learning_rate": 1e37}  # beyond what the parameters allow: the loss overflows in a step or two
CAREFUL = {"lora_dropout": 0.1, "num_train_epochs": 3, "lr_scheduler_type": "cosine", "warmup_steps": 3}  # 12 steps, random numbers in each
KEEP_BEST = {"early_stopping_patience": 100, "eval_steps": 3, "target_modules": "q_proj,v_proj"}
TRIAL_FILES = {"events.tfevents", "history.jsonl", "trial.json", "train_trials.json"}  # of every trial; besides, what it trained
ROOMS = ("atlas", "boreal", "cedar", "delta", "ember", "fjord", "grove", "harbour")


def run_step(step: str, args: Sequence[Any], settings: Mapping[str, Any] | None = None) -> None:
    """Run a step as the pipeline does: arguments on the command line, settings as JSON on standard input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(json.dumps(settings or {})))
        importlib.import_module(step).main([str(argument) for argument in args])


def write_tokenizer(directory: Path, template: str | None = CHATML) -> int:
    """Train a byte-level BPE on the example regulations; returns the size of its vocabulary."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train([str(file) for file in sorted((ROOT / "assets/examples/regulations").rglob("*.md"))], 500, show_progress=False, special_tokens=list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return len(tokenizer)


def write_model(directory: Path, template: str | None = CHATML, dtype: str = "float32", layers: int = 2) -> Path:
    """A random Llama as a Hugging Face directory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, logging

    logging.disable_progress_bar()
    directory.mkdir(parents=True)
    vocabulary = write_tokenizer(directory, template)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,  # a block of bitsandbytes
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.08,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(directory)
    return directory


def write_dataset(directory: Path) -> Path:
    """Questions with short answers, split as split_dataset does."""
    records = [chat(f"Which floor is room {room} {number} on?", f"Room {room} {number} is on floor {number % 4}.") for room in ROOMS for number in range(6)]
    write_records(directory / "deduplicated.parquet", records)
    given = {"splitting": {"validation_fraction": 0.2, "test_fraction": 0.2}}
    run_step("split_dataset", ["--records", directory / "deduplicated.parquet", "--outdir", directory], given)
    return directory / "dataset"


class Lab:
    """The steps of the training grid on one model and one dataset."""

    def __init__(self, model: Path, dataset: Path, folder: Path) -> None:
        self.model, self.dataset, self.folder = model, dataset, folder
        run_step("tokenize_dataset", ["--dataset", dataset, "--model", model, "--outdir", folder], {"max_length": FAST["max_length"]})
        self.tokens = folder / "tokens"

    def on(self, model: Path) -> Lab:
        """The same dataset and tokens with another model."""
        other = copy.copy(self)
        other.model = model
        return other

    def trials(
        self,
        training: Mapping[str, Any] | None = None,
        compute: Mapping[str, Any] | None = None,
        answers: Mapping[str, Any] | None = None,
        teacher: Path | None = None,
        **grid: Any,
    ) -> list[dict[str, Any]]:
        """Trials as plan_trials writes them, quick to train unless the grid says otherwise."""
        settings = {"grid": FAST | grid, "planning": {"trials_per_task": 64}, "training": {"eval_steps": 4, **(training or {})}}
        settings |= {"compute": {"dtype": "float32", **(compute or {})}, "answers": dict(answers or {})}
        args = ["--dataset", self.dataset / "dataset.json", "--models", self.model / "model.json", "--outdir", self.folder]
        args += ["--teacher", teacher / "model.json"] if teacher else []
        run_step("plan_trials", args, settings)
        lines = (self.folder / "packs.jsonl").read_text(encoding="utf-8").splitlines()
        return [trial for line in lines for trial in json.loads(line)["trials"]]

    def train(
        self,
        trials: Sequence[Mapping[str, Any]],
        outdir: Path,
        *,
        store: Path | None = None,
        code: str = "code-1",
        grid: str | None = None,
        teacher: Path | None = None,
        **training: Any,
    ) -> list[Path]:
        """Train a pack; returns the trials' directories."""
        outdir.mkdir(parents=True, exist_ok=True)
        given = SETTINGS | {
            "code": code,
            "trials": list(trials),
            "compute": {"checkpoint_dir": str(store) if store else None},
            "training": training,
            "grid": grid,
        }
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            args = ["--model", self.model, "--tokens", self.tokens, "--dataset", self.dataset, "--outdir", outdir]
            run_step("train_trials", [*args, *(["--teacher", teacher] if teacher else [])], given)
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)  # the step has its own, which the tests' process must not keep
        return [outdir / "trials" / trial["trial_id"] for trial in trials]

    def evaluate(
        self, trial: Path | None, outdir: Path, *, dataset: Path | None = None, store: Path | None = None, answers: Any = None, **evaluation: Any
    ) -> Path:
        """Evaluate a trial, or the base model; returns the directory of results."""
        outdir.mkdir(parents=True, exist_ok=True)
        name = trial.name if trial else "base-tiny"
        compute = {"dtype": "float32", "checkpoint_dir": str(store) if store else None}
        given = SETTINGS | {"id": name, "compute": compute, "evaluation": {"bootstrap_resamples": 100, "max_new_tokens": 12, **evaluation}}
        given["answers"] = answers or {}
        args = ["--model", self.model, *(["--trial", trial] if trial else []), "--dataset", dataset or self.dataset, "--outdir", outdir]
        run_step("evaluate_model", args, given)
        return outdir / name


def examples(*lengths: int, seed: int = 0) -> list[tuple[Any, Any]]:
    """Random tokenised examples (input_ids, labelled); the last token of each is learnt."""
    generator = np.random.default_rng(seed)
    made = [(generator.integers(3, 500, length).astype(np.int32), generator.random(length) < 0.4) for length in lengths]
    for _, labelled in made:
        labelled[-1] = True
    return made


def routed_batch(trainable: Any, examples_of: Mapping[str, list[tuple[Any, Any]]], step: int = 0) -> Any:
    """A batch with the rows of several trials, announced to what is trained."""
    from llamaflow.batches import families_of, rows_of, stack
    from llamaflow.lora import Share

    families = {trial_id: families_of(made, sharing=False) for trial_id, made in examples_of.items()}
    shares = [Share(trial_id, step, rows_of(own, packing=True)) for trial_id, own in families.items()]
    trainable.route(shares)
    return stack([row for share in shares for row in share.rows])


class Child:
    """A piece of work in a process of its own, which can be killed; its lines of output can be waited for.

    A fork has everything imported already, which a new Python would need ten seconds for.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            signal.alarm(60)  # whatever happens, it ends
            os.close(reading)
            _end_with(work, writing)
        os.close(writing)
        self.output = os.fdopen(reading, encoding="utf-8")

    def kill_after(self, words: str, signal_number: int) -> int:
        """Wait for a line with these words, send the signal, and return the exit status (negative: the signal that ended it)."""
        with self.output:
            if not any(words in line for line in self.output):
                raise AssertionError(f"the process ended before it said {words!r}")
            os.kill(self.pid, signal_number)
            self.output.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill_at_line(self, number: int, signal_number: int) -> int:
        """Send the signal after so many lines of output, if there are so many; return the exit status."""
        with self.output:
            if sum(1 for _ in zip(range(number), self.output, strict=False)) == number:
                os.kill(self.pid, signal_number)
            self.output.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _end_with(work: Callable[[], object], output: int) -> NoReturn:
    status: Any = 1
    try:
        sys.stdout = sys.stderr = os.fdopen(output, "w", buffering=1, encoding="utf-8")
        work()
        status = 0
    except SystemExit as ended:
        status = ended.code
    finally:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        os._exit(status)


def json_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def history(trial: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (trial / "history.jsonl").read_text(encoding="utf-8").splitlines()]


def counts(trial: Path) -> dict[str, Any]:
    """How a training ended, by its receipt."""
    found: dict[str, Any] = json_of(trial / "train_trials.json")["counts"]
    return found


def with_values(trial: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A trial with other hyperparameters than a plan would give it."""
    return trial | {"trial_id": f"{trial['trial_id']}-changed", "hyperparameters": trial["hyperparameters"] | values}


def weights_of(directory: Path) -> dict[str, Any]:
    """The tensors of a safetensors directory."""
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(directory.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def same_weights(one: Path, other: Path) -> bool:
    """Whether two directories hold the same tensors, to the last bit."""
    import torch

    first, second = weights_of(one), weights_of(other)
    return bool(first) and first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
