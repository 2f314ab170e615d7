"""From axolotl's configuration to ours. Its keys and defaults: src/axolotl/utils/schemas of https://github.com/axolotl-ai-cloud/axolotl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamaflow.errors import UsageError
from llamaflow.importers import shared
from llamaflow.importers.conversion import APPROXIMATED, NO_COUNTERPART, Conversion
from llamaflow.importers.data import add_sources, hub_file, local_files, on_the_hub
from llamaflow.rows import ROLES

NAMES = {
    "output_dir": "outdir",
    "sequence_len": "max_length",
    "micro_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "num_epochs": "num_train_epochs",
    "learning_rate": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "seed": "seed",
    "lora_r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "loraplus_lr_ratio": "loraplus_lr_ratio",
    "sample_packing": "packing",
    "early_stopping_patience": "early_stopping_patience",
    "logging_steps": "logging_steps",
    "default_system_message": "system_prompt",
    "eval_max_new_tokens": "max_new_tokens",
    "orpo_alpha": "beta",
    "rl_beta": "beta",
    "trl.beta": "beta",
    "trl.num_generations": "num_generations",
    "trl.max_completion_length": "max_completion_length",
    "trl.temperature": "temperature",
}
DEFAULTS = {"output_dir": "./model-out", "sequence_len": 512, "micro_batch_size": 1, "num_epochs": 1.0, "warmup_ratio": 0.03}
LOADERS = ("json", "csv", "parquet", "text")  # in place of a path: how data_files are read
READ_ALIKE = ("alpaca", "jeopardy", "alpaca_chat.load_qa", "sharegpt")  # whose columns are among ours
PREFERENCES = {"field_prompt": "prompt", "field_chosen": "chosen", "field_rejected": "rejected"}
INSTRUCTIONS = {"field_system": "system", "field_instruction": "instruction", "field_input": "input", "field_output": "output"}


def convert(config: Mapping[str, Any]) -> Conversion:
    conversion = Conversion("axolotl", _flat(config), DEFAULTS)
    _data(conversion)
    conversion.model("base_model", ("revision_of_model", "model_revision"))
    _whole_batch(conversion)
    conversion.rename(NAMES)
    if conversion.values.get("packing"):
        conversion.remark(APPROXIMATED, "sample_packing", "micro_batch_size counts packed rows there and examples here: more and smaller optimiser steps")
    shared.training(conversion, optimizer="optimizer", validation="val_set_size")
    _trackers(conversion)
    conversion.same("train_on_inputs", False, "only answers count in the loss")
    shared.in_order(conversion, "curriculum_sampling")
    conversion.same("shuffle_merged_datasets", True, "examples are shuffled")
    _chat_template(conversion)
    _stage(conversion)
    _technique(conversion)
    conversion.finish()
    return conversion


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under trl as trl.beta and so on."""
    block = config.get("trl")
    return {**config, "trl": None, **{f"trl.{name}": value for name, value in block.items()}} if isinstance(block, dict) else dict(config)


def _stage(conversion: Conversion) -> None:
    if (rl := conversion.take("rl")) is not None:
        shared.stage(conversion, "rl", str(rl))
    if conversion.take("reward_model"):
        shared.stage(conversion, "reward_model", "reward")


def _trackers(conversion: Conversion) -> None:
    """Weights & Biases also where only its project is named."""
    keys = {"mlflow": "use_mlflow", "wandb": "use_wandb" if "use_wandb" in conversion.given else "wandb_project"}
    asked = {name: key for name, key in keys.items() if conversion.given.get(key)}
    for key in ("use_mlflow", "use_wandb"):
        conversion.take(key)
    if asked:
        conversion.set("report_to", list(asked), next(iter(asked.values())))
        conversion.origins["report_to"] = ", ".join(asked.values())


