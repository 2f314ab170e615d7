"""From LLaMA-Factory's configuration to ours. Its keys and defaults: src/llamafactory/hparams of https://github.com/hiyouga/LLaMA-Factory,
and those of transformers' TrainingArguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamaflow.errors import UsageError
from llamaflow.importers import shared
from llamaflow.importers.conversion import APPROXIMATED, NO_COUNTERPART, SAME, Conversion
from llamaflow.importers.data import add_sources, local_files, on_the_hub
from llamaflow.trials import TECHNIQUES
from llamaflow.validation import nearest

NAMES = {
    "output_dir": "outdir",
    "cutoff_len": "max_length",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "num_train_epochs": "num_train_epochs",
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "lr_scheduler_type",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "seed": "seed",
    "lora_rank": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "loraplus_lr_ratio": "loraplus_lr_ratio",
    "freeze_trainable_layers": "freeze_trainable_layers",
    "early_stopping_steps": "early_stopping_patience",  # counted in evaluations there too, in spite of its name
    "logging_steps": "logging_steps",
    "default_system": "system_prompt",
    "max_new_tokens": "max_new_tokens",
    "pref_beta": "beta",
}
DEFAULTS = {
    "output_dir": "trainer_output",
    "dataset_dir": "data",
    "finetuning_type": "lora",
    "cutoff_len": 2048,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "lora_rank": 8,
}
INFO = "dataset_info.json"
COLUMNS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages"},
}
TAGS = {("role", "content"), ("from", "value")}


def convert(config: Mapping[str, Any], folder: Path) -> Conversion:
    """`folder` is where the configuration is: dataset_info.json may be beside it."""
    rank = config.get("lora_rank") or DEFAULTS["lora_rank"]
    conversion = Conversion("LLaMA-Factory", config, DEFAULTS | ({"lora_alpha": 2 * rank} if isinstance(rank, int) else {}))
    _data(conversion, folder)
    conversion.model("model_name_or_path", ("model_revision",))
    conversion.rename(NAMES)
    shared.training(conversion, optimizer="optim", validation="val_size")
    _trackers(conversion)
    shared.chat_template(conversion, "template")
    _packing(conversion)
    conversion.same("do_train", True, "a run trains")
    conversion.same("train_on_prompt", False, "only answers count in the loss")
    conversion.same("mask_history", False, "all answers of a conversation count in the loss")
    shared.in_order(conversion, "disable_shuffling")
    conversion.same("mix_strategy", "concat", "data sets are put together")
    conversion.same("freeze_trainable_modules", "all", "whole layers are trained")
    _stage(conversion)
    _technique(conversion)
    conversion.finish()
    return conversion


def _trackers(conversion: Conversion) -> None:
    given = conversion.take("report_to") or []
    names = [str(name) for name in (given if isinstance(given, list) else [given])]
    if known := [name for name in names if name in ("mlflow", "wandb")]:
        conversion.set("report_to", known, "report_to")
    if names and set(names) <= {"none", "tensorboard"}:
        conversion.remark(SAME, "report_to", "what TensorBoard shows is written in any case")
    elif set(names) - {*known, "none", "tensorboard"}:
        conversion.remark(NO_COUNTERPART, "report_to", "a training is followed with TensorBoard, mlflow and wandb")


def _stage(conversion: Conversion) -> None:
    """orpo is a loss of the stage dpo there, and a stage here."""
    stage = conversion.take("stage")
    if stage == "dpo" and conversion.left.get("pref_loss") == "orpo":
        shared.stage(conversion, "pref_loss", conversion.take("pref_loss"))
    elif stage:
        shared.stage(conversion, "stage", str(stage))
    conversion.same("pref_loss", "sigmoid", "the loss of dpo")


def _packing(conversion: Conversion) -> None:
    packing, neat = conversion.left.pop("packing", None), conversion.left.pop("neat_packing", None)
    key = "neat_packing" if neat else "packing"
    if packing or neat:
        text = "the batch size counts packed rows there and examples here: more and smaller optimiser steps"
        conversion.remark(APPROXIMATED, key, text if neat else f"{text}; examples of a row never see each other here")
    if packing is not None or neat is not None:
        conversion.set("packing", bool(packing or neat), key)


def _technique(conversion: Conversion) -> None:
    shared.target_modules(conversion, "lora_target")
    kind, bits = str(conversion.take("finetuning_type")), conversion.take("quantization_bit")
    wanted = shared.quantised(conversion, "quantization_bit", bits) if bits else []
    asked = {"dora": "use_dora", "rslora": "use_rslora", "pissa": "pissa_init"}
    wanted += [(name, key) for name, key in asked.items() if conversion.take(key)]
    wanted += [("loraplus", "loraplus_lr_ratio")] if "loraplus_lr_ratio" in conversion.given else []
    for key, value in (("quantization_method", "bitsandbytes"), ("quantization_type", "nf4")):
        conversion.same(key, value, "weights are quantised by bitsandbytes, 4 bits as nf4")
    conversion.technique([*(wanted if kind == "lora" or kind not in TECHNIQUES else []), (kind, "finetuning_type"), ("lora", "")])


def _data(conversion: Conversion, folder: Path) -> None:
    """The data sets that are named, as dataset_info.json describes them."""
    names = {key: _names(conversion.left.pop(key, "")) for key in ("dataset", "eval_dataset")}
    directory = Path(str(conversion.take("dataset_dir")))
    places = [directory, folder / directory, folder]
    found = next((place for place in places if (place / INFO).is_file()), None)
    if found is None:
        raise UsageError(
            f"{INFO}, which says what {', '.join(names['dataset']) or 'the data'} is, is in none of {', '.join(map(str, places))}. Say where it is in dataset_dir."
        )
    described = _described(found / INFO)
    for key, columns in (("dataset", {}), ("eval_dataset", {"split": "validation"})):
        for name in names[key]:
            if not isinstance(described.get(name), dict):
                raise UsageError(f"{key}: {name!r} is not in {found / INFO}{nearest(name, described)}.")
            _dataset(conversion, name, dict(described[name]), found, columns)


def _names(given: Any) -> list[str]:
    return [str(name).strip() for name in (given if isinstance(given, list) else str(given).split(",")) if str(name).strip()]


def _described(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(described, dict):
        raise UsageError(f"{path}: expected an object that describes each data set under its name.")
    return described


def _dataset(conversion: Conversion, name: str, entry: dict[str, Any], folder: Path, columns: dict[str, str]) -> None:
    if hub := entry.pop("hf_hub_url", None):
        addresses = on_the_hub(conversion, name, str(hub), entry.pop("subset", None), entry.pop("split", None))
    else:
        addresses = local_files(str(folder / str(entry["file_name"]))) if "file_name" in entry else []
        if not addresses:
            conversion.remark(NO_COUNTERPART, name, "it is neither a file of a format that is known by its ending nor a data set of the Hugging Face Hub")
    add_sources(conversion, name, addresses, columns)
    formatting = str(entry.pop("formatting", "alpaca"))
    theirs, tags = entry.pop("columns", {}), entry.pop("tags", {})
    _columns(conversion, name, formatting, theirs if isinstance(theirs, dict) else {}, tags if isinstance(tags, dict) else {})
    for key in entry:
        if key not in ("file_name", "ranking", "ms_hub_url", "om_hub_url", "script_url"):
            conversion.remark(NO_COUNTERPART, f"{name}.{key}", "a data set is taken whole")


def _columns(conversion: Conversion, name: str, formatting: str, theirs: dict[str, Any], tags: dict[str, Any]) -> None:
    """Say what has to be renamed, so that the columns are understood."""
    ours = COLUMNS.get(formatting, {}) | {"history": "history", "system": "system", "chosen": "chosen", "rejected": "rejected", "kto_tag": "label"}
    if set(theirs) == {"prompt"}:
        ours = {"prompt": "text"}  # to be continued
    elif "chosen" in theirs:
        ours = ours | {"prompt": "prompt", "messages": "prompt"}
    elif theirs.get("prompt") == "question" and theirs.get("response") == "answer":
        ours = ours | {"prompt": "question", "response": "answer"}
    elif theirs.get("messages") == "messages":
        ours = ours | {"messages": "messages"}
    renames = {str(column): ours[key] for key, column in theirs.items() if key in ours}
    role, content = str(tags.get("role_tag", "from")), str(tags.get("content_tag", "value"))
    if (role, content) not in TAGS:
        renames |= {role: "role", content: "content"}
    shared.columns(conversion, name, renames)
    for key in theirs:
        if key not in ours:
            conversion.remark(NO_COUNTERPART, f"{name}.columns.{key}", "only texts and conversations are learnt")
