#!/usr/bin/env python3
"""Put the release together, and write the index of everything that the run produced.

publish_model.py --winner winner.json [--parts merged/ README.md parity.json <trial_id>/] --results DIRECTORY
    < {"export": {...}}  ->  release/<name>/<version>/  index.json  publish_model.json

A gate that said no, or a merged model that answers differently, is a result: there is no release/, and the index says why.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamaflow.errors import exits_cleanly
from llamaflow.files import read_json, sha256, write_json
from llamaflow.params import Export
from llamaflow.steps import read_settings, receipt
from llamaflow.store import copy_tree


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winner", type=Path, required=True)
    parser.add_argument("--parts", type=Path, nargs="*", default=[])
    parser.add_argument("--results", type=Path, required=True, help="what the run produced, laid out as in the output directory")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(winner: dict[str, Any], parts: list[Path], results: Path, settings: Export, outdir: Path) -> dict[str, Any]:
    """Write release/ if there is something to release, and return the index."""
    named = {part.name: part for part in parts}
    parity = read_json(named["parity.json"]) if "parity.json" in named else None
    reason = winner["reason"]
    published = bool(winner["passed"] and parity and parity["passed"])
    if winner["passed"] and parity and not parity["passed"]:
        reason = f"the merged model does not answer as its adapter did: logits differ by {parity['relative_difference']:.3g} of their spread, {parity['allowed_relative_difference']:.3g} is allowed (--parity_max_difference)"
    release = write_release(winner, named, settings, outdir) if published else None
    files = entries(results) + (entries(outdir / release, release) if release else [])
    return {"published": published, "reason": reason, "winner": winner["trial_id"], "release": release, "files": files}


def write_release(winner: dict[str, Any], parts: dict[str, Path], settings: Export, outdir: Path) -> str:
    """Copy the merged model, its card, the adapter and the trial into release/<name>/<version>/ with a manifest."""
    version = settings.release_version or winner["trial_id"].rsplit("-", 1)[-1]
    relative = f"release/{settings.release_name}/{version}"
    target, part = outdir / relative, outdir / f"{relative}.part"
    shutil.rmtree(outdir / "release", ignore_errors=True)
    copy_tree(parts["merged"].resolve(), part)
    trial = parts[winner["trial_id"]]
    for name in ("README.md", "parity.json"):
        shutil.copyfile(parts[name], part / name)
    shutil.copyfile(trial / "trial.json", part / "trial.json")
    if (trial / "adapter").exists():
        copy_tree((trial / "adapter").resolve(), part / "adapter")
    files = {entry["path"]: {"sha256": entry["sha256"], "bytes": entry["bytes"]} for entry in entries(part)}
    write_json(part / "manifest.json", {"name": settings.release_name, "version": version, "trial_id": winner["trial_id"], "files": files})
    part.rename(target)
    return relative


def entries(directory: Path, place: str = "") -> list[dict[str, Any]]:
    """Path in the output directory, sha256 and size of every file below a directory; links to directories are followed."""
    files = sorted(Path(root, name) for root, _, names in os.walk(directory, followlinks=True) for name in names)
    return [{"path": str(Path(place, file.relative_to(directory))), "sha256": sha256(file), "bytes": file.stat().st_size} for file in files]


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    with receipt("publish_model", given, args.outdir) as written:
        index = run(read_json(args.winner), args.parts, args.results, Export.model_validate(given.get("export", {})), args.outdir)
        write_json(args.outdir / "index.json", index)
        written.counts = {"files": len(index["files"]), "published": index["published"]}
    print(("Released " + index["release"]) if index["published"] else "Nothing released", index["reason"], sep=": ")


if __name__ == "__main__":
    main()
