#!/usr/bin/env python3
"""Data preparation against datatrove 0.10 on the same documents and cores: seconds, memory, and what each keeps. See README.md.

data_against_datatrove.py --cache DIRECTORY --peer-python PYTHON [--model lid.176.ftz] [--count 200000]

Both read JSONL, apply Gopher's rules, keep English, drop near-duplicates and write. Ours applies the rules of C4 and FineWeb as well, repairs
text and looks for exact duplicates first. The peer's Python has datatrove[processing,io]==0.10.1 and spacy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common

from llamaflow.files import read_json
from llamaflow.records import read_rows

FILES = 4  # so that all cores have something to do
OTHER = "Os dados pessoais são tratados conforme a lei, e quem os fornece pode pedir que sejam apagados a qualquer momento. "
SETTINGS = {
    "cleaning": {"quality_filter": "web", "languages": ["en"]},
    "personal_data": {"personal_data": "keep"},
    "collection": {"max_dropped_fraction": 1.0},
    "deduplication": {},
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="fastText's model of languages; without it the peer does not look at languages")
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--results", type=Path, default=common.RESULTS / "data_against_datatrove.json")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    folder = args.cache / f"documents{args.count}"
    write(folder, args.count, common.sentences(args.cache))
    figures = common.begin(args)
    sides = {"ours": ours(folder, args.cache / "prepared-documents"), "datatrove": peer(folder, args.cache / "datatrove", args.peer_python, args.model)}
    kept = {name: side.pop("kept") for name, side in sides.items()}
    figures |= sides | {
        "documents": args.count,
        "times_as_fast": round(sides["datatrove"]["seconds"] / sides["ours"]["seconds"], 2),
        "kept_by": {"both": len(kept["ours"] & kept["datatrove"]), "neither": args.count - len(kept["ours"] | kept["datatrove"])}
        | {f"only {name}": dict(Counter(number.split("-")[1] for number in kept[name] - kept[other])) for name, other in itertools.permutations(kept)},
    }
    print(json.dumps(figures, indent=1, default=str))
    common.keep(args.results, figures)


def write(folder: Path, count: int, sentences: list[str]) -> None:
    """The documents as JSONL, unless they are there."""
    if folder.exists():
        return
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    files = [(part / f"{number}.jsonl").open("w") for number in range(FILES)]
    for number, (kind, text) in enumerate(itertools.islice(documents(sentences), count)):
        files[number % FILES].write(json.dumps({"id": f"{number}-{kind}", "text": text}) + "\n")
    for file in files:
        file.close()
    part.rename(folder)


def documents(sentences: list[str]) -> Iterator[tuple[str, str]]:
    """Kind and text: of 100, 80 are new, 8 copies, 6 copies with a word in sixty changed, 3 repeat a line, 3 are in another language."""
    drawn, recent = random.Random(common.SEED), deque([""], 1000)
    kinds = ["new"] * 80 + ["copy"] * 8 + ["near"] * 6 + ["repeated"] * 3 + ["foreign"] * 3
    while True:
        kind = drawn.choice(kinds)
        text = "\n\n".join(" ".join(drawn.choices(sentences, k=drawn.randint(3, 6))) for _ in range(drawn.randint(2, 7)))
        if kind in ("copy", "near"):
            text = drawn.choice(recent) or text
        if kind == "near":
            text = " ".join(word if drawn.random() > 1 / 60 else f"{word}s" for word in text.split(" "))
        if kind == "repeated":
            text += ("\n" + drawn.choice(sentences)) * 40
        if kind == "foreign":
            text = "\n".join(f"{OTHER} {place}" for place in range(drawn.randint(3, 9)))
        if kind == "new":
            recent.append(text)
        yield kind, text


def ours(folder: Path, output: Path) -> dict[str, Any]:
    """The three steps as the pipeline calls them, as many tasks at once as there are cores."""
    shutil.rmtree(output, ignore_errors=True)
    start, steps = time.monotonic(), dict[str, dict[str, float]]()
    files = sorted(folder.glob("*.jsonl"))
    places = [output / file.stem for file in files]
    for place in places:
        place.mkdir(parents=True)

    def stage(name: str, jobs: list[common.Job]) -> None:
        seconds, used = common.run(jobs, at_once=common.CORES, threads=1)
        steps[name] = {"seconds": round(seconds, 1), "peak_bytes": max(usage.peak_bytes for usage in used)}

    collected = [SETTINGS | {"source": {"id": f"part{file.stem}", "path": file.name}} for file in files]
    stage(
        "collect_source",
        [
            common.step("collect_source", "--path", file, "--outdir", place, settings=given, log=place)
            for file, place, given in zip(files, places, collected, strict=True)
        ],
    )
    shards = [shard for place in places for shard in sorted((place / "collected.parquet").iterdir())]
    parts = [shard.parent.parent / f"shard{shard.stem}" for shard in shards]
    stage(
        "clean_records",
        [common.step("clean_records", "--records", shard, "--outdir", part, settings=SETTINGS, log=part) for shard, part in zip(shards, parts, strict=True)],
    )
    cleaned = [part / "cleaned.parquet" for part in parts]
    stage("deduplicate_records", [common.step("deduplicate_records", "--records", *cleaned, "--outdir", output, settings=SETTINGS, log=output)])
    seconds = time.monotonic() - start
    kept = {_number(folder, row["source"], row["meta"]["location"]) for row in read_rows(output / "deduplicated.parquet", ("source", "meta"))}
    reasons = Counter[str]()
    for part in parts:
        reasons.update(read_json(part / "clean_records.json")["counts"]["dropped"])
    dropped = {**reasons, **read_json(output / "deduplicate_records.json")["counts"]["dropped"]}
    return {"seconds": round(seconds, 1), "steps": steps, "peak_bytes": max(step["peak_bytes"] for step in steps.values()), "dropped": dropped, "kept": kept}


_identities: dict[Path, list[str]] = {}


def _number(folder: Path, source: str, location: str) -> str:
    """The identity of a document, by the line that it stands in."""
    path = folder / f"{source.removeprefix('part')}.jsonl"
    if path not in _identities:
        with path.open() as file:
            _identities[path] = [json.loads(line)["id"] for line in file]
    return _identities[path][int(location.rpartition(":")[2]) - 1]


def peer(folder: Path, output: Path, python: Path, model: Path | None) -> dict[str, Any]:
    shutil.rmtree(output, ignore_errors=True)
    settings = {"input": str(folder), "output": str(output), "workers": common.CORES, "model": str(model) if model else None}
    job = common.Job([common.HERE / "datatrove_steps.py"], settings, output.with_suffix(".log"), {"HF_HUB_OFFLINE": "1"}, python)
    seconds, (usage,) = common.run([job], threads=1)
    kept = set()
    for file in sorted((output / "deduplicated").iterdir()):
        with file.open() as lines:
            kept |= {json.loads(line)["id"] for line in lines}
    return {"seconds": round(seconds, 1), "peak_bytes": usage.peak_bytes, "kept": kept}


if __name__ == "__main__":
    main()
