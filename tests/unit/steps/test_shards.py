"""A large source is cleaned in parts: the result is that of one piece, and a source that lost too many is refused as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_files import receipt, rows, write_records

Prepare = Callable[..., Path]
WORDS = "one two three four five six seven eight nine ten".split()  # noqa: SIM905
MIXED = [f"Call {WORDS[number % 10]} at mail{number}@x.org" if number % 3 else f"text {number % 7}" if number % 5 else "" for number in range(60)]


@pytest.fixture
def prepare(run_step: Any, tmp_path: Path) -> Prepare:
    """From a file of texts to the directory with deduplicated.parquet and dataset/."""

    def run(texts: list[str], records_per_shard: int, fraction: float = 1.0, erase: str | None = None) -> Path:
        place = tmp_path / str(records_per_shard)
        place.mkdir()
        (place / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        collection = {"collection": {"records_per_shard": records_per_shard, "max_dropped_fraction": fraction}}
        run_step("collect_source", ["--path", place / "a.jsonl", "--outdir", place], {"source": {"id": "a", "path": "a.jsonl"}, **collection})
        shards = sorted((place / "collected.parquet").iterdir())
        parts = [place / shard.stem for shard in shards]
        for shard, part in zip(shards, parts, strict=True):
            part.mkdir()
            run_step("clean_records", ["--records", shard, "--outdir", part], {})
        receipts = [part / "clean_records.json" for part in parts]
        run_step("deduplicate_records", ["--records", *(part / "cleaned.parquet" for part in parts), "--receipts", *receipts, "--outdir", place], collection)
        made = [place / "collect_source.json", *reversed(receipts), place / "deduplicate_records.json"]
        run_step("split_dataset", ["--records", place / "deduplicated.parquet", "--receipts", *made, "--outdir", place], {})
        return place

    return run


@pytest.mark.parametrize("records_per_shard", [1, 7, 59])
def test_the_result_does_not_depend_on_the_shards(prepare: Prepare, records_per_shard: int) -> None:
    whole, parted = prepare(MIXED, 1000), prepare(MIXED, records_per_shard)
    assert rows(parted / "deduplicated.parquet") == rows(whole / "deduplicated.parquet")
    assert receipt(parted / "dataset" / "dataset.json") == receipt(whole / "dataset" / "dataset.json")
    assert len(list((parted / "collected.parquet").iterdir())) == -(-60 // records_per_shard)


@pytest.mark.parametrize(("bad", "fraction", "stops"), [(1, 0.1, False), (2, 0.1, True), (2, 0.2, False)])
def test_max_dropped_fraction_is_of_the_whole_source(prepare: Prepare, capsys: pytest.CaptureFixture[str], bad: int, fraction: float, stops: bool) -> None:
    """All the bad ones lie in one shard."""
    texts = ["" if number < bad else f"text {WORDS[number]}" for number in range(10)]
    if not stops:
        assert len(rows(prepare(texts, 3, fraction) / "deduplicated.parquet")) == 10 - bad
        return
    with pytest.raises(SystemExit) as stopped:
        prepare(texts, 3, fraction)
    assert stopped.value.code == 65
    message = capsys.readouterr().err
    assert "source 'a': 2 of 10 records (20.0%)" in message
    assert "2 x empty" in message
    assert "a.jsonl:1: empty" in message


def test_nothing_left(prepare: Prepare, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        prepare(["", "", ""], 2)
    assert stopped.value.code == 65
    assert "all records were dropped: 3 x empty" in capsys.readouterr().err


def test_each_source_has_its_own_share(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is a tenth of all may be most of one."""
    small = [{"type": "text", "text": "" if number else "good", "source": "small"} for number in range(4)]
    large = [{"type": "text", "text": f"text {number}"} for number in range(90)]
    path = write_records(tmp_path / "collected.parquet", small + large)
    run_step("clean_records", ["--records", path, "--outdir", tmp_path], {})
    with pytest.raises(SystemExit):
        run_step("deduplicate_records", ["--records", tmp_path / "cleaned.parquet", "--receipts", tmp_path / "clean_records.json", "--outdir", tmp_path], {})
    assert "source 'small': 3 of 4 records (75.0%)" in capsys.readouterr().err
