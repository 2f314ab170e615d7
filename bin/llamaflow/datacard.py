"""The data card: README.md of the published data set, with the metadata of the Hugging Face Hub's data set cards.

Its form is that of https://huggingface.co/docs/hub/datasets-cards; what a card should tell is from Gebru et al. 2021, doi:10.1145/3458723.
Whatever comes from users is escaped. There is no date in it, so that the same data has the same card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from llamaflow import __version__
from llamaflow.cards import Markdown, escaped, fenced, main_languages, table
from llamaflow.histograms import PERCENTILES
from llamaflow.licences import NOT_GIVEN, classes_of, hub_names, warnings_about
from llamaflow.records import SPLITS

EXAMPLES = 3
SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"), (1e8, "10M<n<100M"), (1e9, "100M<n<1B"))
COLUMNS = {
    "id": "hash of the content",
    "source": "where it is from, as below",
    "type": "`text`, `chat` or `preference`",
    "text": "of a `text`",
    "messages": "of a `chat`: a list of `role` and `content`",
    "prompt, chosen, rejected": "of a `preference`: lists of the same form",
    "label": "the class, where there are classes",
    "liked": "whether people liked the answer, where that is known",
    "split": "as it was given, before the draw",
    "meta": "file and line, `document_id`, `subject_id`, licence, language, date, address, `replaces` (the `id` of an earlier record that this one nearly equals)",
}


def data_card(dataset: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """The whole card, of what dataset.json says and the parameters that the data was made with."""
    header = yaml.safe_dump(metadata(dataset), sort_keys=False, allow_unicode=True)
    sections = [_introduction(dataset), _sources(dataset), _licences(dataset), _dropped(dataset), _languages(dataset), _lengths(dataset)]
    sections += [_personal_data(dataset["personal_data"]), _splits(dataset), _examples(dataset), _columns(), _reproduce(parameters)]
    return f"---\n{header}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def metadata(dataset: Mapping[str, Any]) -> dict[str, Any]:
    records = sum(dataset["splits"].values())
    found = {
        "license": hub_names(dataset["licenses"]),
        "language": main_languages(dataset["languages"]),
        "size_categories": [next((name for bound, name in SIZES if records < bound), "n>1B")],
        "tags": ["llamaflow"],
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": f"{split}.parquet"} for split in SPLITS]}],
    }
    return {name: value for name, value in found.items() if value}


def described(dataset: Mapping[str, Any]) -> str:
    """The data set in a sentence."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in dataset["types"].items())
    return f"{sum(dataset['splits'].values()):,} records ({kinds}) from {_listed(list(dataset['sources']))}, cleaned, deduplicated and split by LlamaFlow."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} more sources"


def _introduction(dataset: Mapping[str, Any]) -> str:
    lines = [f"# Data of {escaped(_listed(list(dataset['sources'])))}", "", escaped(described(dataset)), f"Digest: `{dataset['sha256']}`.", ""]
    lines += ["```python", "from datasets import load_dataset", "", 'data = load_dataset("path/to/this/directory")', "```", ""]
    return "\n".join(
        [*lines, "`dropped.parquet` is what was left out, `croissant.json` describes the files for machines ([Croissant](https://mlcommons.org/croissant))."]
    )


def _sources(dataset: Mapping[str, Any]) -> str:
    rows = []
    for name, source in dataset["sources"].items():
        origin = dataset["origins"].get(name, {})
        size = f"{origin['bytes']:,}" if origin.get("bytes") is not None else ""
        digest = f"`{origin['sha256']}`" if origin.get("sha256") else ""
        counts = (f"{source[split]:,}" for split in SPLITS)
        rows.append((name, origin.get("path", ""), origin.get("format") or "", source["license"] or "not given", *counts, size, Markdown(digest)))
    return "## Sources\n\n" + table(("source", "path", "format", "licence", *SPLITS, "bytes", "SHA-256"), rows)


