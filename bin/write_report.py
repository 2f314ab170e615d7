#!/usr/bin/env python3
"""Write the sections of the report for MultiQC, which makes one HTML page of them.

write_report.py --dataset dataset.json --evaluations base/ trial-a/ ... --trials trial-a/ ... --leaderboard leaderboard.json
    --winner winner.json --receipts collect_source.json ... [--versions versions.yml]
    < {"generic": {"report_title": null}}  ->  report_sections/{*_mqc.json, style.css, multiqc_config.yml}
multiqc --strict --no-version-check --config report_sections/multiqc_config.yml report_sections
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llamaflow import __version__
from llamaflow.errors import exits_cleanly
from llamaflow.files import read_json, write_json, write_text
from llamaflow.params import Generic
from llamaflow.report import Results, bars, curves, data, safe, tables, texts, title_of
from llamaflow.report.answers import answers
from llamaflow.report.intervals import intervals
from llamaflow.report.plans import plan_and_fact
from llamaflow.report.style import CSS
from llamaflow.report.verdict import verdict
from llamaflow.results import read_evaluations, read_trials
from llamaflow.steps import read_settings, receipt

SECTIONS: tuple[Callable[[Results], dict[str, Any] | None], ...] = (
    verdict,
    tables.leaderboard,
    intervals,
    curves.loss_curves,
    tables.failures,
    curves.heatmap,
    data.data_funnel,
    data.personal_data,
    data.splits,
    data.leakage,
    texts.text_lengths,
    texts.clusters,
    texts.tokenizers,
    texts.samples,
    tables.trial_resources,
    plan_and_fact,
    bars.step_resources,
    answers,
)
TITLE = "Which fine-tuned model is best?"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="dataset.json of split_dataset")
    parser.add_argument("--evaluations", type=Path, nargs="*", default=[], help="directories of evaluate_model")
    parser.add_argument("--trials", type=Path, nargs="+", required=True, help="directories of train_trials")
    parser.add_argument("--leaderboard", type=Path, required=True)
    parser.add_argument("--winner", type=Path, required=True)
    parser.add_argument("--receipts", type=Path, nargs="*", default=[], help="receipts of all steps, for time and memory")
    parser.add_argument("--versions", type=Path, nargs="?", help="YAML with the versions of each step's software; default: those in the receipts")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(results: Results, title: str | None, versions: Mapping[str, Any], outdir: Path) -> list[str]:
    """Write outdir/report_sections anew; return the ids of its sections in their order."""
    target = outdir / "report_sections"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    made = [part for make in SECTIONS if (part := make(results))]
    for part in made:
        write_json(target / f"{part['id']}_mqc.json", part)
    names = [part["id"] for part in made]
    write_text(target / "style.css", CSS)
    write_text(target / "multiqc_config.yml", yaml.safe_dump(config(results, title or TITLE, names), sort_keys=False, allow_unicode=True))
    if versions:
        write_text(target / "llamaflow_mqc_versions.yml", yaml.safe_dump(_safe_versions(versions), allow_unicode=True))
    return names


def config(results: Results, title: str, sections: Sequence[str]) -> dict[str, Any]:
    """MultiQC's settings: our title and order, names left as they are, nothing of its own advertised."""
    models = sorted({row["model"] for row in results.rows})
    splits = results.dataset["splits"]
    return {
        "title": safe(title),
        "subtitle": safe(f"{_count(len(results.trials), 'trial')} on {', '.join(models)}"),
        "intro_text": "Every trial is one way of fine-tuning a language model on your data. Here is how they compare with the models they started from.",
        "report_header_info": [
            {
                "Data": f"{sum(splits.values()):,} records from {_count(len(results.dataset['sources']), 'source')}; {splits['test']:,} of them held out for testing"
            },
            {"Decided by": title_of(results.metric)},
            {"Made with": f"LlamaFlow {__version__}"},
        ],
        "custom_css_files": ["style.css"],
        "custom_content": {"order": list(sections)},
        "show_analysis_paths": False,
        "fn_clean_sample_names": False,
        "fn_clean_exts": [],
        "fn_clean_trim": [],
        "no_ai": True,
        "skip_generalstats": True,
        "thousandsSep_format": ",",  # otherwise every comma of a text becomes a gap
        "decimalPoint_format": ".",
        "max_table_rows": 2000,
        "collapse_tables": False,
        "plots_defer_loading_numseries": 1000,
        "versions_table_group_header": "Step",
        "output_fn_name": "multiqc_report.html",  # otherwise the title becomes the name
        "make_data_dir": False,  # leaderboard.csv and the receipts have it all
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def versions_of(receipts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The software of each step, as its receipts tell it."""
    return {made["step"]: dict(made["versions"]) for made in receipts if made.get("versions")}


def _safe_versions(versions: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Versions as text ({step: {software: version}}): MultiQC puts them into the page as they are."""
    return {safe(step): {safe(name): safe(version) for name, version in found.items()} for step, found in versions.items() if isinstance(found, Mapping)}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    with receipt("write_report", settings, args.outdir) as written:
        receipts = [read_json(path) for path in args.receipts]
        results = Results(
            dataset=read_json(args.dataset),
            evaluations=read_evaluations(args.evaluations),
            trials=read_trials(args.trials),
            leaderboard=read_json(args.leaderboard),
            winner=read_json(args.winner),
            receipts=receipts,
        )
        versions = yaml.safe_load(args.versions.read_text(encoding="utf-8")) if args.versions else versions_of(receipts)
        sections = run(results, Generic.model_validate(settings.get("generic", {})).report_title, versions, args.outdir)
        for path in (args.dataset, args.leaderboard, args.winner):
            written.add_input(path)
        written.add_output(args.outdir / "report_sections")
        written.counts = {"sections": sections}


if __name__ == "__main__":
    main()
