"""Loading base models and tokenizers from Hugging Face directories."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.errors import UsageError
from llamaflow.processors import has_fast_bfloat16
from llamaflow.ranks import world_size

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on its first import it advises to install a package that it can do without


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache
def resolve_dtype(name: str) -> torch.dtype:
    """auto: bfloat16 where this GPU or processor computes it fast, float32 elsewhere."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if has_fast_bfloat16() else torch.float32


def use_task_threads() -> None:
    """Give torch the task's cpus (OMP_NUM_THREADS, set by conf/base.config): oversubscribed threads are ten times slower."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))


def trusted(settings: Mapping[str, Any]) -> bool:
    """Whether a step's settings allow to run code that comes with a model."""
    return bool(settings.get("models", {}).get("trust_remote_code"))


def load_tokenizer(directory: Path, *, trust_remote_code: bool = False, **options: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer; options are its own attributes, which it keeps when it is saved."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code, **options)


def saved_dtype(directory: Path, *, trust_remote_code: bool = False) -> torch.dtype:
    """The precision that a model's weights came in."""
    import torch
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code).dtype or torch.float32


def load_model(
    directory: Path,
    dtype: torch.dtype,
    *,
    quantization_bit: int | None = None,
    head: Sequence[str] | None = None,
    attn_implementation: str = "auto",
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a model in evaluation mode on this machine's device: a causal language model, or one whose head has an output for each of these names.

    A head that the files do not hold begins with torch's random numbers. Raises UsageError if transformers does not know the architecture or the
    files are damaged.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # a log file is not a terminal
    options: dict[str, Any] = {
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "device_map": device() if world_size() == 1 else None,
        "use_safetensors": True,
    }
    if attn_implementation != "auto":
        options["attn_implementation"] = attn_implementation
    if quantization_bit:
        options["quantization_config"] = _quantization(quantization_bit, dtype)
    if head is not None:
        options |= _head_options(directory, head, trust_remote_code)
    kind = AutoModelForCausalLM if head is None else AutoModelForSequenceClassification
    verbosity = transformers_logging.get_verbosity()
    try:
        if head is not None:
            transformers_logging.set_verbosity_error()  # that a base has no such head yet needs no warning
        model = kind.from_pretrained(directory, **options).eval()
    except (ValueError, OSError, KeyError, ImportError, SafetensorError) as error:
        raise UsageError(f"the model in {directory.name} cannot be loaded: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if device() == "cpu" and attn_implementation == "auto" and model.config._attn_implementation == "sdpa":
        from llamaflow import attention

        model.set_attn_implementation(attention.NAME)
    return model


def _quantization(bits: int, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if bits == 8:  # LLM.int8: Dettmers et al. 2022, https://arxiv.org/abs/2208.07339
        return BitsAndBytesConfig(load_in_8bit=True)
    # NF4 with double quantisation: QLoRA, Dettmers et al. 2023, https://arxiv.org/abs/2305.14314
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)


def _head_options(directory: Path, head: Sequence[str], trust_remote_code: bool) -> dict[str, Any]:
    """The configuration of a head; it reads the last token before the padding."""
    tokenizer = load_tokenizer(directory, trust_remote_code=trust_remote_code)
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return {"num_labels": len(head), "id2label": dict(enumerate(head)), "label2id": {name: place for place, name in enumerate(head)}, "pad_token_id": padding}