def origin_of(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Where a source came from, by its receipt of collect_source: of an address neither user nor query, which may be secrets; of a file on a disk its name."""
    counts = receipt["counts"]
    return {"path": public(receipt["settings"]["source"]["path"])} | {name: counts.get(name) for name in ("format", "bytes", "sha256")}


def public(path: str) -> str:
    if "://" in path:
        parts = urlsplit(path)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return PurePosixPath(path).name if path.startswith("/") else path


def _licences(dataset: Mapping[str, Any]) -> str:
    rows = [("not given" if name == NOT_GIVEN else name, ", ".join(classes_of(name)), f"{count:,}") for name, count in dataset["licenses"].items()]
    warnings = [f"> **Mind:** {escaped(warning)}" for warning in warnings_about(dataset["licenses"])]
    remark = "What becomes of several licences in one data set is told by their names, and is no legal advice."
    return "\n\n".join(["## Licences", table(("licence", "class", "records"), rows), *warnings, remark])


def _dropped(dataset: Mapping[str, Any]) -> str:
    first = next((entry["step"] for entry in dataset["funnel"]), None)
    rows = [
        (entry["step"], entry["source"], f"{entry['kept']:,}", f"{sum(entry['dropped'].values()):,}", _counted(entry["dropped"]))
        for entry in dataset["funnel"]
        if entry["dropped"] or entry["step"] == first
    ]
    if not rows:
        return ""
    return "## What was dropped\n\nOf the later steps, only those are listed that dropped something of a source.\n\n" + table(
        ("step", "source", "kept", "dropped", "why"), rows
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _languages(dataset: Mapping[str, Any]) -> str:
    total = sum(dataset["languages"].values())
    ordered = sorted(dataset["languages"].items(), key=lambda item: (-item[1], item[0]))
    rows = [(language, f"{count:,}", f"{count / total:.1%}") for language, count in ordered]
    return "## Languages\n\nAs the sources say or as py3langid tells; unknown is what is too short or too mixed.\n\n" + table(
        ("language", "records", "share"), rows
    )


def _lengths(dataset: Mapping[str, Any]) -> str:
    names = ("mean", *(f"p{percentile}" for percentile in PERCENTILES), "max")
    rows = [(split, *(f"{dataset['characters'][split][name]:,}" for name in names)) for split in SPLITS]
    return "## Lengths\n\nCharacters of a record, in all its messages: mean, percentiles and maximum.\n\n" + table(("split", *names), rows)


def _personal_data(personal: Mapping[str, Any]) -> str:
    found = Counter[str]()
    for counts in personal["found"].values():
        found.update(counts)
    rows = [(kind.replace("_", " "), f"{count:,}") for kind, count in found.most_common()]
    model = personal.get("names_model")
    names = f"Names of people are those that the model {escaped(model)} found; it misses some." if model else "Names of people were not looked for."
    text = f"## Personal data\n\nFound by pattern and checksum, with `personal_data: {personal['action']}`. {names}"
    return f"{text}\n\n" + (table(("type", "found"), rows) if rows else "None was found.")


def _splits(dataset: Mapping[str, Any]) -> str:
    settings, straddling = dataset["settings"], dataset["prompts_in_several_splits"]
    by_hash = f"by a hash of the content and the seed {settings['split_seed']}"
    how = (
        by_hash
        if settings["split_by"] == "chance"
        else f"the newest for the test, those before them for validation, and where dates are equal or missing {by_hash}"
    )
    text = (
        f"Splits that came with the data are kept. From the rest, {settings['validation_fraction']:.1%} was drawn for validation and {settings['test_fraction']:.1%} for the test "
        f"within each {settings['stratify_by']}, {how}. Records with the same prompt, or about the same person, stay together."
    )
    leak = (
        f"> **Mind:** {straddling:,} prompts came in several splits, so the test is easier than it should be."
        if straddling
        else "No prompt is in several splits."
    )
    return "\n\n".join(["## Splits", text, leak, *_documents(dataset["documents"]), *_mixture(dataset)])


def _documents(documents: Mapping[str, int]) -> list[str]:
    if not documents["found"]:
        return []
    torn = f"{documents['in_several_splits']:,} of {documents['found']:,} documents and threads are in several splits"
    if documents["in_several_splits"]:
        return [f"> **Mind:** {torn}, in parts that follow each other, since no split could hold them whole or they came so."]
    return [f"What is of one document or thread stays together: none of {documents['found']:,} is in several splits."]


def _mixture(dataset: Mapping[str, Any]) -> list[str]:
    if not dataset["mixture"]:
        return []
    rows = [(source, part["weight"], part["records"], part["times"], f"{part['share']:.1%}") for source, part in dataset["mixture"]["sources"].items()]
    unit = f"tokens of {escaped(dataset['tokenizer'])}" if dataset["mixture"]["unit"] == "tokens" else "bytes"
    text = f"The training text is a mixture of the sources by weight. A record that is repeated stands in `train.parquet` as often as it is trained on; shares are of {unit}."
    return ["## Mixture", text, table(("source", "weight", "records", "times", "share"), rows)]


def _examples(dataset: Mapping[str, Any]) -> str:
    shown = [fenced(record["after"]) for record in dataset["sample"]["kept"][:EXAMPLES]]
    return "\n\n".join(["## Examples", "Shortened, personal data masked.", *shown]) if shown else ""


def _columns() -> str:
    return "## Columns\n\n" + table(("column", ""), [(name, Markdown(text)) for name, text in COLUMNS.items()])


def _reproduce(parameters: Mapping[str, Any]) -> str:
    text = f"## How to reproduce it\n\nLlamaFlow {__version__} on the same sources, with these parameters:"
    return f"{text}\n\n" + fenced(yaml.safe_dump(dict(parameters), sort_keys=True, allow_unicode=True).rstrip(), "yaml")