def _whole_batch(conversion: Conversion) -> None:
    """batch_size is micro_batch_size times gradient_accumulation_steps; two of the three are given."""
    whole, micro = conversion.left.get("batch_size"), conversion.left.get("micro_batch_size")
    if isinstance(whole, int) and isinstance(micro, int) and micro > 0 and "gradient_accumulation_steps" not in conversion.left:
        conversion.set("gradient_accumulation_steps", max(1, whole // micro), "batch_size")
        del conversion.left["batch_size"]


def _chat_template(conversion: Conversion) -> None:
    jinja = conversion.take("chat_template_jinja")
    if jinja and str(jinja).endswith((".jinja", ".jinja2")):
        conversion.set("chat_template", str(jinja), "chat_template_jinja")
    elif jinja:
        conversion.remark(NO_COUNTERPART, "chat_template_jinja", "save it as a file, and give that as chat_template")
    shared.chat_template(conversion, "chat_template")


def _technique(conversion: Conversion) -> None:
    shared.target_modules(conversion, "lora_target_modules", all_linear="lora_target_linear")
    adapter = conversion.take("adapter")
    wanted = [("qlora", "adapter")] if adapter == "qlora" else []
    for key, bits in (("load_in_4bit", 4), ("load_in_8bit", 8)):
        wanted += shared.quantised(conversion, key, bits) if conversion.take(key) else []
    asked = {"dora": "peft_use_dora", "rslora": "peft_use_rslora"}
    wanted += [(name, key) for name, key in asked.items() if conversion.take(key)]
    wanted += [("loraplus", "loraplus_lr_ratio")] if "loraplus_lr_ratio" in conversion.given else []
    start = conversion.take("peft_init_lora_weights")
    wanted += [(start.partition("_")[0], "peft_init_lora_weights")] if isinstance(start, str) else []
    wanted += [(str(adapter), "adapter")] if adapter not in (None, "lora", "qlora") else []
    conversion.technique([*wanted, ("lora", "adapter")] if adapter else [("full", "adapter")])


def _data(conversion: Conversion) -> None:
    for key, columns in (("datasets", {}), ("pretraining_dataset", {"type": "text"}), ("test_datasets", {"split": "validation"})):
        entries = conversion.left.pop(key, [])
        entries = [{"path": entries}] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and isinstance(entry.get("path"), str) for entry in entries):
            raise UsageError(f"{key}: expected a list of data sets, each with its path.")
        for number, entry in enumerate(entries):
            _dataset(conversion, f"{key}[{number}]", {str(name): value for name, value in entry.items() if value is not None}, columns)


def _dataset(conversion: Conversion, key: str, entry: dict[str, Any], columns: dict[str, str]) -> None:
    path, files = str(entry.pop("path")), entry.pop("data_files", [])
    subset, split, revision, _ = (entry.pop(name, None) for name in ("name", "split", "revision", "ds_type"))
    files = [str(file) for file in (files if isinstance(files, list) else [files])]
    if path in LOADERS:
        addresses = files
    elif files:
        addresses = [f"{path}/{file}" if Path(path).is_dir() or path.startswith(("/", ".", "~")) else hub_file(path, file, revision) for file in files]
    else:
        addresses = local_files(path) or on_the_hub(conversion, key, path, subset, split)
    add_sources(conversion, key, addresses, columns)
    _columns(conversion, key, entry)
    for name in entry:
        conversion.remark(NO_COUNTERPART, f"{key}.{name}", "a data set is taken whole, and what the assistant says is learnt")


def _columns(conversion: Conversion, key: str, entry: dict[str, Any]) -> None:
    """Say what has to be renamed, so that the columns are understood."""
    kind = entry.pop("type", "pretrain")
    fields = {**kind, **entry} if isinstance(kind, dict) else entry
    name = "own" if isinstance(kind, dict) else str(kind).partition(":")[0]
    renames = {str(fields[field]): ours for field, ours in (PREFERENCES | INSTRUCTIONS).items() if field in fields}
    if name.startswith("chat_template"):
        renames |= _message_names(entry)
    elif name in ("completion", "pretrain"):
        renames |= {str(fields[field]): "text" for field in ("field", "text_column") if field in fields}
    else:
        known = name in READ_ALIKE or isinstance(kind, dict)
        text = "the model's chat template lays out the question, not a text of axolotl's; a model without one needs chat_template"
        conversion.remark(APPROXIMATED, f"{key}.type", text if known else f"{text}; see docs/usage.md, 'Your data', for how the columns must be called")
    shared.columns(conversion, key, renames)
    for field in [*PREFERENCES, *INSTRUCTIONS, "field", "text_column"]:
        entry.pop(field, None)


def _message_names(entry: dict[str, Any]) -> dict[str, str]:
    """Columns with messages may be called messages or conversations; a message has role and content, or from and value."""
    messages = str(entry.pop("field_messages", "messages"))
    given = entry.pop("message_property_mappings", {})
    mapping = given if isinstance(given, dict) else {}
    role, content = (str(mapping.get(name) or entry.pop(f"message_field_{name}", name)) for name in ("role", "content"))
    renames = {} if messages in ("messages", "conversations") else {messages: "messages"}
    if (role, content) not in (("role", "content"), ("from", "value")):
        renames |= {role: "role", content: "content"}
    roles = entry.get("roles")
    if isinstance(roles, dict) and {str(role) for names in roles.values() if isinstance(names, list) for role in names} <= {*ROLES, *ROLES.values(), "system"}:
        del entry["roles"]
    return renames
