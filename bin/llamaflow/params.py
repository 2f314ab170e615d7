"""Every parameter of the pipeline, typed once; those of the data are in data_params.py.

`make generate` writes nextflow_schema.json, conf/params.config and docs/parameters.md from these classes, and the
check_params step validates with them. A class is a group of the launch form and, where a step's settings are named
after it, exactly what that step receives on standard input.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from llamaflow.choices import Numbers, Several
from llamaflow.data_params import Cleaning, Collection, Deduplication, Generation, InputOutput, PersonalData, Splitting
from llamaflow.groups import NAME, Group, hidden

Technique = Literal[
    "full", "freeze", "lora", "rslora", "loraplus", "dora", "pissa", "olora", "qlora",
    "adalora", "miss", "oft", "vera", "ia3", "prompt_tuning", "prefix_tuning",
]  # fmt: skip
Stage = Literal["sft", "dpo", "orpo", "kto", "reward", "grpo", "classification", "distillation"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]
Machine = Literal["auto", "cpu", "A10G", "A100", "L4", "L40S", "RTX3090", "RTX4090", "RTX5090", "H100", "H200", "B200"]
OVERRIDE = re.compile(r"\w+\s*=\s*(true|false|-?(0|[1-9]\d*)(\.\d+)?(e-?\d+)?)")


class Models(Group):
    """Models"""

    models: Several[str] = Field(
        description="Base models, one or several: a Hugging Face Hub id (owner/name, owner/name@revision), a local directory, a .gguf file, or pkg://package/file for weights that an installed Python package carries."
    )
    teacher_model: str | None = Field(
        None, description="For the stage distillation: the larger model to learn from, written like models. It must have the same tokenizer as the models."
    )
    chat_template: str | None = Field(
        None,
        description="A Jinja file with the chat template for models that have none (base models, as opposed to instruct models).",
        json_schema_extra={"format": "file-path"},
    )
    trust_remote_code: bool = hidden(False, "Run Python code that comes with a model. Only for models whose code you have read.")


class Scratch(Group):
    """Training from scratch

    Only the architecture of the models is kept: their weights are drawn anew, their tokenizer is trained on your data.
    """

    from_scratch: bool = Field(False, description="Train from scratch; goes with the technique full. It takes far more text than fine-tuning does.")
    tokenizer_type: Literal["bpe", "wordpiece", "unigram"] = Field(
        "bpe",
        description="How the tokenizer splits words into bytes and longer pieces: bpe (pairs joined in the order learnt), wordpiece (the longest piece first), unigram (the likeliest pieces).",
    )
    vocab_size: int = Field(8192, ge=300, le=1_000_000, description="Tokens of the vocabulary at most; little text has fewer.")
    config_overrides: str | None = Field(
        None, description="Numbers of the architecture to change, by their names in the model's config.json: hidden_size=256,num_hidden_layers=4."
    )
    init_seed: int = hidden(42, "Seed of the drawn weights.", ge=0, lt=2**32)

    @field_validator("config_overrides")
    @classmethod
    def _is_list_of_numbers(cls, text: str | None) -> str | None:
        if not all(OVERRIDE.fullmatch(part.strip()) for part in (text.split(",") if text else ())):
            raise ValueError("expected name=number, several separated by commas, such as hidden_size=256,num_hidden_layers=4,tie_word_embeddings=true")
        return text


class Grid(Group):
    """Training grid

    Every parameter here takes several values; the grid is their product. With another sampler a number may be a range: 1e-5..1e-3.
    """

    techniques: Several[Technique] = Field(
        ("lora",),
        description="How to fine-tune. Small trained matrices beside frozen weights: lora, rslora (for large ranks), loraplus (one of two matrices learns faster), dora (direction and size apart), pissa and olora (start from the weights), qlora (on weights in 4 or 8 bits), adalora (ranks where they matter most), miss (one matrix), oft (rotations), vera and ia3 (vectors only). Trained tokens before every text: prompt_tuning, prefix_tuning. The model itself: freeze (last layers only), full (all weights).",
    )
    stage: Several[Stage] = Field(
        ("sft",),
        description="What is learnt: sft (to write the answers, or the texts), dpo and orpo (to prefer the chosen answers), kto (to give liked answers and not disliked ones), reward (to score answers), grpo (to give answers that reward_metrics score highly), classification (to choose a label), distillation (to answer as teacher_model does).",
    )
    learning_rate: Numbers[Annotated[float, Field(gt=0, le=1)] | Literal["auto"]] = Field(
        ("auto",), description="Peak learning rate; auto takes what suits technique and stage."
    )
    num_train_epochs: Numbers[Annotated[float, Field(gt=0, le=1000)]] = Field((3.0,), description="Passes over the training data.")
    per_device_train_batch_size: Numbers[Annotated[int, Field(ge=1, le=4096)]] = Field(
        (8,), description="Examples an optimiser step, times gradient_accumulation_steps."
    )
    gradient_accumulation_steps: Numbers[Annotated[int, Field(ge=1, le=4096)]] = Field(
        (1,),
        description="An optimiser step sees so many times per_device_train_batch_size examples; how many go through the model at once follows from the memory.",
    )
    curriculum: Several[Literal["none", "length", "sequential"]] = Field(
        ("none",),
        description="For the stage sft: the order of the examples in the first pass over them: none (by chance), length (the shortest first), sequential (as the data came: sources in the order of the samplesheet, records in their own). Later passes are by chance.",
    )
    max_length: Numbers[Annotated[int, Field(ge=8, le=1_048_576)]] = Field(
        (1024,), description="Tokens a row at most; longer examples are truncated and counted."
    )
    lora_r: Numbers[Annotated[int, Field(ge=1, le=1024)]] = Field((16,), description="Rank of the LoRA matrices; of adalora, its mean in the end.")
    lora_alpha: Numbers[Annotated[float, Field(gt=0, le=8192)]] = Field((32.0,), description="LoRA scaling: the update is multiplied by lora_alpha / lora_r.")
    lora_dropout: Numbers[Annotated[float, Field(ge=0, lt=1)]] = Field((0.0,), description="Dropout before the LoRA matrices.")
    loraplus_lr_ratio: Numbers[Annotated[float, Field(ge=1, le=1024)]] = Field(
        (16.0,), description="For loraplus: how many times faster the matrices B learn than the matrices A."
    )
    quantization_bit: Several[Annotated[int, Field(ge=4, le=8, multiple_of=4)]] = Field((4,), description="For qlora: bits of a frozen weight, 4 or 8.")
    miss_r: Numbers[Annotated[int, Field(ge=1, le=4096)]] = Field((64,), description="For miss: rank; twice that of lora trains as many parameters.")
    oft_block_size: Numbers[Annotated[int, Field(ge=2, le=4096)]] = Field(
        (32,), description="For oft: so many inputs of a layer are rotated together; it must divide the layers' inputs."
    )
    vera_r: Numbers[Annotated[int, Field(ge=1, le=8192)]] = Field((256,), description="For vera: rank of the random matrices, far higher than that of lora.")
    num_virtual_tokens: Numbers[Annotated[int, Field(ge=1, le=4096)]] = Field((20,), description="For prompt_tuning and prefix_tuning: trained tokens.")
    freeze_trainable_layers: Numbers[Annotated[int, Field(ge=1, le=1024)]] = Field((2,), description="Last layers that the technique freeze trains.")
    beta: Numbers[Annotated[float, Field(gt=0, le=100)]] = Field(
        (0.1,),
        description="For the stages dpo, kto and orpo: how strongly preferences weigh against staying with the base (dpo, kto) or with the chosen answers (orpo).",
    )
    num_generations: Several[Annotated[int, Field(ge=2, le=256)]] = Field(
        (8,), description="For the stage grpo: answers that are tried and compared for each prompt."
    )
    max_completion_length: Several[Annotated[int, Field(ge=1, le=32768)]] = Field((256,), description="For the stage grpo: longest answer tried, in tokens.")
    temperature: Numbers[Annotated[float, Field(gt=0, le=10)]] = Field(
        (1.0,), description="For the stages grpo (how much the tried answers differ) and distillation (how soft the teacher's probabilities are)."
    )
    lr_scheduler_type: Several[Scheduler] = Field(("cosine",), description="How the learning rate changes over the training.")
    warmup_steps: Numbers[Annotated[float, Field(ge=0)]] = Field((0.05,), description="Steps of linear warm-up; below 1, a share of all steps.")
    weight_decay: Numbers[Annotated[float, Field(ge=0, le=1)]] = Field((0.0,), description="AdamW weight decay.")
    max_grad_norm: Numbers[Annotated[float, Field(gt=0)]] = Field((1.0,), description="Gradients are clipped to this norm.")
    seed: Numbers[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        (42,), description="Seed of initialisation and data order; several seeds show how much of a difference is luck."
    )


class Planning(Group):
    """Trials"""

    trials: str | None = Field(
        None,
        description="A CSV with one row a trial instead of the product: columns are names of the training grid (and model); what a row leaves empty comes from the grid's first value.",
        json_schema_extra={"format": "file-path"},
    )
    sampler: Literal["grid", "random", "optuna"] = Field(
        "grid",
        description="Which trials of the training grid are made: grid (all), random (so many drawn by chance), optuna (so many suggested, with what is in checkpoint_dir to learn from).",
    )
    samples: int = Field(16, ge=1, le=10_000, description="Trials that random and optuna draw for each model.")
    sampler_seed: int = Field(42, ge=0, lt=2**32, description="Seed of random and optuna: another one draws other trials.")
    max_trials: int = Field(64, ge=1, description="Refuse a grid with more trials than this.")
    trials_per_task: int = Field(4, ge=1, le=64, description="Trials that train in one task and load their base model once.")


class Training(Group):
    """Training"""

    packing: bool = Field(
        True, description="Lay the examples of a step out in full rows (they do not see each other) instead of padding each: the same training, faster."
    )
    target_modules: str = Field("all-linear", description="Layers that LoRA and its relatives adapt: all-linear, or names separated by commas (q_proj,v_proj).")
    eval_steps: int = Field(20, ge=1, description="Measure the validation loss every so many optimiser steps, and at the end.")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Stop a trial after so many measurements without a better validation loss; the best weights are kept."
    )
    scheduler: Literal["none", "halving"] = Field(
        "none", description="Which trials train to the end: none (all), or halving (successive halving: the worst by validation loss stop early)."
    )
    halving_eta: int = Field(2, ge=2, le=16, description="With halving, one in so many trials goes on at each rung.")
    halving_min_steps: int = Field(20, ge=1, description="With halving, steps before the first rung; the next are halving_eta times further each.")
    logging_steps: int = Field(5, ge=1, description="Write progress every so many optimiser steps, also for TensorBoard and report_to.")
    report_to: Several[Literal["none", "mlflow", "wandb"]] = Field(
        ("none",),
        description="Where to follow the training besides TensorBoard: mlflow, wandb (Weights & Biases). Addresses and keys come from their own environment variables: see docs/usage.md.",
    )
    save_steps: int = Field(50, ge=1, description="Save a checkpoint every so many optimiser steps.")


class Compute(Group):
    """Compute"""

    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of weights and activations; auto takes bfloat16 where the processor or GPU computes it fast."
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = hidden(
        "auto", "How attention is computed; auto takes PyTorch's own kernels (sdpa), flash_attention_2 needs the package flash-attn."
    )
    num_processes: int = Field(
        1, ge=1, le=4096, description="Processes that train one trial together, one a GPU, for models that one GPU cannot hold; on all machines added up."
    )
    num_machines: int = Field(1, ge=1, le=512, description="Machines that these processes run on; more than one needs Slurm.")
    parallelism: Literal["fsdp", "deepspeed", "ddp"] = Field(
        "fsdp",
        description="With several processes: fsdp (each holds a part of the model), deepspeed (the same by ZeRO-3; needs the package deepspeed), ddp (each holds all of it, and the examples are shared out).",
    )
    checkpoint_dir: str | None = Field(
        None,
        description="Where checkpoints and finished trials are kept for later runs; a directory that all tasks can reach. Default: checkpoints in the work directory, if that is a local one.",
        json_schema_extra={"format": "directory-path"},
    )


class Cost(Group):
    """Cost

    What the training of a grid will take is estimated before any of it begins, and printed.
    """

    max_hours: float | None = Field(
        None, ge=0, description="Refuse a grid whose training would take more hours than this, all tasks added up. 0 stops every grid once its plan is printed."
    )
    max_cost: float | None = Field(None, ge=0, description="Refuse a grid whose training would cost more than this; needs price_per_hour.")
    price_per_hour: float | None = Field(None, gt=0, description="Price of one training task an hour, in your currency: what the machine or GPU costs.")
    machine: Machine = Field("auto", description="What a training task runs on, for the estimate; auto looks at the machine that makes the plan.")
    flops_per_second: float | None = hidden(
        None, "Speed of a training task for the estimate, in FLOPs a second. Default: that of earlier trials, or the machine's.", gt=0
    )


class Evaluation(Group):
    """Evaluation"""

    metrics: Several[str] = Field(
        ("rouge_l", "chrf", "bleu", "exact_match"),
        description="Measures of the generated answers: ours by name, or any Hugging Face evaluate module by id or path. Measured besides: perplexity, accuracy and macro_f1 where records carry a label, preference_accuracy where they have a preference.",
    )
    max_eval_rows: int | None = Field(1000, ge=2, description="Evaluate on so many rows of the test split at most: the same sample for every model.")
    max_new_tokens: int = Field(128, ge=1, le=32768, description="Longest answer generated, in tokens.")
    eval_batch_size: int = Field(16, ge=1, description="Rows a generation batch.")
    bootstrap_resamples: int = hidden(2000, "Resamples behind each interval and test.", ge=100)


class Answers(Group):
    """Answers that can be checked

    For the stage grpo, and for the measures pattern and json_schema.
    """

    reward_metrics: Several[str] = Field(
        ("exact_match",),
        description="For the stage grpo: the reward of an answer is the mean of these measures. Names as for metrics, such as exact_match, pattern or json_schema.",
    )
    answer_pattern: str | None = Field(
        None,
        description="For the measure pattern: a regular expression that a right answer matches. If it has a group, what the group finds must be what it finds in the reference.",
    )
    answer_schema: str | None = Field(None, description="For the measure json_schema: a JSON Schema, as JSON text, that a right answer satisfies.")


class Gate(Group):
    """Selection"""

    gate_metric: str = Field(
        "auto",
        description="The measure that decides: the best trial by it is the winner. perplexity, accuracy, macro_f1, preference_accuracy or one of metrics; auto takes accuracy for labelled data, preference_accuracy for preferences, rouge_l for conversations, perplexity for texts.",
    )
    gate_min_gain: float = Field(
        0.0, ge=0, description="Publish only if the winner's gain over its base, at the lower end of its 95 % interval, is above this."
    )


class Export(Group):
    """Release"""

    release_name: str = Field("model", pattern=NAME, description="Name of the released model.")
    release_version: str | None = Field(
        None, pattern=NAME, description="Version of the release. Default: the winner's short hash, so that a release is never overwritten by another model."
    )
    parity_max_difference: float = Field(
        0.1, gt=0, description="Largest allowed difference between the logits of the adapter and of the merged model, relative to the logits' spread."
    )
    license: str | None = Field(None, description="Licence of the released model for its card (an SPDX name). Default: the base model's.")


class Generic(Group):
    """Generic"""

    help: bool = Field(False, description="Print the parameters and stop.")
    help_all: bool = hidden(False, "Print all parameters, the rare ones too, and stop.")
    version: bool = hidden(False, "Print the version and stop.")
    publish_dir_mode: Literal["symlink", "rellink", "link", "copy", "copyNoFollow", "move"] = hidden("copy", "How results reach the output directory.")
    report_title: str | None = hidden(None, "Title of the report.")


class Params(Group):
    """All parameters by group; on the command line and in params files they are flat."""

    input_output: InputOutput
    collection: Collection
    cleaning: Cleaning
    personal_data: PersonalData
    generation: Generation
    deduplication: Deduplication
    splitting: Splitting
    models: Models
    scratch: Scratch
    grid: Grid
    planning: Planning
    training: Training
    compute: Compute
    cost: Cost
    evaluation: Evaluation
    answers: Answers
    gate: Gate
    export: Export
    generic: Generic


GROUPS: dict[str, type[Group]] = {name: field.annotation for name, field in Params.model_fields.items()}  # type: ignore[misc]
GROUP_OF: dict[str, str] = {name: group for group, model in GROUPS.items() for name in model.model_fields}
