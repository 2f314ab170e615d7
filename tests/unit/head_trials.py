"""Trials with a head, as training would leave them: random weights, so that their outputs differ from record to record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from record_files import chat
from tiny import Lab
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from llamaflow.techniques import load_base
from llamaflow.trials import Trial

LABELS = ("blue", "green", "red")


def turns(*texts: str, first: str = "user") -> list[dict[str, str]]:
    """A conversation of two who take turns."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def preference(chosen: str, rejected: str, *prompt: str) -> dict[str, Any]:
    both = {"chosen": turns(chosen, first="assistant"), "rejected": turns(rejected, first="assistant")}
    return {"type": "preference", "prompt": turns(*prompt or ("Which floor?",)), **both}


def labelled(number: int = 12) -> list[dict[str, Any]]:
    return [
        chat("Which colour? " + "Look again. " * (place % 4) + f"It is number {place}.", LABELS[place % 3], label=LABELS[place % 3]) for place in range(number)
    ]


def head_trial(lab: Lab, folder: Path, stage: str = "classification", technique: str = "lora", max_length: int = 96) -> Path:
    """The directory of a trial of the stage classification (LABELS) or reward."""
    (planned,) = lab.trials(techniques=technique, max_length=max_length)
    values = planned["hyperparameters"] | {"stage": stage}
    trial = Trial.model_validate(
        planned | {"trial_id": f"tiny-{stage}-{technique}", "hyperparameters": values, "data": {"sha256": "e" * 64, "labels": list(LABELS)}}
    )
    directory = folder / trial.trial_id
    directory.mkdir(parents=True)
    torch.manual_seed(1)
    model: Any = load_base(lab.model, trial)
    torch.nn.init.normal_(model.score.weight)
    if technique == "lora":
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear", init_lora_weights=False))
    model.save_pretrained(directory / ("adapter" if technique == "lora" else "model"))
    if technique == "full":
        AutoTokenizer.from_pretrained(lab.model).save_pretrained(directory / "model")
    (directory / "trial.json").write_text(json.dumps(trial.model_dump()))
    (directory / "train_trials.json").write_text(json.dumps({"outputs": {}}))
    return directory


def plain(lab: Lab, trial: Path, labels: int) -> tuple[PreTrainedModel, Any]:
    """The trial's model and tokenizer, loaded with nothing of ours."""
    from peft import PeftModel

    if (trial / "model").exists():
        return AutoModelForSequenceClassification.from_pretrained(trial / "model").eval(), AutoTokenizer.from_pretrained(lab.model)
    base = AutoModelForSequenceClassification.from_pretrained(lab.model, num_labels=labels)
    return PeftModel.from_pretrained(base, trial / "adapter").eval(), AutoTokenizer.from_pretrained(lab.model)


def read_alone(model: PreTrainedModel, tokenizer: Any, messages: list[dict[str, str]], *, answer_next: bool, longest: int = 96) -> torch.Tensor:
    """The head's outputs for one conversation, of which it reads the last tokens."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][-longest:]
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]
