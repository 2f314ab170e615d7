"""How long texts are, how many say nearly the same, how well tokenizers fit them, and some to read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from llamaflow.report import DASH, Results, safe, section
from llamaflow.report.data import SPLIT_COLOURS
from llamaflow.report.tables import table_config

PARTS = re.compile(r"\n|[^\S\n]+|\S+")
MASK = re.compile(r"\[[A-Z_]+(?:_\d+| [0-9a-f]+)\]")
FIT = {True: "well", False: "badly", None: DASH}
FITS = [{"well": "#0f9d8a"}, {"badly": "#d6336c"}]


def text_lengths(results: Results) -> dict[str, Any] | None:
    """Characters of a record, by split; None if dataset.json does not tell them."""
    found = {split: of for split, of in results.dataset.get("characters", {}).items() if of.get("histogram")}
    if not found:
        return None
    bins = sorted({(low, high) for of in found.values() for low, high, _ in of["histogram"]})
    data = {split.capitalize(): _shares(of["histogram"], bins) for split, of in found.items()}
    pconfig = {"title": "Characters of a record, by split", "xlab": "Characters", "ylab": "Share of records", "ysuffix": " %", "ymin": 0, "categories": True}
    pconfig |= {"colors": {split.capitalize(): SPLIT_COLOURS[split] for split in found}, "smooth_points": len(bins) + 1}
    medians = ", ".join(f'{of["p50"]:,} in <b style="color: {SPLIT_COLOURS[split]}">{split}</b>' for split, of in found.items())
    text = f"Half of the records have at most so many characters in all their messages: {medians}. Where a curve is unlike the others, the test asks for something else than the training teaches."
    return section("text_lengths", "How long the records are", text, "linegraph", data, pconfig=pconfig)


def _shares(histogram: list[list[int]], bins: list[tuple[int, int]]) -> dict[str, float]:
    """Per cent of the records in each bin."""
    counts, total = {low: count for low, _, count in histogram}, sum(count for _, _, count in histogram)
    return {f"{low:,} to {high:,}" if low < high else f"{low:,}": round(100 * counts.get(low, 0) / total, 2) for low, high in bins}


def clusters(results: Results) -> dict[str, Any] | None:
    """How many records said nearly the same; None if all are different."""
    sizes = next((made.get("counts", {}).get("clusters") for made in results.receipts if made["step"] == "deduplicate_records"), None)
    if not sizes:
        return None
    data = {f"{size} records": {"clusters": count} for size, count in sizes.items()}
    labels = {"ylab": "Clusters", "cpswitch": False, "tt_decimals": 0, "sort_samples": False}
    text = f"Clusters of records that said the same or nearly the same: {sum(sizes.values()):,}. One record of each was kept. Large clusters are often templates or copied pages."
    categories = {"clusters": {"name": "Clusters", "color": "#f08c00"}}
    return section("clusters", "Duplicates", text, "bargraph", data, categories=categories, pconfig={"title": "Clusters of duplicates, by size"} | labels)


def tokenizers(results: Results) -> dict[str, Any] | None:
    """How each tokenizer cuts each language; None if nothing was tokenised."""
    rows, warnings = {}, []
    for made in results.receipts:
        counts = made.get("counts", {})
        if made["step"] != "tokenize_dataset" or "languages" not in counts:
            continue
        limit = made["settings"]["max_length"]
        for language, fit in counts["languages"].items():
            rows[safe(f"{counts['model']}, {limit} tokens: {language}")] = _fit(fit, counts["lengths"]["train"].get(language, {}))
            if fit["warning"]:
                warnings.append(f"<b>{safe(counts['model'])} fits {safe(language)} badly</b>: {safe(fit['warning'])}.")
    if not rows:
        return None
    text = (
        "The fewer tokens a word takes, the cheaper the training and the easier it is to learn; much above 2 means that the tokenizer was not made for the language. "
        "Of languages without spaces a character counts as a word. Lengths are those of the training records, in tokens. "
    )
    return section("tokenizers", "How tokenizers fit the data", text + " ".join(warnings), "table", rows, headers=_headers(), pconfig=table_config("Tokenizer"))


def _fit(fit: Mapping[str, Any], lengths: Mapping[str, Any]) -> dict[str, Any]:
    cells = {name: fit[name] for name in ("tokens_per_word", "characters_per_token")} | {
        "unknown": 100 * fit["unknown"],
        "fit": FIT[fit["fits"]],
    }
    return cells | {name: lengths[name] for name in ("p50", "p95", "max") if name in lengths} | ({"longer": 100 * lengths["longer"]} if lengths else {})


def _headers() -> dict[str, Any]:
    rules = {name: [{"s_eq": name}] for colours in FITS for name in colours}
    return {
        "fit": {
            "title": "Fits",
            "description": "badly: more than 2.5 tokens a word, twice those of English, a character in bytes, or unknown tokens",
            "scale": False,
        }
        | {"cond_formatting_rules": rules, "cond_formatting_colours": FITS},
        "tokens_per_word": {
            "title": "Tokens a word",
            "description": "Fertility: tokens a word, without the chat template",
            "format": "{:,.2f}",
            "scale": "Oranges",
            "min": 1,
        },
        "characters_per_token": {"title": "Characters a token", "description": "Without the chat template", "format": "{:,.2f}", "scale": "Greens", "min": 0},
        "unknown": {"title": "Unknown", "description": "Share of tokens that the tokenizer does not know", "format": "{:,.2f}", "suffix": " %", "scale": False},
        "p50": {"title": "Median", "description": "Tokens of a record, chat template included", "format": "{:,.0f}", "scale": False},
        "p95": {"title": "95 %", "description": "95 of 100 records have at most so many tokens", "format": "{:,.0f}", "scale": False},
        "max": {"title": "Longest", "description": "Tokens of the longest record", "format": "{:,.0f}", "scale": False},
        "longer": {
            "title": "Beyond max_length",
            "description": "Conversations are cut there, texts are learnt in pieces",
            "format": "{:,.1f}",
            "suffix": " %",
            "scale": "Reds",
        }
        | {"min": 0, "max": 100},
    }


def samples(results: Results) -> dict[str, Any] | None:
    """Records as collected and as cleaned, and dropped ones; None if there are none to show."""
    sample = results.dataset.get("sample") or {"kept": [], "dropped": []}
    tables = []
    if sample["kept"]:
        rows = "".join(f"<tr><td>{safe(one['source'])}</td>{_both(one)}</tr>" for one in sample["kept"])
        tables.append(_folded(f"{len(sample['kept'])} records that were kept", ("Source", "As collected", "As cleaned"), rows))
    if sample["dropped"]:
        rows = "".join(
            f"<tr><td>{safe(one['location'])}</td><td><b>{safe(one['reason'])}</b></td><td>{_html(one['record'])}</td></tr>" for one in sample["dropped"]
        )
        tables.append(_folded(f"{len(sample['dropped'])} records that were dropped", ("From", "Reason", "Record"), rows))
    if not tables:
        return None
    text = (
        "Read a few before you trust a figure. They were chosen by chance, the same ones each time; those that cleaning changed come first. "
        "What cleaning took away or put in is shaded. Personal data is masked in all of them, also where --personal_data keeps it."
    )
    return section("samples", "Records to read", text, "html", "".join(tables))


def _folded(title: str, head: tuple[str, ...], rows: str) -> str:
    columns = "".join(f"<th>{name}</th>" for name in head)
    table = f'<table class="lf-answers lf-records"><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<details class="lf-more"><summary>{title}</summary>{table}</details>'


def _both(record: Mapping[str, Any]) -> str:
    if record["before"] == record["after"]:
        return f'<td>{_html(record["before"])}</td><td class="lf-same">the same</td>'
    one, other = (PARTS.findall(record[name]) for name in ("before", "after"))
    changes = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    left = "".join(_shaded(one[start:end], kind != "equal", "lf-cut") for kind, start, end, _, _ in changes)
    right = "".join(_shaded(other[start:end], kind != "equal", "lf-hit") for kind, _, _, start, end in changes)
    return f"<td>{left}</td><td>{right}</td>"


def _shaded(parts: list[str], is_changed: bool, style: str) -> str:
    text = _html("".join(parts))
    return f'<span class="{style}">{text}</span>' if is_changed and text else text


def _html(text: str) -> str:
    """Text as HTML, line by line; what would not be seen as a replacement character, masks as labels."""
    return MASK.sub(r'<span class="lf-mask">\g<0></span>', "".join(_visible(PARTS.findall(text))))


def _visible(parts: list[str]) -> Iterator[str]:
    for part in parts:
        if part.isspace():
            yield "<br>" if part == "\n" else " "
        else:
            yield safe("".join(letter if letter.isprintable() else "\ufffd" for letter in part))
