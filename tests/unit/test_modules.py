"""One name in every place, and what is said twice says the same: modules, their files, the pins, the exit statuses."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from llamaflow import __version__
from llamaflow.code import files_of
from llamaflow.errors import LlamaflowError

ROOT = Path(__file__).resolve().parents[2]
STEPS = sorted(file.parent.name for file in ROOT.glob("modules/local/*/main.nf"))
VERSION = re.findall(r"^    version\s*=\s*'(.*)'", (ROOT / "nextflow.config").read_text(), re.MULTILINE)[0]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements/pipeline.txt").read_text(), re.MULTILINE))
INSTALLED = packages_distributions()  # by the name that is imported
MODEL_STEPS = {"fetch_model", "find_names", "initialise_model", "tokenize_dataset", "train_trials", "evaluate_model", "merge_model"}
# used without an import of ours: transformers loads models with accelerate, 4-bit weights with bitsandbytes and some tokenizers with
# sentencepiece; jinja2 renders chat templates; write_report's task calls multiqc; sqlalchemy
# talks to servers through psycopg and pymysql
NOT_IMPORTED = {"accelerate", "bitsandbytes", "jinja2", "multiqc", "psycopg", "psycopg-binary", "pymysql", "sentencepiece"}


def module_file(step: str, name: str) -> str:
    return (ROOT / "modules/local" / step / name).read_text(encoding="utf-8")


def section(process: str, name: str) -> str:
    """The lines of a part of a process: input, output, script ..."""
    found = re.search(rf"\n    {name}:\n(.*?)(?=\n    \w+:\n|\n}})", process, re.DOTALL)
    return found[1] if found else ""


def imported_packages(step: str) -> set[str]:
    """Distributions that the step's code imports, at any place in it."""
    names: set[str] = set()
    for file in files_of(step):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return {normal(INSTALLED[name][0]) for name in names - set(sys.stdlib_module_names) - {"llamaflow"}}


def normal(package: str) -> str:
    return package.lower().replace("_", "-")


def environment(step: str) -> dict[str, str]:
    """Pinned packages of environment.yml."""
    *others, last = yaml.safe_load(module_file(step, "environment.yml"))["dependencies"]
    assert others == ["python=3.11", "pip"]
    return dict(pin.split("==") for pin in last["pip"])


def test_there_are_modules() -> None:
    assert len(STEPS) >= 15


@pytest.mark.parametrize("step", STEPS)
def test_module_has_all_its_files(step: str) -> None:
    for name in ("meta.yml", "environment.yml", "Dockerfile"):
        assert module_file(step, name).strip(), name
    assert (ROOT / "bin" / f"{step}.py").stat().st_mode & 0o111, "Nextflow calls it by its name"
    assert (ROOT / "tests/unit/steps" / f"test_{step}.py").exists() or (ROOT / "modules/local" / step / "tests").is_dir()


