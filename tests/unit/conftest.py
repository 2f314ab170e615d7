"""What the tests of all steps share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from name_finder import write_name_finder
from record_files import NAMES, Split, Splits, rows, write_records

# before torch is imported: no hub, one thread and no GPU, so that results are equal to the last bit
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}

RunStep = Callable[..., None]


@pytest.fixture(scope="session")
def run_step() -> RunStep:
    """Run a step as the pipeline does: arguments on the command line, settings as JSON on standard input."""
    return tiny.run_step


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with its tokenizer, as a Hugging Face directory."""
    return tiny.write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def name_finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that finds names of people, as a Hugging Face directory."""
    return write_name_finder(tmp_path_factory.mktemp("models") / "names")


@pytest.fixture(scope="session")
def token_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What counts tokens, as fetch_model leaves it: a tokenizer without its model."""
    given, fetched = tmp_path_factory.mktemp("models") / "words", tmp_path_factory.mktemp("fetched")
    tiny.write_tokenizer(given)
    reference = {"id": "words", "kind": "path", "source": "/home/ana/of_a_hospital/words", "revision": None}
    tiny.run_step("fetch_model", ["--path", given, "--outdir", fetched], {"model": reference, "parameter": "tokenizer"})
    return fetched / "model"


@pytest.fixture(scope="session")
def lab(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tiny.Lab:
    """The tiny model, fetched, and a small dataset, tokenised."""
    folder = tmp_path_factory.mktemp("lab")
    reference = {"id": "tiny", "kind": "path", "source": "./tiny", "revision": None}
    tiny.run_step("fetch_model", ["--path", tiny_model, "--outdir", folder], tiny.SETTINGS | {"model": reference})
    return tiny.Lab(folder / "model", tiny.write_dataset(folder), folder)


@pytest.fixture(scope="session")
def careful(lab: tiny.Lab) -> dict[str, Any]:
    """A trial with a bit of everything that a training must not forget: dropout, a schedule, best weights."""
    (trial,) = lab.trials(tiny.KEEP_BEST, **tiny.CAREFUL)
    return trial


@pytest.fixture(scope="session")
def undisturbed(lab: tiny.Lab, careful: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The careful trial, trained alone and in one go."""
    return lab.train([careful], tmp_path_factory.mktemp("undisturbed"))[0]


@pytest.fixture
def split(run_step: RunStep, tmp_path: Path) -> Split:
    """Split records with split_dataset, into tmp_path/dataset; returns those of each split."""

    def run(records: list[dict[str, Any]], *more: Any, weights: dict[str, float] | None = None, **splitting: Any) -> Splits:
        path = write_records(tmp_path / "deduplicated.parquet", records)
        run_step("split_dataset", ["--records", path, *more, "--outdir", tmp_path], {"splitting": splitting, "weights": weights or {}})
        return {name: rows(tmp_path / "dataset" / f"{name}.parquet") for name in NAMES}

    return run
