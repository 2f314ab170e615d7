"""What the stages besides sft learn from, and which of TRL's trainers teaches them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from llamaflow.batches import IGNORED, MULTIPLE
from llamaflow.chat import conversation_of
from llamaflow.errors import DataError
from llamaflow.heads import texts_for
from llamaflow.params import Answers
from llamaflow.records import Record
from llamaflow.tokens import Tokens
from llamaflow.trials import Trial

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

Rows = Iterator[dict[str, Any]]


def rows_of(trial: Trial, records: Iterable[Record], tokenizer: PreTrainedTokenizerBase) -> Rows:
    """Rows as the trainer of the trial's stage reads them, in TRL's conversational formats: https://huggingface.co/docs/trl/dataset_formats."""
    for record in records:
        match trial.stage:
            case "dpo" | "orpo":
                yield {name: record[name] for name in ("prompt", "chosen", "rejected")}
            case "reward":
                yield {name: record["prompt"] + record[name] for name in ("chosen", "rejected")}
            case "kto":
                yield from _liked_or_not(record)
            case "classification":
                yield _labelled(trial, record, tokenizer)
            case _:  # grpo, distillation
                conversation = conversation_of(record) or []
                yield {"prompt": conversation[:-1], "reference": conversation[-1]["content"]}


def token_rows(tokens: Tokens) -> Rows:
    """Rows of the stage sft, where it is trained in several processes."""
    for ids, labelled in (tokens[index] for index in range(len(tokens))):
        yield {"input_ids": ids.tolist(), "labels": np.where(labelled, ids, IGNORED).tolist()}


def _liked_or_not(record: Record) -> Rows:
    """An answer that people liked or not; of a preference both, one each."""
    if record["type"] == "preference":
        yield {"prompt": record["prompt"], "completion": record["chosen"], "label": True}
        yield {"prompt": record["prompt"], "completion": record["rejected"], "label": False}
        return
    if record["liked"] is None:
        raise DataError(
            f"--stage kto needs to know of every answer whether it was liked: {record['meta']['location']} does not say. "
            "Write true or false into a column liked, or give preferences (prompt, chosen, rejected)."
        )
    conversation = record["messages"]
    yield {"prompt": conversation[:-1], "completion": conversation[-1:], "label": record["liked"]}


def _labelled(trial: Trial, record: Record, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The end of a text that is longer than max_length is kept: there the head looks."""
    (text,) = texts_for(trial.head or (), tokenizer, record)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return {"input_ids": ids[-trial.hyperparameters["max_length"] :], "labels": trial.data["labels"].index(record["label"])}


def trainer_of(trial: Trial, common: dict[str, Any], teacher: Any = None, **parts: Any) -> Trainer:
    """The trainer of the trial's stage; common are values for its TrainingArguments, parts what it takes besides (model, peft_config, data ...)."""
    import trl

    values = trial.hyperparameters
    length, answer = {"max_length": values["max_length"]}, {"max_completion_length": values.get("max_completion_length")}
    match trial.stage:
        case "dpo":  # Rafailov et al. 2023, https://arxiv.org/abs/2305.18290
            return trl.DPOTrainer(args=trl.DPOConfig(beta=values["beta"], **length, **common), **parts)
        case "orpo":  # Hong et al. 2024, https://arxiv.org/abs/2403.07691
            os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # of the warning that its interface may change: the version is pinned
            from trl.experimental.orpo import ORPOConfig, ORPOTrainer

            return ORPOTrainer(args=ORPOConfig(beta=values["beta"], remove_unused_columns=False, **length, **common), **parts)
        case "kto":  # Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306
            return trl.KTOTrainer(args=trl.KTOConfig(beta=values["beta"], **length, **common), **parts)
        case "reward":  # Bradley and Terry 1952, doi:10.2307/2334029
            return trl.RewardTrainer(args=trl.RewardConfig(**length, **common), **parts)
        case "grpo":  # Shao et al. 2024, https://arxiv.org/abs/2402.03300
            return trl.GRPOTrainer(args=grpo_config(trial, common, answer), reward_funcs=reward_of(trial), **parts)
        case "distillation":  # on the student's own answers: Agarwal et al. 2023, https://arxiv.org/abs/2306.13649
            config = trl.DistillationConfig(temperature=values["temperature"], **answer, **common)
            return trl.DistillationTrainer(args=config, teacher_model=teacher, **parts)
        case _:  # classification; sft in several processes
            return plain_trainer(common, **parts)


def grpo_config(trial: Trial, common: dict[str, Any], answer: dict[str, Any]) -> Any:
    """One prompt's answers go through the model at once; a step takes as many prompts as other stages take examples."""
    from trl import GRPOConfig

    values = trial.hyperparameters
    prompts = common["per_device_train_batch_size"] * common["gradient_accumulation_steps"]
    sizes = {"per_device_train_batch_size": values["num_generations"], "gradient_accumulation_steps": prompts}
    sizes["per_device_eval_batch_size"] = values["num_generations"]
    return GRPOConfig(num_generations=values["num_generations"], temperature=values["temperature"], **answer, **(common | sizes))


def reward_of(trial: Trial) -> Callable[..., list[float]]:
    """The reward of an answer, 0 to 1: the mean of the trial's measures, which evaluation knows by the same names."""
    from llamaflow.metrics import row_scores

    names = trial.hyperparameters["reward_metrics"]
    answers = Answers(**{name: trial.hyperparameters[name] for name in ("answer_pattern", "answer_schema")})

    def reward(completions: list[list[dict[str, str]]], reference: list[str], **_: Any) -> list[float]:
        predictions = [completion[-1]["content"] for completion in completions]
        scores = [row_scores(name, predictions, reference, answers) for name in names]
        return [sum(row) / len(row) for row in zip(*scores, strict=True)]

    return reward


def plain_trainer(common: dict[str, Any], *, model: Any, peft_config: Any, processing_class: Any, train_dataset: Any, **parts: Any) -> Trainer:
    """Labels are those of tokens, or one of each text."""
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, Trainer, TrainingArguments

    if peft_config:
        model = get_peft_model(model, peft_config)
    of_tokens = isinstance(train_dataset[0]["labels"], list)
    collator = DataCollatorForSeq2Seq(processing_class, pad_to_multiple_of=MULTIPLE) if of_tokens else DataCollatorWithPadding(processing_class)
    arguments = TrainingArguments(include_num_input_tokens_seen="non_padding", **common)
    return Trainer(model=model, args=arguments, data_collator=collator, processing_class=processing_class, train_dataset=train_dataset, **parts)
