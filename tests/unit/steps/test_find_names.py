"""find_names and what follows from it: names of people are masked wherever they stand, in what is dropped and shown too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from name_finder import FIRST, LAST
from record_files import chat, receipt, rows, write_records

Prepare = Callable[..., list[dict[str, Any]]]
NAMES = (*FIRST, *LAST)


@pytest.fixture
def prepare(run_step: Any, tmp_path: Path, name_finder: Path) -> Prepare:
    """Find names in records, which a hub's model would do, and clean them, in shards of so many records."""
    (tmp_path / "fetched").mkdir()
    reference = {"id": "names", "kind": "path", "source": "./names", "revision": None}
    run_step("fetch_model", ["--path", name_finder, "--outdir", tmp_path / "fetched"], {"model": reference, "parameter": "names_model"})

    def run(records: list[dict[str, Any]], personal_data: str = "mask", shard: int = 1000, **cleaning: Any) -> list[dict[str, Any]]:
        groups = {"cleaning": cleaning, "personal_data": {"personal_data": personal_data, "names_model": "./names"}}
        kept = []
        for start in range(0, len(records), shard):
            path = write_records(tmp_path / "collected.parquet", records[start : start + shard])
            run_step("find_names", ["--records", path, "--model", tmp_path / "fetched/model", "--outdir", tmp_path], {})
            run_step("clean_records", ["--records", path, "--names", tmp_path / "names.parquet", "--outdir", tmp_path], groups)
            kept += rows(tmp_path / "cleaned.parquet")
        return kept

    return run


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": content, **more}


REPORT = "Nobody knows when the report of the year is due."
LETTER = "Please ask Ana Souza about the form. Thank you, Bruno. The letter from Leeds is signed by Ana Souza and Clara."


def test_names_are_masked_in_every_text_of_a_record(prepare: Prepare, tmp_path: Path) -> None:
    letter, talk, none = prepare([text(LETTER), chat("Please ask Eva about the form.", "The report of Eva is due. Thank you, Ana.", label="Eva"), text(REPORT)])
    assert letter["text"] == "Please ask [NAME_1] about the form. Thank you, [NAME_2]. The letter from Leeds is signed by [NAME_1] and [NAME_3]."
    assert [turn["content"] for turn in talk["messages"]] == ["Please ask [NAME_1] about the form.", "The report of [NAME_1] is due. Thank you, [NAME_2]."]
    assert talk["label"] == "[NAME_1]"
    assert none["text"] == REPORT
    assert receipt(tmp_path / "find_names.json")["counts"] == {"records": 3, "with_names": 2, "names": 5}
    assert receipt(tmp_path / "clean_records.json")["counts"]["personal_data"] == {"faq": {"name": 8}}


def test_nothing_but_the_names_file_has_them(prepare: Prepare, tmp_path: Path) -> None:
    prepare([text(LETTER), text(LETTER.replace("the", "thÃ©")), text(f"{LETTER} {LETTER}")], max_characters=150)
    assert len(rows(tmp_path / "clean_records.dropped.parquet")) == 1
    shown = json.dumps([rows(tmp_path / name) for name in ("cleaned.parquet", "clean_records.dropped.parquet")])
    shown += "".join((tmp_path / name).read_text() for name in ("clean_records.sample.jsonl", "clean_records.json", "find_names.json"))
    assert "[NAME_1]" in shown
    assert [name for name in NAMES if name in shown] == []


def test_each_action(prepare: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = [text("Thank you, Ana."), text("Please ask Ana about the form."), text("Write to ana@x.org.")]
    kept = [record["text"] for record in prepare(given, "mask,name=keep")]
    assert kept == ["Thank you, Ana.", "Please ask Ana about the form.", "Write to [EMAIL_1]."]
    assert receipt(tmp_path / "clean_records.json")["counts"]["personal_data"] == {"faq": {"email": 1, "name": 2}}
    assert [record["text"] for record in prepare(given, "mask,name=drop")] == ["Write to [EMAIL_1]."]
    assert [row["reason"] for row in rows(tmp_path / "clean_records.dropped.parquet")] == ["personal data: name"] * 2
    monkeypatch.setenv("LLAMAFLOW_HASH_KEY", "sixteen letters.")
    thanks, question, _ = (record["text"] for record in prepare(given, "mask,name=hash"))
    assert thanks.removeprefix("Thank you, ").rstrip(".") == question.split(" ask ")[1].removesuffix(" about the form.")


@pytest.mark.parametrize("shard", [7, 29])
def test_the_result_does_not_depend_on_the_shards(prepare: Prepare, shard: int) -> None:
    records = [text(f"Thank you, {first} {last}. " * (1 + number % 9), meta={"location": f"a:{number}"}) for number, (first, last) in enumerate(_pairs())]
    assert prepare(records, shard=shard, quality_filter="none") == prepare(records, quality_filter="none")


def _pairs() -> list[tuple[str, str]]:
    return [(first, last) for first in FIRST for last in LAST]


def test_cleaning_does_not_go_on_without_the_names(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_records(tmp_path / "collected.parquet", [text(LETTER)])
    with pytest.raises(SystemExit) as stopped:
        run_step("clean_records", ["--records", path, "--outdir", tmp_path], {"personal_data": {"names_model": "owner/names"}})
    assert stopped.value.code == 64
    assert "--names_model: names are to be found in these records, but --names" in capsys.readouterr().err
    assert not (tmp_path / "cleaned.parquet").exists()


def test_the_parameter_is_named_where_the_model_is_wrong(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = {"id": "names", "kind": "path", "source": "./names", "revision": None}
    with pytest.raises(SystemExit) as stopped:
        run_step("fetch_model", ["--path", tmp_path / "names", "--outdir", tmp_path], {"model": reference, "parameter": "names_model"})
    assert stopped.value.code == 64
    assert "--names_model: there is no" in capsys.readouterr().err
