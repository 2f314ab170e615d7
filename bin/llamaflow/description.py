"""What model.json says of a model directory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamaflow.errors import DataError, UsageError
from llamaflow.files import sha256, sha256_of_files
from llamaflow.lengths import measure


def describe(directory: Path, trust: bool) -> dict[str, Any]:
    """Load tokenizer and configuration, so that a model that cannot work is refused here, before anything is trained."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=trust)
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust)
        sizes = sizes_of(directory, config)
        lengths = measure(tokenizer)  # applies the chat template, too
    except DataError as error:
        raise UsageError(str(error)) from error
    except Exception as error:
        raise UsageError(f"the model's weights, configuration or tokenizer cannot be loaded ({type(error).__name__}: {error})") from error
    tokenizer_files = [
        file
        for file in directory.iterdir()
        if (file.suffix != ".safetensors" and "token" in file.name) or file.name in ("chat_template.jinja", "vocab.json", "merges.txt")
    ]
    return {
        "architecture": (config.architectures or [config.model_type])[0],
        **sizes,
        "lengths": lengths,
        "chat_template": tokenizer.chat_template is not None,
        "vocabulary": len(tokenizer),
        "tokenizer_sha256": sha256_of_files(directory, tokenizer_files),
        "sha256": sha256(directory),
    }


def sizes_of(directory: Path, config: Any) -> dict[str, Any]:
    """What tells how much a training will take: total parameters, those inside layers, and of each kind of linear layer in them.

    linear: {name: [parameters, inputs + outputs]}, each summed over all layers; LoRA of rank r trains r x (inputs + outputs).
    """
    inside, linear = 0, dict[str, list[int]]()
    shapes = dict(_shapes(directory))
    for name, shape in shapes.items():
        *parents, module, _ = ["", *name.split(".")]
        if not any(part.isdecimal() for part in parents):  # embeddings, the last norm, the head
            continue
        inside += math.prod(shape)
        if len(shape) == 2:
            entry = linear.setdefault(module, [0, 0])
            entry[0] += math.prod(shape)
            entry[1] += sum(shape)
    text = config.get_text_config()
    return {
        "parameters": sum(map(math.prod, shapes.values())),
        "layers": text.num_hidden_layers,
        "hidden_size": text.hidden_size,
        "parameters_in_layers": inside,
        "linear": dict(sorted(linear.items())),
    }


def _shapes(directory: Path) -> Iterator[tuple[str, list[int]]]:
    """Names and shapes of all weights, from the files' headers."""
    from safetensors import safe_open

    for file in directory.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            yield from ((name, tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 - not a mapping
