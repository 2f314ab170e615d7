#!/usr/bin/env python3
"""Bring a base model, or only its tokenizer, into one form wherever it is: a Hugging Face directory (safetensors, tokenizer) with model.json.

fetch_model.py [--path LOCAL] < {"model": {"id", "kind", "source", "revision"}, "models": {...}}  ->  model/  fetch_model.json

Settings of a model that is not one of --models say whose it is: {"parameter": "names_model"}. Of {"parameter": "tokenizer"} nothing but tokenizer.json
is fetched, which counts tokens while data is prepared.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llamaflow.description import describe
from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.files import link_or_copy, sha256_of_files, write_json, write_text
from llamaflow.models import trusted
from llamaflow.references import ModelReference
from llamaflow.steps import read_settings, receipt
from llamaflow.tokencount import FILE as TOKENIZER
from llamaflow.tokencount import TokenCounter

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*", "README.md"]
TOKENIZER_FILES = ["tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json", "config.json"]
NOT_NEEDED = ("README.md", ".cache", ".git")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="the model's local file or directory, if its reference is a path")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(given: Mapping[str, Any], local: Path | None, outdir: Path) -> dict[str, Any]:
    """Fetch one model, or its tokenizer, into outdir/model and return what model.json says of it."""
    reference, trust = ModelReference(**given["model"]), trusted(given)
    part = outdir / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    if given.get("parameter") == "tokenizer":
        said = bring_tokenizer(locate(reference, local, TOKENIZER_FILES), part)
    else:
        said = bring_model(locate(reference, local, HUB_FILES + (["*.py"] if trust else [])), part, given.get("chat_template_text"), trust)
    described = reference.as_dict() | said
    write_json(part / "model.json", described)
    shutil.rmtree(outdir / "model", ignore_errors=True)
    part.rename(outdir / "model")
    return described


def bring_model(found: Path, target: Path, template: str | None, trust: bool) -> dict[str, Any]:
    """Weights, configuration and tokenizer; returns what is said of them."""
    if found.suffix == ".gguf":
        convert_gguf(found, target)
    else:
        link_directory(found, target)
    if template is not None:
        write_text(target / "chat_template.jinja", template)  # a new file: the one there may be a link to the user's own
    return describe(target, trust) | {"license": license_of(found)}


def bring_tokenizer(found: Path, target: Path) -> dict[str, Any]:
    """tokenizer.json alone, which holds all that tells how many tokens a text has; returns what is said of it."""
    target.mkdir(parents=True)
    if (found / TOKENIZER).is_file():
        link_or_copy((found / TOKENIZER).resolve(), target / TOKENIZER)
    else:
        convert_tokenizer(found, target)
    return {"vocabulary": TokenCounter(target).vocabulary, "tokenizer_sha256": sha256_of_files(target, [target / TOKENIZER])}


def locate(reference: ModelReference, local: Path | None, files: Sequence[str]) -> Path:
    """The directory or .gguf file that a reference means; if it is a Hub id, with these files, downloaded."""
    if reference.kind == "hub":
        return download(reference, files)
    path = package_file(reference.source) if reference.kind == "package" else (local or Path(reference.source).expanduser())
    if not path.exists():
        raise UsageError(f"there is no {path}. A path must lead to a model directory or a .gguf file.")
    if path.is_file() and path.suffix != ".gguf":
        raise UsageError(f"{path.name} is a file, but not a .gguf file; give the directory in which the model's files lie")
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


def download(reference: ModelReference, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(reference.source, revision=reference.revision, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UsageError(
            f"{reference.source} could not be fetched from the Hugging Face Hub: {str(error).splitlines()[0]}\n"
            "Check the name and the network; gated models need an access token in the environment variable HF_TOKEN."
        ) from error


def convert_tokenizer(found: Path, target: Path) -> None:
    """Write the tokenizer.json of a directory that has a tokenizer in an older form, or of a .gguf file."""
    from transformers import AutoTokenizer

    if found.suffix == ".gguf":
        read_gguf_once()
    place: dict[str, Any] = {"gguf_file": found.name} if found.suffix == ".gguf" else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.parent if place else found, trust_remote_code=False, **place)
        with TemporaryDirectory(dir=target) as saved:
            tokenizer.save_pretrained(saved)
            Path(saved, TOKENIZER).rename(target / TOKENIZER)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{found.name} has no {TOKENIZER}, nor anything that one could be made of ({reason}). Choose a model with a {TOKENIZER}.") from error


def convert_gguf(file: Path, target: Path) -> None:
    """Dequantise a GGUF file to bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    read_gguf_once()
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


def read_gguf_once() -> None:
    """Keep what is parsed of a file: transformers parses it three times, 8 s each for a vocabulary of 49,000."""
    import gguf

    gguf.GGUFReader = functools.cache(gguf.GGUFReader)


def link_directory(source: Path, target: Path) -> None:
    """Copy a model directory without copying its bytes where the file system allows that."""
    if not (source / "config.json").exists():
        raise UsageError(f"the directory {source.name} has no config.json, so it is not a Hugging Face model directory")
    if not list(source.glob("*.safetensors")):
        raise UsageError(
            f"{source.name} has no .safetensors files; other weight formats can run code when they are loaded and are not read. Convert the model to safetensors first."
        )
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.name not in NOT_NEEDED and file.is_file():
            link_or_copy(file.resolve(), target / file.name)


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
            described = run(given, args.path, args.outdir)
        except UsageError as error:
            raise UsageError(f"--{given.get('parameter', 'models')}: {error}") from error
        written.outputs["model"] = described.get("sha256") or described["tokenizer_sha256"]
        written.counts = {name: described[name] for name in ("parameters", "vocabulary") if name in described}


if __name__ == "__main__":
    main()