def test_every_process_has_its_heading_in_the_documentation_of_results() -> None:
    headings = re.findall(r"^### ([A-Z_]+)$", (ROOT / "docs/output.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == [step.upper() for step in STEPS]


def test_relative_links_of_all_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "containers/README.md"]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert len(links) > 20
    pictures = {".png"}  # taken from a run, not written here
    assert [(page.name, link) for page, link in links if Path(link).suffix not in pictures and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("step", STEPS)
def test_process_has_the_name_of_its_step_and_declares_what_it_must(step: str) -> None:
    process = module_file(step, "main.nf")
    assert re.findall(r"^process (\w+)", process, re.MULTILINE) == [step.upper()]
    assert re.search(r"^    label 'process_(single|low|medium|training)'$", process, re.MULTILINE)
    assert f'container "ghcr.io/llamaflow/{step}:${{workflow.manifest.version}}"' in process
    assert 'conda "${moduleDir}/environment.yml"' in process
    assert f"{step}.py" in section(process, "script")
    assert f"'{step}.json'" in process or f'/{step}.json"' in process or f"/{step}.json'" in process, "every step leaves a receipt"
    assert section(process, "stub").strip()
    assert not re.search(r"\bparams\.(?!json)", process), "settings come on standard input"


@pytest.mark.parametrize("step", STEPS)
def test_meta_names_the_channels_that_the_process_has(step: str) -> None:
    process, meta = module_file(step, "main.nf"), yaml.safe_load(module_file(step, "meta.yml"))
    assert meta["name"] == step
    assert meta["description"]
    assert meta["keywords"]
    assert all(tool["licence"] for entry in meta["tools"] for tool in entry.values())
    declared = [declared_names(line) for line in section(process, "input").splitlines() if line.strip() and not line.strip().startswith("//")]
    assert [[name for part in as_list(item) for name in part] for item in meta["input"]] == declared
    emitted = re.findall(r"emit: (\w+)", section(process, "output"))
    assert list(meta["output"]) == emitted
    described = [part for item in [*meta["input"], *meta["output"].values()] for part in flattened(item)]
    assert all(fields["type"] and fields["description"].endswith(".") for part in described for fields in part.values())


def declared_names(line: str) -> list[str]:
    """Names of one input of a process; standard input has none, and carries the settings (of check_params, all parameters)."""
    parts = re.findall(r"(?:val|path)(?:\(| )(\w+)|('-'|\bstdin\b)", line)
    return [name or "settings" for name, _ in parts]


def as_list(item: Any) -> list[dict[str, Any]]:
    return item if isinstance(item, list) else [item]


def flattened(item: Any) -> list[dict[str, Any]]:
    return [part for inner in item for part in flattened(inner)] if isinstance(item, list) else [item]


@pytest.mark.parametrize("step", STEPS)
def test_environment_holds_what_the_step_imports_as_pinned(step: str) -> None:
    packages = environment(step)
    assert {name: PINS.get(name) for name in packages} == packages
    assert imported_packages(step) - set(packages) == set()
    assert set(packages) - imported_packages(step) <= NOT_IMPORTED
    asked = set(re.findall(r"package_version\.py ([\w-]+)", module_file(step, "main.nf"))) - {"python"}
    assert {normal(name) for name in asked} <= set(packages), "the task asks for the version of what is not there"


@pytest.mark.parametrize("step", STEPS)
def test_image_stands_on_the_base_that_has_its_packages(step: str) -> None:
    base = "cuda" if step in MODEL_STEPS else "cpu"
    assert ("torch" in environment(step)) == (step in MODEL_STEPS)
    assert f"ARG BASE=ghcr.io/llamaflow/base-{base}:{VERSION}\n" in module_file(step, "Dockerfile")


def test_no_python_file_grows_too_long() -> None:
    assert {file.name: lines for file in (ROOT / "bin").rglob("*.py") if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 350} == {}


def test_versions_agree() -> None:
    """Nextflow's 0.1.0dev is Python's 0.1.0.dev0."""
    assert Version(VERSION) == Version(__version__)


def test_the_cpu_base_leaves_out_nothing_that_its_steps_import() -> None:
    recipe = (ROOT / "containers/cpu/Dockerfile").read_text()
    left_out = re.compile(re.search(r"left_out = /\^(\(.*?\))/", recipe)[1])  # type: ignore[index]  # without the pattern there is nothing to test
    needed = {name for step in set(STEPS) - MODEL_STEPS for name in environment(step)}
    assert [name for name in needed if left_out.match(name)] == []
    assert left_out.match("torch")
    assert left_out.match("nvidia-cublas")


def test_tasks_are_tried_again_exactly_where_it_may_help() -> None:
    """conf/base.config's rule, evaluated for every exit status that a step can end with and for signals."""
    rule = re.search(r"errorStrategy = \{ (.*) \? 'retry' : 'finish' \}", (ROOT / "conf/base.config").read_text())
    assert rule
    retried = retried_statuses(rule[1])
    temporary = {kind.exit_code for kind in exceptions() if kind.__name__ == "TemporaryError"}
    assert temporary
    assert retried == temporary | set(range(130, 146))
    assert retried.isdisjoint({kind.exit_code for kind in exceptions()} - temporary)


def retried_statuses(rule: str) -> set[int]:
    """Statuses for which a rule of the form `task.exitStatus == N || task.exitStatus in A..B` holds."""
    statuses: set[int] = set()
    for term in rule.split(" || "):
        single, first, last = re.fullmatch(r"task\.exitStatus (?:== (\d+)|in (\d+)\.\.(\d+))", term).groups()  # type: ignore[union-attr]  # another form needs another test
        statuses |= {int(single)} if single else set(range(int(first), int(last) + 1))
    return statuses


def exceptions() -> list[type[LlamaflowError]]:
    found: list[type[LlamaflowError]] = [LlamaflowError]
    for kind in found:
        found += kind.__subclasses__()
    return found
