"""A foreign configuration on its way to our parameters: every key ends as a parameter or as a remark, so that nothing is lost silently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamaflow.params import GROUP_OF, GROUPS
from llamaflow.trials import NOT_FOR_ALL, STAGES, TECHNIQUES
from llamaflow.validation import describe

APPROXIMATED, NO_COUNTERPART, SAME, NOT_NEEDED = "approximated", "no counterpart", "the same here", "not needed here"
LONGEST_SHOWN = 60  # characters of a value
SECRET = re.compile(r"token|key|secret|password", re.IGNORECASE)
# why LlamaFlow has no parameter for a key: regular expressions of keys, by what they have in common
REASONS: tuple[tuple[str, str, str], ...] = (
    (
        NOT_NEEDED,
        "how a training is computed follows from the machine",
        r"""(flash|xformers|sdp|flex|eager|sage|s2)_attention attn_implementation flash_attn.* gradient_checkpointing.* disable_gradient_checkpointing
        use_reentrant_gc deepspeed fsdp.* ddp.* local_rank device.* low_cpu_mem_usage torch_compile.* tf32 lora_\w+_kernel use_kernels liger_.*
        enable_liger_kernel unsloth_.* use_unsloth.* plugins max_memory dataloader_.* preprocessing_.* dataset_processes dataset_num_proc
        quantization_device_map double_quantization gc_steps""",
    ),
    (
        NOT_NEEDED,
        "rows are laid out and padded by LlamaFlow",
        r"eval_sample_packing pad_to_sequence_len sample_packing_.* pad_to_multiple_of group_by_length multipack_.* batch_flattening",
    ),
    (
        NOT_NEEDED,
        "steps keep their results by themselves, and trainings go on from their checkpoints",
        r"""dataset_prepared_path overwrite_.* tokenized_path cache_dir remove_unused_columns resume_from_checkpoint auto_resume_from_checkpoints
        save_total_limit save_only_model save_safetensors save_first_step""",
    ),
    (
        NOT_NEEDED,
        "the model's own files say it",
        r"model_type type_of_model tokenizer_.* use_fast_tokenizer processor_type base_model_config is_\w+_derived_model",
    ),
    (
        NO_COUNTERPART,
        "addresses, projects and keys come from the tools' own variables, such as WANDB_PROJECT: see docs/usage.md, 'Following a training'",
        r"(wandb|mlflow)_.*",
    ),
    (NO_COUNTERPART, "a training is followed with TensorBoard, mlflow and wandb", r"(use_)?(comet|swanlab|trackio)(_.*)?"),
    (
        NOT_NEEDED,
        "every trial is written for TensorBoard under its name, and drawn in the report",
        r"run_name use_tensorboard plot_loss logging_(dir|strategy)",
    ),
    (NO_COUNTERPART, "rewards are no functions here: choose reward_metrics, such as exact_match or json_schema", r"trl\.reward_.*"),
    (NO_COUNTERPART, "the release is a directory; nothing is sent to the Hub", r"hub_.* push_to_hub.* push_dataset_to_hub hf_hub_token"),
    (
        NO_COUNTERPART,
        "the validation loss is measured every eval_steps, and a checkpoint written every save_steps",
        r"(eval|save)s_per_epoch (eval|evaluation|save)_strategy do_eval per_device_eval_batch_size",
    ),
    (NO_COUNTERPART, "AdamW has PyTorch's betas and epsilon", r"adam_.* optim_args"),
    (NO_COUNTERPART, "the tokenizer stays as the model has it", r"special_tokens tokens added_tokens_overrides eot_tokens add_\w*tokens resize_\w+"),
    (NO_COUNTERPART, "how long a trial trains is said in num_train_epochs", "max_steps"),
    (NO_COUNTERPART, "with from_scratch the tokenizer is trained anew too: see assets/recipes/from_scratch.yaml", "train_from_scratch reinit_weights"),
    (NO_COUNTERPART, "training starts from the base model: merge the earlier adapter into it first", "lora_model_dir adapter_name_or_path"),
)


@dataclass(frozen=True)
class Remark:
    """What became of a key that is not simply a parameter now."""

    kind: str
    key: str
    text: str
    value: Any = None


class Conversion:
    """The keys that are left of a configuration, and the parameters and remarks that came of the others."""

    def __init__(self, tool: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.tool, self.defaults = tool, defaults
        self.left = {str(key): value for key, value in config.items() if value is not None and value not in ("", [], {})}
        self.given = dict(self.left)
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}  # parameter -> the key that it comes from
        self.remarks: list[Remark] = []
        self.sources: list[dict[str, str]] = []  # rows of a samplesheet

    def take(self, key: str) -> Any:
        """The value of a key, which is then dealt with; where the file does not say, the other tool's default."""
        return self.left.pop(key, self.defaults.get(key))

    def remark(self, kind: str, key: str, text: str) -> None:
        self.remarks.append(Remark(kind, key, one_line(text), self.given.get(key)))

    def same(self, key: str, value: Any, text: str) -> None:
        """Take a key that must have one value, since LlamaFlow does nothing else; `text` says what it does."""
        if key in self.left:
            self.remark(SAME if self.left.pop(key) == value else NO_COUNTERPART, key, text)

    def set(self, name: str, value: Any, key: str) -> None:
        """Give a parameter its value, if it accepts it; what the other tool has by default too is left out where it is our default."""
        group = GROUPS[GROUP_OF[name]]
        required = {other: "-" for other, field in group.model_fields.items() if field.is_required()}
        try:
            accepted = getattr(group.model_validate(required | {name: value}), name)
        except ValidationError as error:
            self.remark(NO_COUNTERPART, key, "; ".join(line.removeprefix("--") for line in describe(error)))
            return
        if key in self.given or accepted != group.model_fields[name].default:
            self.values[name] = accepted[0] if isinstance(accepted, tuple) and len(accepted) == 1 else accepted
            self.origins[name] = key if key in self.given else f"{self.tool}'s default"

    def rename(self, names: Mapping[str, str]) -> None:
        """Take keys that mean what a parameter of ours means."""
        for key, name in names.items():
            value = self.take(key)
            if value is not None:
                self.set(name, value, key)

    def model(self, key: str, revision_keys: tuple[str, ...]) -> None:
        """The base model with its revision, as a reference of ours: a path begins with a dot, a tilde or a slash."""
        name = str(self.take(key))
        revision = next(filter(None, [self.take(other) for other in revision_keys]), None)
        if Path(name).is_dir() or (name.count("/") > 1 and "://" not in name):
            name = name if name.startswith(("/", "./", "../", "~")) else f"./{name}"
        self.set("models", f"{name}@{revision}" if revision else name, key)

    def technique(self, wanted: list[tuple[str, str]]) -> None:
        """Take the first technique of (name, key that asks for it) that there is for the stage; they are not combined."""
        stage = self.values.get("stage", "sft")
        fitting = {name for name, traits in TECHNIQUES.items() if stage == "sft" or traits.all_stages}
        chosen, source = next((name, key) for name, key in wanted if name in fitting)
        self.set("techniques", chosen, source)
        for name, key in wanted:
            if name not in fitting:
                self.remark(APPROXIMATED, key, f"there is no {name} for {stage}: {chosen} is trained")
            elif name not in (chosen, "lora"):
                self.remark(NO_COUNTERPART, key, f"{name} cannot be combined with {chosen}, which is trained")
        traits = TECHNIQUES[chosen]
        used = {*traits.own, *STAGES[stage].own, *(["target_modules"] if traits.trains == "layers" else [])}
        for name in [name for name in self.values if name in {*NOT_FOR_ALL, "target_modules"} - used]:
            del self.values[name]
            if (key := self.origins.pop(name)) in self.given:
                self.remark(NOT_NEEDED, key, f"{stage} with {chosen} does not use it")

    def finish(self) -> None:
        """Say of every key that is left why it has no counterpart."""
        for key, value in self.left.items():
            other = (NOT_NEEDED, "off there, and not to be had here") if value is False else (NO_COUNTERPART, "LlamaFlow has no such setting")
            kind, text = next(((kind, text) for kind, text, keys in REASONS if re.fullmatch("|".join(keys.split()), key)), other)
            self.remark(kind, key, text)
        self.left = {}


def shown(key: str, value: Any) -> str:
    """A key with its value, if that is short and no secret, on one line."""
    text = one_line(str(value).lower() if isinstance(value, bool) else str(value)) if isinstance(value, str | int | float) else ""
    return one_line(key) + (f" ({text})" if 0 < len(text) <= LONGEST_SHOWN and not SECRET.search(key) else "")


def one_line(text: str) -> str:
    """Printable, and without line breaks: it will stand in a comment."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
