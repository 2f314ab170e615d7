#!/usr/bin/env python3
"""The peer of data_against_datatrove.py: its steps in datatrove, with its own Python, since its packages are not ours.

datatrove_steps.py < {"input": DIRECTORY, "output": DIRECTORY, "workers": 2, "model": FILE or null}

Reads *.jsonl, keeps what Gopher's rules and the language allow, drops near-duplicates by MinHash (which finds the exact ones too), writes JSONL.
Every stage is run with all workers at once, as its documentation has it. Words are split by spaCy, as datatrove does in English.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter, LanguageFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

BUCKETS = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)  # its default: half of the pairs at a similarity of 0.72 are found


def main() -> None:
    given = json.load(sys.stdin)
    root, workers = Path(given["output"]), given["workers"]
    filters = [GopherRepetitionFilter(), GopherQualityFilter()]
    if given["model"]:
        filters.append(LanguageFilter(languages=["en"]))
        filters[-1].model.MODEL_URL = given["model"]  # it would download its own
    kept, signatures, buckets, removed = (str(root / name) for name in ("filtered", "signatures", "buckets", "removed"))
    stages = (
        ([JsonlReader(given["input"], glob_pattern="*.jsonl"), *filters, JsonlWriter(kept, compression=None)], workers),
        ([JsonlReader(kept), MinhashDedupSignature(signatures, config=BUCKETS)], workers),
        ([MinhashDedupBuckets(signatures, buckets, config=BUCKETS)], BUCKETS.num_buckets),
        ([MinhashDedupCluster(buckets, removed, config=BUCKETS)], 1),
        ([JsonlReader(kept), MinhashDedupFilter(removed), JsonlWriter(str(root / "deduplicated"), compression=None)], workers),
    )
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(tasks, workers), logging_dir=str(root / f"logs{number}")).run()


if __name__ == "__main__":
    main()
