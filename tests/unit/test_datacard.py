"""The data card and croissant.json, read by those for whom they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from record_files import rows

from llamaflow.cards import escaped, fenced
from llamaflow.datacard import public

Prepare = Callable[..., Path]
HOSTILE = "a|b](javascript:x) <img src=x> ```\n# no heading"
COLLECTION = {"collection": {"max_dropped_fraction": 0.5}}


@pytest.fixture
def prepare(run_step: Any, tmp_path: Path) -> Prepare:
    """All steps of the data on one source; returns dataset/."""

    def run(given: list[dict[str, Any]], source: dict[str, Any] | None = None, personal_data: str = "mask", erase: str = "nobody\n") -> Path:
        (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
        (tmp_path / "erase.txt").write_text(erase)
        personal = {"personal_data": {"personal_data": personal_data}}
        place, erased = ["--outdir", tmp_path], ["--erase", tmp_path / "erase.txt"]
        run_step("collect_source", ["--path", tmp_path / "faq.jsonl", *place], {**COLLECTION, "source": {"id": "faq", "path": "faq.jsonl"} | (source or {})})
        run_step("clean_records", ["--records", tmp_path / "collected.parquet", *place], COLLECTION | personal)
        run_step("deduplicate_records", ["--records", tmp_path / "cleaned.parquet", *erased, *place], {"deduplication": {"near_duplicate_threshold": 1}})
        steps = ("collect_source", "clean_records", "deduplicate_records")
        files = ["--receipts", *(tmp_path / f"{step}.json" for step in steps), "--dropped", *(tmp_path / f"{step}.dropped.parquet" for step in steps)]
        sample = ["--samples", tmp_path / "clean_records.sample.jsonl"]
        run_step(
            "split_dataset", ["--records", tmp_path / "deduplicated.parquet", *files, *sample, *erased, *place], personal | {"splitting": {"split_seed": 42}}
        )
        return tmp_path / "dataset"

    return run


def questions(count: int = 40) -> list[dict[str, Any]]:
    return [{"question": f"What is rule {number} of the house about?", "answer": f"Rule {number} is about room {number}."} for number in range(count)]


def described(dataset: Path) -> Any:
    return json.loads((dataset / "dataset.json").read_text())


@pytest.mark.slow
def test_the_directory_loads_as_a_data_set(prepare: Prepare, tmp_path: Path) -> None:
    from datasets import load_dataset

    dataset = prepare(questions(), {"license": "CC-BY-4.0"})
    loaded = load_dataset(str(dataset), cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in loaded.items()} == {"train": 32, "validation": 4, "test": 4}
    assert loaded["test"]["id"] == [row["id"] for row in rows(dataset / "test.parquet")]


def test_metadata_of_the_hub(prepare: Prepare) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(prepare(questions(), {"license": "CC-BY-4.0"}) / "README.md")
    assert card.data.license == ["cc-by-4.0"]
    assert card.data.language == ["en"]
    assert card.data.size_categories == ["n<1K"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what mlcroissant does with rdflib and pandas
def test_croissant_is_valid_and_its_records_can_be_read(prepare: Prepare) -> None:
    import mlcroissant

    dataset = prepare([*questions(), {"question": "Text?", "answer": "é"}], {"license": "CC-BY-4.0"})
    read = mlcroissant.Dataset(str(dataset / "croissant.json"))
    assert read.metadata.issues.errors == set()
    assert {warning.split('"')[1].rpartition("/")[2] for warning in read.metadata.issues.warnings} <= {"citeAs", "datePublished"}, "which we cannot know"
    for split in ("train", "validation", "test"):
        found = {record[f"{split}/id"].decode(): record for record in read.records(split)}
        given = {row["id"]: row for row in rows(dataset / f"{split}.parquet")}
        assert found.keys() == given.keys()
        for name, record in found.items():
            said = [{part.rpartition("/")[2]: text.decode() for part, text in turn.items()} for turn in record[f"{split}/messages"]]
            assert said == given[name]["messages"]
            assert record[f"{split}/meta"][f"{split}/meta/license"] == b"CC-BY-4.0"


def test_the_card_tells_of_sources_licences_and_what_was_dropped(prepare: Prepare) -> None:
    source = {"path": "https://ana@example.org/faq.jsonl?token=abc", "license": "CC-BY-NC-4.0"}
    card = (prepare([*questions(), questions()[0], {"question": " ", "answer": ""}], source) / "README.md").read_text()
    assert "https://example.org/faq.jsonl" in card
    assert "ana@" not in card
    assert "token" not in card
    assert "| CC-BY-NC-4.0 | non-commercial | 40 |" in card
    assert "> **Mind:** CC-BY-NC-4.0: commercial use is not allowed." in card
    assert r"| deduplicate\_records | faq | 40 | 1 | 1 exact duplicate |" in card
    assert "| train | " in card
    parameters = yaml.safe_load(card.rpartition("```yaml")[2].partition("```")[0])
    assert (parameters["personal_data"], parameters["near_duplicate_threshold"], parameters["split_seed"]) == ("mask", 1, 42)


def test_equal_data_has_an_equal_card(prepare: Prepare) -> None:
    first, second = ({file.name: file.read_bytes() for file in prepare(questions()).iterdir()} for _ in range(2))
    assert first == second
    assert {"README.md", "croissant.json", "dataset.json"} < first.keys()


def test_no_personal_data_is_shown_even_if_it_is_kept(prepare: Prepare) -> None:
    given = [{**row, "answer": f"Write to ana{number}@x.org" + f" or bob{number}@\x00y.org" * (number % 2)} for number, row in enumerate(questions())]
    dataset = prepare([*given, {"question": "Who? ana@z.org", "answer": ""}], personal_data="keep")
    text = (dataset / "README.md").read_text() + json.dumps(described(dataset), ensure_ascii=False)
    assert "@" not in text
    assert described(dataset)["sample"]["kept"]
    assert "ana0@x.org" in json.dumps([rows(dataset / f"{split}.parquet") for split in ("train", "validation", "test")]), "the data has them, as was asked"
    assert described(dataset)["sample"]["dropped"][0]["record"] == "user: Who? [EMAIL_1]\nassistant: "
    assert "| email | " in (dataset / "README.md").read_text()


def test_the_card_says_which_model_found_names(prepare: Prepare, tmp_path: Path, run_step: Any) -> None:
    dataset = prepare(questions())
    assert "Names of people were not looked for." in (dataset / "README.md").read_text()
    personal = {"names_model": "/home/ana/of_a_hospital/names"}
    receipts = ["--receipts", *(tmp_path / f"{step}.json" for step in ("collect_source", "clean_records"))]
    run_step("split_dataset", ["--records", tmp_path / "deduplicated.parquet", *receipts, "--outdir", tmp_path], {"personal_data": personal})
    card = (dataset / "README.md").read_text()
    assert "Names of people are those that the model names found; it misses some." in card
    assert "hospital" not in card + (dataset / "dataset.json").read_text()


def test_nothing_is_shown_of_people_to_be_erased(prepare: Prepare) -> None:
    given = [{**row, "subject_id": str(number % 2 or number)} for number, row in enumerate(questions(60))]
    dataset = prepare(given, erase="1\n")
    shown = described(dataset)["sample"]["kept"]
    assert shown
    assert all(int(entry["after"].split()[4]) % 2 == 0 for entry in shown)


def test_the_sample_shows_what_cleaning_changed(prepare: Prepare) -> None:
    given = [{**row, "answer": row["answer"] + (" FÃ©rias\x00" if number % 2 else "")} for number, row in enumerate(questions(100))]
    shown = described(prepare(given))["sample"]["kept"]
    assert [entry["changed"] for entry in shown] == [True] * 12 + [False] * 8
    for entry in shown:
        assert (entry["before"] != entry["after"]) == entry["changed"]
        assert ("Férias" in entry["after"]) == entry["changed"]


def test_what_users_write_is_no_markdown() -> None:
    assert escaped(HOSTILE) == r"a\|b\](javascript:x) \<img src=x\> \`\`\` \# no heading"
    assert fenced(HOSTILE) == f"````text\n{HOSTILE}\n````"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("data/faq.csv", "data/faq.csv"),
        ("/home/ana/faq.csv", "faq.csv"),
        ("postgresql://reader@db.example.org:5432/tickets", "postgresql://db.example.org:5432/tickets"),
        ("s3://bucket/a/faq.csv", "s3://bucket/a/faq.csv"),
        ("https://x.org/a.csv?X-Amz-Signature=abc#b", "https://x.org/a.csv"),
    ],
)
def test_origins_without_secrets(path: str, shown: str) -> None:
    assert public(path) == shown
