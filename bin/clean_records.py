#!/usr/bin/env python3
"""Repair the text of records and drop those that cannot teach anything.

    clean_records.py --records collected.parquet/00001.parquet [--names names.parquet] < settings.json

The settings hold the groups cleaning and personal_data; where lengths have bounds in tokens, --tokenizer is the directory of what counts them. Every
record is looked at alone, so that several tasks may share a source; whether it lost too many is asked in deduplicate_records. Writes cleaned.parquet, clean_records.dropped.parquet, clean_records.sample.jsonl
(records to look at, before and after) and the receipt clean_records.json. A rule returns None or the reason to drop; reasons are counted by
source. Personal data goes before anything is written, what is dropped included; names of
people, which find_names found, are such data wherever they stand in their record. Values that are hashed take their key from the environment: LLAMAFLOW_HASH_KEY.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaflow.cleaning import FIELDS, Rules, fault, filtered, with_texts
from llamaflow.data_params import PersonalType
from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.records import DroppedWriter, ParquetWriter, Record, finished, read_rows
from llamaflow.samples import CleaningSample
from llamaflow.steps import read_settings, receipt
from llamaflow.textrepair import repair

STEP = "clean_records"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of collect_source")
    parser.add_argument("--names", type=Path, help="the names in these records, of find_names")
    parser.add_argument("--tokenizer", type=Path, help="what counts tokens, of fetch_model, if lengths have bounds in tokens")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(records: Path, names: Path | None, rules: Rules, outdir: Path, settings: Mapping[str, Any]) -> None:
    cleaned, rejected, shown = outdir / "cleaned.parquet", outdir / f"{STEP}.dropped.parquet", outdir / f"{STEP}.sample.jsonl"
    counts: Counter[str] = Counter()
    personal: dict[str, Counter[PersonalType]] = {}
    changed, sample = 0, CleaningSample(rules.personal.phone_regions, repair)
    with receipt(STEP, settings, outdir) as written:
        for path in filter(None, (records, names)):
            written.add_input(path)
        if rules.tokens:
            written.inputs["tokenizer"] = rules.tokens.described["tokenizer_sha256"]
        with ParquetWriter(cleaned) as kept, DroppedWriter(rejected, STEP) as dropped:
            for record, named in with_names(records, names):
                redactor = rules.redactor(named)
                repaired = with_texts(with_texts(record, repair), redactor)
                personal.setdefault(record["source"], Counter()).update(redactor.counts)
                problem = fault(repaired, rules.cleaning)
                unwanted = problem or filtered(repaired, rules, redactor)
                if unwanted:
                    dropped.drop(record["source"], record["meta"]["location"], unwanted, repaired, by_choice=not problem)
                    continue
                is_changed = any(repaired[field] != record[field] for field in ("text", *FIELDS))
                changed += is_changed
                kept.write(finished(repaired, rules.cleaning.system_prompt))
                sample.offer(record, repaired, redactor.names, changed=is_changed)
                counts[record["source"]] += 1
        sample.write(shown)
        for path in (cleaned, rejected, shown):
            written.add_output(path)
        by_source = {source: {"kept": counts[source], "dropped": dropped.by_source.get(source, {})} for source in sorted({*counts, *dropped.by_source})}
        found = {source: dict(sorted(types.items())) for source, types in sorted(personal.items()) if types}
        written.counts = {
            "records": kept.count,
            "changed": changed,
            "dropped": dropped.reasons,
            "sources": by_source,
            "faults": dropped.faults,
            "personal_data": found,
        }


def with_names(records: Path, names: Path | None) -> Iterator[tuple[Record, list[str]]]:
    """Each record with the names in it, none where nobody looked for them."""
    if names is None:
        return ((record, []) for record in read_rows(records))
    return zip(read_rows(records), (row["names"] for row in read_rows(names)), strict=True)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    rules = Rules.of(settings, args.tokenizer)
    if rules.personal.names_model and args.names is None:
        raise UsageError("--names_model: names are to be found in these records, but --names, the result of find_names, is missing.")
    run(args.records, args.names, rules, args.outdir, settings)


if __name__ == "__main__":
    main()
