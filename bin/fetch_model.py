#!/usr/bin/env python3
"""Bring a base model, wherever it is, into one form: a Hugging Face directory (safetensors, tokenizer) with model.json.

fetch_model.py [--path LOCAL] < {"model": {"id", "kind", "source", "revision"}, "models": {...}}  ->  model/  fetch_model.json

Settings of a model that is not one of --models say whose it is: {"parameter": "names_model"}.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamaflow.description import describe
from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.files import write_json, write_text
from llamaflow.models import trusted
from llamaflow.references import ModelReference
from llamaflow.steps import read_settings, receipt

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*", "README.md"]
NOT_NEEDED = ("README.md", ".cache", ".git")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="the model's local file or directory, if its reference is a path")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(reference: ModelReference, local: Path | None, template: str | None, outdir: Path, *, trust: bool = False) -> dict[str, Any]:
    """Fetch one model into outdir/model and return what model.json says of it."""
    part = outdir / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    found = locate(reference, local, trust)
    if found.suffix == ".gguf":
        convert_gguf(found, part)
    else:
        link_directory(found, part)
    if template is not None:
        write_text(part / "chat_template.jinja", template)  # a new file: the one there may be a link to the user's own
    described = reference.as_dict() | describe(part, trust) | {"license": license_of(found)}
    write_json(part / "model.json", described)
    shutil.rmtree(outdir / "model", ignore_errors=True)
    part.rename(outdir / "model")
    return described


def locate(reference: ModelReference, local: Path | None, trust: bool) -> Path:
    """The directory or .gguf file that a reference means, downloaded if it is a Hub id."""
    if reference.kind == "hub":
        return download(reference, trust)
    path = package_file(reference.source) if reference.kind == "package" else (local or Path(reference.source).expanduser())
    if not path.exists():
        raise UsageError(f"there is no {path}. A path must lead to a model directory or a .gguf file.")
    if path.is_file() and path.suffix != ".gguf":
        raise UsageError(f"{path.name} is a file, but not a .gguf file; give the directory that holds the model (config.json, *.safetensors)")
    if path.is_dir() and not (path / "config.json").exists():
        raise UsageError(f"the directory {path.name} has no config.json, so it is not a Hugging Face model directory")
    return path


def package_file(reference: str) -> Path:
    """The file behind pkg://package/file, which must lie inside the package."""
    package, _, name = reference.removeprefix("pkg://").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"{reference} needs the Python package {package}, which is not installed")
    root = Path(spec.submodule_search_locations[0]).resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.exists():
        raise UsageError(f"the package {package} has no file {name}")
    return path


def download(reference: ModelReference, trust: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = HUB_FILES + (["*.py"] if trust else [])
    try:
        return Path(snapshot_download(reference.source, revision=reference.revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UsageError(
            f"{reference.source} could not be fetched from the Hugging Face Hub: {str(error).splitlines()[0]}\n"
            "Check the name and the network; gated models need an access token in the environment variable HF_TOKEN."
        ) from error


def convert_gguf(file: Path, target: Path) -> None:
    """Dequantise a GGUF file to bfloat16 safetensors."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)  # transformers parses the file three times, 8 s each for a vocabulary of 49,000
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).to(torch.bfloat16)
    except Exception as error:
        raise UsageError(
            f"{file.name} cannot be read as a GGUF model; the file may be damaged or incomplete ({type(error).__name__}: {error}). Download it again."
        ) from error
    # transformers would save the weights as if they were still quantised
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def link_directory(source: Path, target: Path) -> None:
    """Copy a model directory without copying its bytes where the file system allows that."""
    if not list(source.glob("*.safetensors")):
        raise UsageError(
            f"{source.name} has no .safetensors files; other weight formats can run code when they are loaded and are not read. Convert the model to safetensors first."
        )
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.name not in NOT_NEEDED and file.is_file():
            _link(file.resolve(), target / file.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def license_of(found: Path) -> str | None:
    """The licence that a model's card or its GGUF file declares."""
    if found.is_file():
        import gguf

        field = gguf.GGUFReader(str(found)).get_field("general.license")
        return str(field.contents()) if field else None
    card = found / "README.md"
    if not card.exists():
        return None
    from huggingface_hub import ModelCard

    declared = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
    return str(declared) if declared else None


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    with receipt("fetch_model", given, args.outdir) as written:
        try:
            described = run(ModelReference(**given["model"]), args.path, given.get("chat_template_text"), args.outdir, trust=trusted(given))
        except UsageError as error:
            raise UsageError(f"--{given.get('parameter', 'models')}: {error}") from error
        written.outputs["model"] = described["sha256"]
        written.counts = {"parameters": described["parameters"]}


if __name__ == "__main__":
    main()
