"""Documents are drawn as wholes, or in parts that follow each other."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from record_files import chat, rows, write_records

from llamaflow.data_params import Splitting
from llamaflow.identities import NOTHING
from llamaflow.previous import NOT_GIVEN, read_previous
from llamaflow.records import SPLITS
from llamaflow.splits import draw, read_index, straddling
from llamaflow.together import joined, with_documents

Records = list[dict[str, Any]]


def section(document: str | None, number: int, source: str = "manuals", **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": f"{document} {number}", "source": source, "meta": {"location": f"{document}:{number}", "document_id": document, **more}}


def manual(name: str, sections: int, source: str = "manuals") -> Records:
    return [section(name, number, source) for number in range(sections)]


def places(records: Records, folder: Path, previous: Path | None = None, **splitting: Any) -> list[str]:
    """The split of each record; they are written into the folder too."""
    rules = Splitting(**splitting)
    index = read_index(write_records(folder / "all.parquet", records), rules, read_previous(previous, rules.split_seed) if previous else None)
    found = [SPLITS[place] for place in draw(index)]
    for split in SPLITS:
        write_records(folder / f"{split}.parquet", [record for record, place in zip(rows(folder / "all.parquet"), found, strict=True) if place == split])
    return found


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=8, max_size=40), st.integers(0, 40), st.integers(0, 99), st.floats(0.05, 0.3))
def test_no_document_that_a_split_can_hold_is_in_two(sizes: list[int], loose: int, seed: int, fraction: float) -> None:
    records = [record for number, size in enumerate(sizes) for record in manual(f"m{number}", size)]
    records += [section(None, number) for number in range(loose)]
    with TemporaryDirectory() as folder:
        found = places(records, Path(folder), split_seed=seed, test_fraction=fraction, validation_fraction=fraction)
    room = max(1, int(len(records) * fraction + 0.5))
    where: dict[str, list[str]] = {}
    for record, place in zip(records, found, strict=True):
        where.setdefault(record["meta"]["document_id"], []).append(place)
    assert all(len(set(splits)) == 1 for name, splits in where.items() if name and len(splits) <= room)
    largest = max([size for size in sizes if size <= room] + [max(1, room // 4)])
    for split in ("validation", "test"):
        assert 0 <= int(len(records) * fraction + 0.5) - found.count(split) <= largest


def test_one_document_is_cut_into_parts_that_follow_each_other(tmp_path: Path) -> None:
    found = places(manual("the only one", 200), tmp_path)
    assert Counter(found) == {"train": 160, "validation": 20, "test": 20}
    assert all(len(set(found[start : start + 5])) == 1 for start in range(0, 200, 5)), "a quarter of a split each"
    assert sum(place == "test" and other != "test" for place, other in pairwise(found)) > 1, "not of one chapter"


def test_a_document_of_which_every_section_asks_something_else_in_many_documents(tmp_path: Path) -> None:
    """Documents that share a question are one whole, which is cut; the question still stays in one split."""
    made = [chat("What is this about?" if not number else f"{name} {number}?", f"{name} {number}") for name in "abcdefghij" for number in range(10)]
    records = [{**record, "meta": {"location": "x", "document_id": "abcdefghij"[number // 10]}} for number, record in enumerate(made)]
    found = places(records, tmp_path)
    assert Counter(found) == {"train": 80, "validation": 10, "test": 10}
    assert len({place for record, place in zip(records, found, strict=True) if "What" in record["messages"][0]["content"]}) == 1


def test_group_by_record_draws_each_section(tmp_path: Path) -> None:
    records = [record for number in range(20) for record in manual(f"m{number}", 5)]
    torn = {}
    for group_by in ("document", "record"):
        found = places(records, tmp_path, group_by=group_by)
        torn[group_by] = sum(len(set(found[start : start + 5])) > 1 for start in range(0, 100, 5))
        assert Counter(found) == {"train": 80, "validation": 10, "test": 10}
    assert torn["document"] == 0 < torn["record"]


def test_documents_leave_the_draw_of_other_sources_alone(tmp_path: Path) -> None:
    faq = [chat(f"{number}?", "yes") for number in range(50)]
    alone = places(faq, tmp_path)
    assert places(faq + manual("m", 40), tmp_path)[:50] == alone


def test_names_count_within_their_source(tmp_path: Path) -> None:
    records = [record for number in range(30) for record in manual("README.md", 4, source=f"s{number}")]
    index = read_index(write_records(tmp_path / "all.parquet", records), Splitting())
    assert len(np.unique(index.documents)) == 30


def test_a_document_of_an_earlier_run_is_followed_if_it_was_in_one_split(tmp_path: Path) -> None:
    small = [record for number in range(20) for record in manual(f"m{number}", 5)]
    large = manual("large", 100, source="large")
    (tmp_path / "old").mkdir()
    before = places(small + large, tmp_path / "old")
    home = {f"m{number}": before[5 * number] for number in range(20)}
    new = [section(f"m{number}", 99) for number in range(20)] + [section("large", 100 + number, source="large") for number in range(100)]
    edition = small[:50] + large + new  # of half of the manuals nothing but the new section is left
    found = places(edition, tmp_path, tmp_path / "old", split_seed=7)
    assert found[:150] == before[:50] + before[100:]
    assert found[150:170] == [home[f"m{number}"] for number in range(20)]
    assert Counter(found[50:150] + found[170:]) == {"train": 160, "validation": 20, "test": 20}, "the new half is drawn by its share"
    assert len([*groupby(found[170:])]) < 20, "in parts"


def test_what_is_kept_instead_of_an_earlier_record_takes_its_split(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    first = [section(None, number) for number in range(60)]
    before = places(first, tmp_path / "old")
    ids = [record["id"] for record in rows(tmp_path / "old" / "all.parquet")]
    mended = [section(None, 100 + number, replaces=identity) for number, identity in enumerate(ids)]
    assert places(mended + first[:1], tmp_path, tmp_path / "old", split_seed=7)[:60] == before


def test_records_that_stay_do_not_draw_a_divided_document_after_them() -> None:
    groups, documents = np.arange(1, 11, dtype=np.uint64), np.full(10, 7, dtype=np.uint64)
    fixed = np.full(10, NOT_GIVEN, dtype=np.int8)
    fixed[:2] = 0, 2
    wholes = with_documents(groups, documents, fixed, np.full(10, 100))
    assert len(set(wholes[:2])) == 2
    assert len(set(wholes[2:])) == 1
    assert not set(wholes[:2]) & set(wholes[2:])
    fixed[1] = 0
    assert len(set(with_documents(groups, documents, fixed, np.full(10, 1)))) == 1, "it was in one split, and is followed there"
    assert (with_documents(groups, np.full(10, NOTHING, dtype=np.uint64), fixed, np.full(10, 1)) == groups).all()


def test_straddling_documents_are_counted(tmp_path: Path) -> None:
    index = read_index(write_records(tmp_path / "all.parquet", manual("large", 100) + manual("small", 5) + [section(None, 1)]), Splitting())
    assert straddling(index.documents, draw(index)) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 20)), min_size=1, max_size=60))
def test_whatever_a_chain_leads_to_is_one_group(pairs: list[tuple[int, int]]) -> None:
    groups, keys = (np.array(numbers, dtype=np.uint64) for numbers in zip(*pairs, strict=True))
    found = joined(groups, keys)
    sets: list[set[str]] = []
    for group, key in pairs:
        names = {f"g{group}"} | ({f"k{key}"} if key else set())
        touched = [known for known in sets if known & names]
        sets = [known for known in sets if known not in touched] + [names.union(*touched)]
    place = [next(number for number, known in enumerate(sets) if f"g{group}" in known) for group, _ in pairs]
    assert len({*zip(place, found.tolist(), strict=True)}) == len(set(place)) == len(set(found.tolist()))


def test_a_chain_of_a_hundred_thousand() -> None:
    """Each shares a question with the one before and a person with the one after."""
    numbers = np.random.default_rng(0).permutation(100_000).astype(np.uint64)
    assert len(set(joined(np.repeat(numbers, 2)[1:-1], np.repeat(np.arange(1, 100_000, dtype=np.uint64), 2)))) == 1
