"""What became of the data: records kept and dropped, personal data, splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llamaflow.data_params import PersonalType, actions_of
from llamaflow.licences import warnings_about
from llamaflow.report import Results, safe, section
from llamaflow.report.tables import table_config

SPLIT_COLOURS = {"train": "#4c6ef5", "validation": "#91a7ff", "test": "#0f9d8a"}
DROP_COLOURS = ("#e8590c", "#f08c00", "#fab005", "#d6336c", "#ae3ec9", "#845ef7", "#a9674b", "#868e96")
ACTIONS = {"keep": "was left in the texts", "mask": "was masked", "hash": "was replaced by keyed hashes", "drop": "cost its record its place"}


def data_funnel(results: Results) -> dict[str, Any] | None:
    """What became of the records of each source."""
    dropped: dict[str, Counter[str]] = {source: Counter() for source in results.dataset["sources"]}
    kept: dict[str, int] = {}
    for entry in results.dataset["funnel"]:  # in the order of the steps: the last one tells what was left, before a mixture repeats it
        dropped.setdefault(entry["source"], Counter()).update(entry["dropped"])
        kept[entry["source"]] = entry["kept"]
    reasons = [reason for reason, _ in sum(dropped.values(), Counter[str]()).most_common()]
    data = {
        safe(source): {"kept": kept.get(source, 0)} | {f"dropped_{reasons.index(reason)}": count for reason, count in counts.items()}
        for source, counts in dropped.items()
    }
    categories = {"kept": {"name": "Kept", "color": "#0f9d8a"}}
    categories |= {
        f"dropped_{place}": {"name": f"Dropped: {safe(reason)}", "color": DROP_COLOURS[place % len(DROP_COLOURS)]} for place, reason in enumerate(reasons)
    }
    text = "Records of each source that were kept, and why the others were dropped. The dropped ones are listed, with the place they come from, in data/dropped.parquet."
    for source, reason in results.dataset.get("skipped_sources", {}).items():
        text += f" <b>{safe(source)} could not be read and was skipped</b>: {safe(reason)}"
    text += "".join(f" <b>Mind the licence</b>: {safe(warning)}" for warning in warnings_about(results.dataset.get("licenses", {})))
    text += _of_generation([made["counts"] for made in results.receipts if made["step"] == "generate_records"])
    pconfig = _records_by_source("Records kept and dropped, by source")
    return section("data_funnel", "What became of the data", text, "bargraph", data, categories=categories, pconfig=pconfig)


def _of_generation(counts: Sequence[Mapping[str, Any]]) -> str:
    """What a model was asked and what it took."""
    if not counts:
        return ""
    used = sum((Counter(made["usage"]) for made in counts), Counter[str]())
    text = f" A model was asked about {sum(made['texts'] for made in counts):,} texts and gave {used['answers']:,} answers"
    text += f" ({used['prompt_tokens']:,} prompt tokens and {used['completion_tokens']:,} completion tokens, as its server counts them"
    text += f"; of {used['without_usage']:,} answers it did not tell)" if used["without_usage"] else ")"
    return f"{text}; {used['kept_answers']:,} were kept from earlier runs." if used["kept_answers"] else f"{text}."


def splits(results: Results) -> dict[str, Any]:
    """Where the kept records went."""
    data = {safe(source): {split: counts[split] for split in SPLIT_COLOURS} for source, counts in results.dataset["sources"].items()}
    categories = {split: {"name": split.capitalize(), "color": colour} for split, colour in SPLIT_COLOURS.items()}
    sizes = results.dataset["splits"]
    text = f"{sizes['train']:,} records train the models, {sizes['validation']:,} watch over the training, {sizes['test']:,} are held out for the comparison with the base."
    if straddling := results.dataset.get("prompts_in_several_splits"):
        text += f" Mind that {straddling:,} questions were given in several of these parts: the test is easier for it."
    documents = results.dataset.get("documents", {})
    if torn := documents.get("in_several_splits"):
        text += f" Mind the documents in several of these parts, {torn:,} of {documents['found']:,}, cut where no part could hold them: the test asks about what the training has read."
    if mixture := results.dataset.get("mixture"):
        shares = ", ".join(f"{safe(source)} {part['share']:.0%} (each record {part['times']:.2g} times)" for source, part in mixture["sources"].items())
        unit = f"in tokens of {safe(results.dataset['tokenizer'])}" if mixture["unit"] == "tokens" else "in bytes"
        text += f" By their weights, the sources have these shares of the training text, {unit}: {shares}."
    pconfig = _records_by_source("Records of each split, by source")
    return section("splits", "Training, validation and test data", text, "bargraph", data, categories=categories, pconfig=pconfig)


def _records_by_source(title: str) -> dict[str, Any]:
    labels = {"ylab": "Records", "cpswitch_counts_label": "Records", "cpswitch_percent_label": "Share"}
    return {"title": title, "sort_samples": False, "tt_decimals": 0} | labels


def leakage(results: Results) -> dict[str, Any] | None:
    """What the splits have of each other's questions, of an earlier run's records and of benchmarks."""
    leaks, previous = results.dataset.get("leakage"), results.dataset.get("previous")
    if leaks is None:
        return None
    headers = {"records": {"title": "Records", "format": "{:,.0f}", "scale": False}}
    for name, meaning in _ORIGINS.items() if previous else ():
        headers[name] = {"title": name.capitalize(), "description": meaning, "format": "{:,.0f}", "scale": False}
    for split in ("validation", "test"):
        description = f"Records that contain a question of the {split} data: more than half of its words, in runs of eight"
        headers[f"in_{split}"] = {"title": f"Ask as {split} does", "description": description, "format": "{:,.0f}", "scale": "Oranges", "min": 0}
    data = {
        split: {"records": results.dataset["splits"][split]}
        | {name: previous[name][split] for name in _ORIGINS if previous}
        | {f"in_{other}": count for other, count in leaks.get(split, {}).items()}
        for split in SPLIT_COLOURS
    }
    text = "Training records that contain a question of the test data make the test easier than it should be. " + _of_previous(previous)
    text += " ".join(map(_of_benchmark, (results.dataset.get("benchmarks") or {}).items()))
    return section("leakage", "What is tested and what was learnt", text, "table", data, headers=headers, pconfig=table_config("Split"))


_ORIGINS = {
    "kept": "Records that were in this split in the earlier run too",
    "related": "New records with the question or the person of an earlier one, which they follow",
    "new": "New records",
    "moved": "Records that you now gave to another split than they were in",
}


def _of_previous(previous: dict[str, Any] | None) -> str:
    if not previous:
        return ""
    overruled = previous["test_not_as_given"]
    return "What the earlier run knew stays where it was. " + (
        f"{overruled:,} records stay in the test although you gave them otherwise. " if overruled else ""
    )


def _of_benchmark(item: tuple[str, dict[str, int]]) -> str:
    name, counts = item
    return f"{counts['dropped']:,} records with questions of {safe(name)} ({counts['questions']:,} questions) were left out; {counts['test']:,} test records have some."


def personal_data(results: Results) -> dict[str, Any] | None:
    """How much personal data each source held, by type: counts, never values. None if there was none."""
    personal = results.dataset.get("personal_data") or {"found": {}}
    found = personal["found"]
    if not found:
        return None
    types = Counter[PersonalType]()
    for counts in found.values():
        types.update(counts)
    headers = {
        kind: {"title": safe(kind.replace("_", " ")), "description": _what_became(personal["action"], kind), "format": "{:,.0f}", "scale": "Oranges", "min": 0}
        for kind, _ in types.most_common()
    }
    data = {safe(source): counts for source, counts in found.items()}
    text = f"{types.total():,} pieces of personal data were found in the texts, by pattern and checksum; --personal_data was {safe(personal['action'])}. {_of_names(personal)}"
    return section("personal_data", "Personal data", text, "table", data, headers=headers, pconfig=table_config("Source"))


def _of_names(personal: dict[str, Any]) -> str:
    model = personal.get("names_model")
    return f"Names of people are those that the model {safe(model)} found; it misses some." if model else "Names of people are not looked for."


def _what_became(actions: str, kind: PersonalType) -> str:
    return f"What was found {ACTIONS[actions_of(actions)[kind]]}"
