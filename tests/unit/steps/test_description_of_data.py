"""What split_dataset tells of the data in dataset.json and the card."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from record_files import NAMES, Split, chat, described, ids, receipt, rows, texts


def test_the_card_tells_how_records_were_drawn(split: Split, tmp_path: Path) -> None:
    dated = texts(20, meta={"location": "x", "created_at": "2026-11-23"})
    for by, said in (("chance", "within each source, by a hash of the content and the seed 42."), ("time", "within each source, the newest for the test")):
        split(dated, split_by=by)
        assert said in (tmp_path / "dataset" / "README.md").read_text()


def test_description(split: Split, tmp_path: Path) -> None:
    meta = {"location": "a", "language": "pt", "license": "MIT"}
    records = texts(20, "a", meta=meta, label="x") + [chat(f"{number}?", "yes", source="b") for number in range(20)]
    split(records)
    made = described(tmp_path)
    assert made["splits"] == {"train": 32, "validation": 4, "test": 4}
    assert made["sources"] == {
        "a": {"train": 16, "validation": 2, "test": 2, "license": "MIT", "type": "text"},
        "b": {"train": 16, "validation": 2, "test": 2, "license": None, "type": "chat"},
    }
    assert made["labels"] == {"x": {"train": 16, "validation": 2, "test": 2}}
    assert made["types"] == {"chat": 20, "text": 20}
    assert made["languages"] == {"pt": 20, "unknown": 20}
    assert sum(made["characters"][name]["total"] for name in NAMES) == sum(len(f"a text {number}") + len(f"{number}?yes") for number in range(20))
    assert made["settings"] == {
        "validation_fraction": 0.1,
        "test_fraction": 0.1,
        "max_repeats": 4.0,
        "stratify_by": "source",
        "group_by": "document",
        "split_by": "chance",
        "split_seed": 42,
    }
    assert made["funnel"] == []


def test_texts_tell_what_there_is_to_train_on(split: Split, tmp_path: Path) -> None:
    turns = {name: [{"role": "assistant", "content": f"{name} é"}] for name in ("chosen", "rejected")}
    preference = {"type": "preference", "source": "b", "prompt": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Why?"}], **turns}
    given = [{"type": "text", "text": "four", "split": "train"}, chat("Who?", "I", split="train"), {**preference, "split": "train"}]
    others = [{"type": "text", "text": f"{name} text", "split": name} for name in NAMES[1:]]
    split(given + others)
    made = described(tmp_path)
    characters = len("four" + "Who?I" + "Be briefWhy?chosen é")
    assert made["texts"]["train"] == {"characters": characters, "bytes": characters + 1, "conversations": 2, "messages": 5, "system_messages": 1}
    assert made["texts"]["test"] == {"characters": 9, "bytes": 9, "conversations": 0, "messages": 0, "system_messages": 0}
    assert made["characters"]["train"]["total"] == characters + len("rejected é")


def test_funnel_and_dropped_records_of_all_steps(split: Split, run_step: Any, tmp_path: Path) -> None:
    steps = {}
    for number, source in enumerate(("b", "a")):
        place = tmp_path / source
        place.mkdir()
        (place / "x.jsonl").write_text("".join(f'{{"text": "text {line}"}}\n' for line in range(30 - number * 28)) + '{"text": ""}\n{\n')
        collection = {"collection": {"max_dropped_fraction": 0.5}}
        run_step("collect_source", ["--path", place / "x.jsonl", "--outdir", place], {"source": {"id": source, "path": "x.jsonl"}, **collection})
        run_step("clean_records", ["--records", place / "collected.parquet", "--outdir", place], collection)
        steps[source] = place
    run_step("deduplicate_records", ["--records", *(place / "cleaned.parquet" for place in steps.values()), "--outdir", tmp_path], {})
    receipts, dropped = ([*sorted(tmp_path.rglob(pattern))] for pattern in ("*.json", "*.dropped.parquet"))
    split(rows(tmp_path / "deduplicated.parquet"), "--receipts", *receipts, "--dropped", *dropped)
    assert [(entry["step"], entry["source"], entry["kept"], entry["dropped"]) for entry in described(tmp_path)["funnel"]] == [
        ("collect_source", "a", 3, {"not valid JSON": 1}),
        ("collect_source", "b", 31, {"not valid JSON": 1}),
        ("clean_records", "a", 2, {"empty": 1}),
        ("clean_records", "b", 30, {"empty": 1}),
        ("deduplicate_records", "a", 0, {"exact duplicate": 2}),
        ("deduplicate_records", "b", 30, {}),
    ]
    assert described(tmp_path)["sources"]["a"] == {"train": 0, "validation": 0, "test": 0, "license": None, "type": None}
    assert Counter(row["reason"] for row in rows(tmp_path / "dataset" / "dropped.parquet")) == {"not valid JSON": 2, "empty": 2, "exact duplicate": 2}
    assert receipt(tmp_path / "split_dataset.json")["counts"] == {"records": 30, "splits": {"train": 24, "validation": 3, "test": 3}}


def test_skipped_sources_are_listed(split: Split, run_step: Any, tmp_path: Path) -> None:
    settings = {"source": {"id": "gone", "path": "gone.csv"}, "collection": {"on_source_error": "skip"}}
    run_step("collect_source", ["--outdir", tmp_path], settings)
    split(
        [chat(f"{number}?", "A.") for number in range(20)],
        "--receipts",
        tmp_path / "collect_source.json",
        "--dropped",
        tmp_path / "collect_source.dropped.parquet",
    )
    made = described(tmp_path)
    assert "gone.csv is not there" in made["skipped_sources"]["gone"]
    assert made["sources"]["gone"]["train"] == 0
    assert [row["reason"] for row in rows(tmp_path / "dataset" / "dropped.parquet")] == ["source that cannot be read"]


def test_an_earlier_run_and_leaks_are_described(split: Split, tmp_path: Path) -> None:
    asked = [chat(f"what is the number that comes after {number} and before the one that follows it?", "so") for number in range(40)]
    before = split(asked)
    assert described(tmp_path)["previous"] is None
    (tmp_path / "dataset").rename(tmp_path / "data")
    leak = before["test"][0]["messages"][0]["content"]
    after = split([*asked, *texts(40), chat("Who?", f"He said: {leak}", split="train")], "--previous", tmp_path / "data")
    assert all(ids(before)[name] <= ids(after)[name] for name in NAMES)
    made = described(tmp_path)
    assert made["previous"]["kept"] == {"train": 32, "validation": 4, "test": 4}
    assert made["previous"]["new"] == {"train": 33, "validation": 4, "test": 4}
    assert made["leakage"]["train"]["test"] == 1
    assert "previous_dataset" not in made["settings"]
    assert {f"previous/{name}.parquet" for name in NAMES} <= set(receipt(tmp_path / "split_dataset.json")["inputs"])


def test_documents_in_several_splits_are_told(split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sections(document: str, count: int) -> list[dict[str, Any]]:
        return [{"type": "text", "text": f"{document} {number}", "meta": {"location": "x", "document_id": document}} for number in range(count)]

    split(sections("large", 100) + sections("small", 5))
    assert "documents in several splits: 1 of 2" in capsys.readouterr().out
    assert described(tmp_path)["documents"] == {"found": 2, "in_several_splits": 1}
    assert "1 of 2 documents and threads are in several splits" in (tmp_path / "dataset" / "README.md").read_text()
    split(texts(40))
    assert described(tmp_path)["documents"] == {"found": 0, "in_several_splits": 0}
