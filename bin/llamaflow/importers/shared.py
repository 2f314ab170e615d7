"""What both tools take from transformers, and so say alike."""

from __future__ import annotations

import re
from typing import Any

from llamaflow.importers.conversion import APPROXIMATED, NO_COUNTERPART, SAME, Conversion

ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused")
STAGES = {"pt": "sft", "rm": "reward"} | {name: name for name in ("sft", "dpo", "orpo", "kto", "reward", "grpo")}


def in_order(conversion: Conversion, key: str) -> None:
    """Examples in the order of the data: in all passes there."""
    if conversion.take(key):
        conversion.set("curriculum", "sequential", key)
        conversion.remark(APPROXIMATED, key, "in the first pass; the later ones are in an order by chance")


def training(conversion: Conversion, optimizer: str, validation: str) -> None:
    """What both say in the same words, but for the keys of the optimiser and of the share for validation."""
    _warmup(conversion)
    _precision(conversion)
    _optimizer(conversion, optimizer)
    for key in ("eval_steps", "save_steps"):
        _steps(conversion, key)
    _validation(conversion, validation)
    _trust_remote_code(conversion)


def _warmup(conversion: Conversion) -> None:
    """Our warmup_steps is a number of steps or, below 1, their share: both keys in one."""
    steps, ratio = conversion.take("warmup_steps"), conversion.take("warmup_ratio")
    if steps is not None and (steps or not ratio):
        conversion.set("warmup_steps", steps, "warmup_steps")
    elif ratio is not None:
        conversion.set("warmup_steps", 0.999 if _number(ratio) >= 1 else ratio, "warmup_ratio")  # 1 would be one step


def _precision(conversion: Conversion) -> None:
    bfloat, half = ("bf16", "bfloat16", "pure_bf16"), ("fp16", "float16")
    given = {key: conversion.left.pop(key) for key in (*bfloat, *half, "float32") if key in conversion.left}
    on = next((key for key, value in given.items() if value), None)
    if on in half:
        conversion.remark(APPROXIMATED, on, "float16 is not offered: bfloat16 where the machine computes it fast, else float32")
    elif on in bfloat:
        conversion.set("dtype", "auto" if given[on] == "auto" else "bfloat16", on)
    elif given:
        conversion.set("dtype", "float32", on or next(iter(given)))


def _optimizer(conversion: Conversion, key: str) -> None:
    name = conversion.take(key)
    if name in ADAMW:
        conversion.remark(SAME, key, "AdamW")
    elif name and "adamw" in str(name):
        conversion.remark(APPROXIMATED, key, "AdamW with its states in full precision: more memory, nothing else")
    elif name:
        conversion.remark(NO_COUNTERPART, key, "AdamW is used")


def _steps(conversion: Conversion, key: str) -> None:
    """eval_steps and save_steps, which may be shares of all steps in transformers."""
    value = conversion.take(key)
    if value is not None and _number(value) < 1:
        conversion.remark(NO_COUNTERPART, key, f"a share of all steps; {key} is a number of steps here")
    elif value is not None:
        conversion.set(key, value, key)


def target_modules(conversion: Conversion, key: str, all_linear: str | None = None) -> None:
    given = conversion.take(key)
    if all_linear and conversion.take(all_linear):  # what is listed besides is among them
        conversion.set("target_modules", "all-linear", all_linear)
        return
    names = given.split(",") if isinstance(given, str) else given or []
    if not isinstance(names, list) or not all(re.fullmatch(r"\s*[\w.-]+\s*", str(name)) for name in names):
        conversion.remark(NO_COUNTERPART, key, "a pattern; target_modules is a list of names, or all-linear")
    elif names:
        conversion.set("target_modules", "all-linear" if names in (["all"], ["all-linear"]) else ",".join(str(name).strip() for name in names), key)


def _validation(conversion: Conversion, key: str) -> None:
    """The share for validation. A test split is kept in any case, which the other tools do not do."""
    share = _number(conversion.take(key) or 0)
    if 0 < share < 1:
        conversion.set("validation_fraction", share, key)
    elif key in conversion.given:
        conversion.remark(NO_COUNTERPART, key, "validation_fraction is a share above 0; a tenth of the records is kept if nothing is said")
    conversion.remark(APPROXIMATED, "test_fraction", "a tenth of the records is kept to compare with the base model: so much less is trained on")


def chat_template(conversion: Conversion, key: str) -> None:
    if (name := conversion.take(key)) and name != "jinja":
        text = "the model's own chat template is used; for a model without one, give a Jinja file as chat_template"
        conversion.remark(SAME if name == "tokenizer_default" else APPROXIMATED, key, text)


def _trust_remote_code(conversion: Conversion) -> None:
    if conversion.take("trust_remote_code"):
        conversion.remark(
            NO_COUNTERPART, "trust_remote_code", "left off: it runs Python code that comes with a model; switch it on for one whose code you have read"
        )


def columns(conversion: Conversion, key: str, renames: dict[str, str]) -> None:
    """Say which columns of a data set need another name. `renames` maps theirs to ours."""
    needed = [f"{theirs} -> {ours}" for theirs, ours in renames.items() if theirs != ours]
    if needed:
        conversion.remark(NO_COUNTERPART, key, f"columns are known by their names: rename {', '.join(needed)}")


def stage(conversion: Conversion, key: str, name: str) -> None:
    if name in STAGES:
        conversion.set("stage", STAGES[name], key)
    else:
        conversion.remark(NO_COUNTERPART, key, f"there is no {name}: without a stage, answers are learnt as they are, and of two the chosen one")


def quantised(conversion: Conversion, key: str, bits: Any) -> list[tuple[str, str]]:
    """Of a quantised base, the technique that is wanted, and the key that asks for it."""
    conversion.set("quantization_bit", bits, key)
    return [("qlora", key)]


def _number(value: Any) -> float:
    """YAML 1.1 reads 1e-4 as text. What is no number at all is refused where it is set."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
