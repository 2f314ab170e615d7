"""split_dataset: seeded, stratified, without leaks, and described."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_files import NAMES, Split, chat, described, ids, receipt, rows, texts, write_records

from llamaflow.records import DroppedWriter
from llamaflow.tokencount import TokenCounter


def test_fractions(split: Split) -> None:
    assert {name: len(records) for name, records in split(texts(100)).items()} == {"train": 80, "validation": 10, "test": 10}


def test_seed_decides(split: Split) -> None:
    first, again, other = ids(split(texts(50))), ids(split(texts(50))), ids(split(texts(50), split_seed=7))
    assert first == again
    assert first != other


def test_content_decides_not_order(split: Split, tmp_path: Path) -> None:
    # sizes that the fractions do not divide, so that the order of the strata would show
    records = texts(44) + texts(37, "b") + [chat(f"{number}?", "yes", source=source) for number in range(33) for source in "cd"]
    first, first_description = ids(split(records)), described(tmp_path)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert ids(split(records)) == first
        assert described(tmp_path) == first_description


def test_digest_tells_content_and_split(split: Split, tmp_path: Path) -> None:
    digests = set()
    for records, seed in ((texts(40), 42), (texts(41), 42), (texts(40), 43)):
        split(records, split_seed=seed)
        digests.add(described(tmp_path)["sha256"])
    assert len(digests) == 3


def test_digest_tells_the_splits_apart(split: Split, tmp_path: Path) -> None:
    records = [{**record, "split": NAMES[number % 3]} for number, record in enumerate(texts(9))]
    split(records)
    first = described(tmp_path)["sha256"]
    split([{**record, "split": NAMES[(number + 1) % 3]} for number, record in enumerate(texts(9))])
    assert described(tmp_path)["sha256"] != first


LABELS = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=LABELS, fractions=st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45)), by=st.sampled_from(["source", "label"]), seed=st.integers(0, 99))
def test_shares_hold_in_every_stratum(split: Split, sizes: list[int], fractions: tuple[float, float], by: str, seed: int) -> None:
    records = [record for number, size in enumerate(sizes) for record in texts(size, f"s{number}", label=f"l{number}")]
    records += [{"type": "text", "text": f"given {name}", "source": "given", "split": name} for name in NAMES]  # no split is empty
    splits = split(records, validation_fraction=fractions[0], test_fraction=fractions[1], stratify_by=by, split_seed=seed)
    found = ids(splits)
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == len(records)
    for name, fraction in zip(NAMES[1:], fractions, strict=True):
        drawn = Counter(record["source"] for record in splits[name])
        for number, size in enumerate(sizes):
            assert abs(drawn[f"s{number}"] - fraction * size) <= 1
        assert abs(sum(drawn.values()) - 1 - fraction * sum(sizes)) <= 2


def test_many_small_strata_give_test_records_too(split: Split) -> None:
    records = [record for number in range(100) for record in texts(4, label=f"l{number}", source=f"s{number}")]
    assert {name: len(found) for name, found in split(records, stratify_by="label").items()} == {"train": 320, "validation": 40, "test": 40}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(st.integers(1, 5), min_size=30, max_size=60), seed=st.integers(0, 99))
def test_equal_prompts_stay_together(split: Split, answers: list[int], seed: int) -> None:
    records = [chat(("Q " if answer % 2 else "q  ") + str(number), f"answer {answer}") for number, count in enumerate(answers) for answer in range(count)]
    splits = split(records, split_seed=seed)
    prompts = [{record["messages"][0]["content"].lower().replace("  ", " ") for record in found} for found in splits.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == len(answers)
    for name in NAMES[1:]:
        assert abs(len(splits[name]) - 0.1 * len(records)) <= 3


def test_prompts_of_chats_and_preferences_stay_together(split: Split) -> None:
    def preference(number: int) -> dict[str, Any]:
        turns = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
        return {"type": "preference", "source": "b", "prompt": [{"role": "user", "content": f"{number}?"}], **turns}

    splits = split([chat(f"{number}?", "yes") for number in range(40)] + [preference(number) for number in range(40)])
    for found in splits.values():
        assert {record["messages"][0]["content"] for record in found if record["messages"]} == {
            record["prompt"][0]["content"] for record in found if record["prompt"]
        }


def test_given_splits_are_kept_and_not_drawn_again(split: Split) -> None:
    records = texts(40) + texts(5, "exam", split="test") + texts(5, "dev", split="validation") + texts(5, "book", split="train")
    own_test = [{**record, "split": "test"} for record in texts(3, "own")] + [{**record, "text": f"free {record['text']}"} for record in texts(20, "own")]
    splits = split(records + own_test)
    found = {name: Counter(record["source"] for record in records) for name, records in splits.items()}
    assert found["test"] == {"exam": 5, "faq": 4, "own": 3}
    assert found["validation"] == {"dev": 5, "faq": 4, "own": 2}
    assert found["train"] == {"book": 5, "faq": 32, "own": 18}


def test_validation_is_drawn_from_given_train_records_if_there_is_no_other(split: Split) -> None:
    splits = split(texts(40, "book", split="train") + texts(10, "exam", split="test"))
    assert {name: Counter(record["source"] for record in found) for name, found in splits.items()} == {
        "train": {"book": 36},
        "validation": {"book": 4},
        "test": {"exam": 10},
    }


def test_given_train_records_never_become_test_records(split: Split, tmp_path: Path) -> None:
    train = [chat(f"{number}?", "yes", split="train") for number in range(50)]
    test = [chat(f"{number}?", "no", split="test") for number in range(10)]
    free = [chat(f"{number}?", "maybe") for number in range(100)]
    splits = split(train + test + free)
    assert "train" not in {record["split"] for record in splits["test"]}
    assert {record["messages"][1]["content"] for record in splits["validation"]} <= {"yes", "maybe"}
    assert described(tmp_path)["prompts_in_several_splits"] == 10
    # a free record whose prompt was given as test follows it there, the prompts of train records stay out of it
    assert {record["messages"][0]["content"] for record in splits["test"]} & {f"{number}?" for number in range(10, 50)} == set()
    assert {f"{number}?" for number in range(10)} <= {record["messages"][0]["content"] for record in splits["test"] if record["split"] is None}


@pytest.mark.parametrize(
    ("records", "splitting", "empty"),
    [
        (texts(2), {}, "validation"),
        ([chat("always?", f"{number}") for number in range(50)], {}, "validation"),
        (texts(50, split="train"), {}, "test"),
        (texts(50, split="test"), {}, "train"),
        (texts(20), {"validation_fraction": 0.01}, "validation"),
    ],
)
def test_empty_split(split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str], records: list[dict[str, Any]], splitting: Any, empty: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        split(records, **splitting)
    assert stopped.value.code == 65
    message = capsys.readouterr().err
    assert f"the split {empty!r} would be empty" in message
    assert f"--{'test' if empty == 'test' else 'validation'}_fraction" in message
    assert not (tmp_path / "dataset").exists()


def test_dropped_writer_takes_broken_unicode(tmp_path: Path) -> None:
    with DroppedWriter(tmp_path / "dropped.parquet", "step") as writer:
        writer.drop("faq", "a:1", "broken Unicode", {"text": "half \ud800"})
    assert rows(tmp_path / "dropped.parquet")[0]["record"] == '{"text": "half ?"}'


def test_what_one_person_said_stays_together(split: Split) -> None:
    records = [chat(f"question {number}?", f"answer {number}", meta={"subject_id": f"p{number % 20}", "location": "x"}) for number in range(200)]
    records += [chat(f"question {number}?", "another", meta={"location": "x"}) for number in range(0, 200, 20)]  # by their prompts they belong to p0
    splits = split(records)
    places = {name: {record["meta"]["subject_id"] for record in part} - {None} for name, part in splits.items()}
    assert sum(map(len, places.values())) == 20, "nobody in two splits"
    assert all(places.values())
    home = {name for name, part in splits.items() if any(turn["content"] == "another" for record in part for turn in record["messages"])}
    assert home == {name for name, people in places.items() if "p0" in people}


def test_what_could_not_be_read_is_masked_too(split: Split, tmp_path: Path) -> None:
    with DroppedWriter(tmp_path / "collect_source.dropped.parquet", "collect_source") as dropped:
        dropped.drop("faq", "faq.csv:1", "not valid JSON", '{"mail": "ana@x.org"')
    split(texts(50), "--dropped", tmp_path / "collect_source.dropped.parquet")
    (row,) = rows(tmp_path / "dataset" / "dropped.parquet")
    assert row["record"] == '{"mail": "[EMAIL_1]"'


def test_nothing_of_what_could_not_be_read_is_written_where_names_are_to_go(split: Split, run_step: Any, tmp_path: Path) -> None:
    for step in ("collect_source", "generate_records"):
        with DroppedWriter(tmp_path / f"{step}.dropped.parquet", step) as dropped:
            dropped.drop("faq", "faq.csv:1", "not usable", {"said": "Ana: ana@x.org", "subject_id": "7"})
    more = ["--dropped", *(tmp_path / f"{step}.dropped.parquet" for step in ("collect_source", "generate_records"))]
    path = write_records(tmp_path / "records.parquet", texts(50))
    masked = '{"said": "Ana: [EMAIL_1]", "subject_id": "7"}'
    for action, read in (("mask", ""), ("mask,name=keep", masked)):
        given = {"personal_data": {"personal_data": action, "names_model": "owner/names"}}
        run_step("split_dataset", ["--records", path, *more, "--outdir", tmp_path], given)
        left = rows(tmp_path / "dataset" / "dropped.parquet")
        assert [(row["record"], row["subject_id"]) for row in left] == [(read, "7"), (masked, "7")]


def test_nothing_is_written_of_people_to_be_erased(split: Split, tmp_path: Path) -> None:
    (tmp_path / "erase.txt").write_text("7\n")
    with DroppedWriter(tmp_path / "clean_records.dropped.parquet", "clean_records") as dropped:
        for subject in ("7", "8", None):
            dropped.drop("faq", "faq.csv:1", "too short", {"text": f"of {subject}", "meta": {"subject_id": subject}})
    with DroppedWriter(tmp_path / "collect_source.dropped.parquet", "collect_source") as dropped:
        dropped.drop("faq", "faq.csv:2", "unknown split", {"text": "of 7", "subject_id": 7})
    files = [tmp_path / f"{step}.dropped.parquet" for step in ("clean_records", "collect_source")]
    split(texts(50), "--dropped", *files, "--erase", tmp_path / "erase.txt")
    left = rows(tmp_path / "dataset" / "dropped.parquet")
    assert [row["subject_id"] for row in left] == [None, "8", None, None]
    assert ["of" in row["record"] for row in left] == [False, True, True, False]


def test_an_earlier_run_that_cannot_be_meant(split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split(texts(40))
    (tmp_path / "dataset").rename(tmp_path / "data")
    for damage, words in (
        (lambda: None, "none of its records is among those of this run"),
        (lambda: (tmp_path / "data" / "test.parquet").write_bytes(b"PAR1"), "test.parquet is missing or damaged"),
        (lambda: pq.write_table(pa.table({"id": ["a"]}), tmp_path / "data" / "train.parquet"), "has no column messages, meta, prompt, source, text, type"),
        (lambda: (tmp_path / "data" / "train.parquet").unlink(), "train.parquet is missing or damaged"),
    ):
        damage()
        with pytest.raises(SystemExit) as stopped:
            split(texts(40, "other"), "--previous", tmp_path / "data")
        assert stopped.value.code == 65
        assert words in capsys.readouterr().err


def test_sources_have_the_shares_of_their_weights(split: Split, tmp_path: Path) -> None:
    """All texts are equally long: the small source is repeated as often as is allowed, and the large one fills the rest."""
    records = texts(100, "x") + texts(10, "y", meta={"location": "y:1"})
    plain = split(records)
    mixed = split(records, weights={"x": 1, "y": 1})
    counts = Counter(record["source"] for record in mixed["train"])
    assert counts["y"] == 4 * sum(record["source"] == "y" for record in plain["train"])
    assert abs(len(mixed["train"]) - len(plain["train"])) <= 2
    assert (mixed["validation"], mixed["test"]) == (plain["validation"], plain["test"])
    made = described(tmp_path)["mixture"]
    assert made["unit"] == "bytes"
    assert made["sources"]["y"] == {"weight": 1, "records": 8, "times": 4.0, "share": pytest.approx(0.332)}
    assert described(tmp_path)["splits"]["train"] == len(mixed["train"])
    assert "| y | 1 | 8 | 4.0 | 33.2% |" in (tmp_path / "dataset" / "README.md").read_text()


def test_shares_in_tokens_are_others_than_in_bytes(split: Split, token_model: Path, tmp_path: Path) -> None:
    """Both sources have as many bytes, but the tokenizer knows the words of one only."""
    words, signs = "The employee must hand in the form to the office.", "数字零一二三四五六七八九十百千万"
    assert len(words) == 49
    assert len(signs.encode()) == 48
    records = [{"type": "text", "text": f"{number:03} {words}", "source": "words"} for number in range(200)]
    records += [{"type": "text", "text": f"{number:03}  {signs}", "source": "signs"} for number in range(200)]
    counter = TokenCounter(token_model)

    def shares(*more: Any) -> dict[str, float]:
        train = split(records, *more, weights={"words": 1, "signs": 1})["train"]
        sizes = dict.fromkeys(("words", "signs"), 0)
        for record, tokens in zip(train, counter([record["text"]] for record in train), strict=True):
            sizes[record["source"]] += tokens
        return {source: size / sum(sizes.values()) for source, size in sizes.items()}

    by_bytes = shares()
    assert {part["share"] for part in described(tmp_path)["mixture"]["sources"].values()} == {0.5}
    assert described(tmp_path)["tokenizer"] is None
    assert by_bytes["signs"] > 0.6
    by_tokens = shares("--tokenizer", token_model)
    assert by_tokens["words"] == pytest.approx(0.5, abs=0.01)
    made = described(tmp_path)
    assert (made["tokenizer"], made["mixture"]["unit"]) == ("words", "tokens")
    assert {source: part["share"] for source, part in made["mixture"]["sources"].items()} == pytest.approx(by_tokens, abs=1e-4)
    assert made["mixture"]["sources"]["words"]["times"] > 1 > made["mixture"]["sources"]["signs"]["times"]
    card = (tmp_path / "dataset" / "README.md").read_text()
    assert "shares are of tokens of words." in card
    assert "\ntokenizer: words\n" in card
    assert "hospital" not in card + (tmp_path / "dataset" / "dataset.json").read_text(), "where it lies is nobody's business"
    assert receipt(tmp_path / "split_dataset.json")["inputs"]["tokenizer"] == receipt(token_model / "model.json")["tokenizer_sha256"]


def test_a_source_of_weight_0_is_only_tested_on(split: Split) -> None:
    made = split(texts(20, "x") + texts(20, "y", meta={"location": "y:1"}), weights={"x": 1, "y": 0})
    assert {record["source"] for record in made["train"]} == {"x"}
    assert {record["source"] for record in made["test"]} == {"x", "y"}


def test_questions_generated_from_one_text_stay_together(split: Split) -> None:
    """They ask for the same thing in other words."""
    made = split([chat(f"{text} {number}?", "yes", meta={"location": f"a.pdf:{text}[{number}:9]"}) for text in range(30) for number in range(3)])
    texts_of = {name: {record["meta"]["location"].partition("[")[0] for record in records} for name, records in made.items()}
    assert sum(map(len, texts_of.values())) == 30
    assert {name: len(records) for name, records in made.items()} == {"train": 72, "validation": 9, "test": 9}


def test_a_conversation_of_somebody_to_be_erased_leaves_nothing_behind(split: Split, tmp_path: Path) -> None:
    (tmp_path / "erase.txt").write_text("bob@x.org\n")
    with DroppedWriter(tmp_path / "clean_records.dropped.parquet", "clean_records") as dropped:
        dropped.drop("mail", "box.mbox:1", "too short", {"messages": "Hello", "meta": {"subject_id": "ana@x.org\nbob@x.org"}})
    split(texts(50), "--dropped", tmp_path / "clean_records.dropped.parquet", "--erase", tmp_path / "erase.txt")
    (left,) = rows(tmp_path / "dataset" / "dropped.parquet")
    assert (left["subject_id"], left["record"]) == (None, "")


def test_no_records_at_all(split: Split, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        split([])
    assert stopped.value.code == 65
    assert "no record is left to train on" in capsys.readouterr().err
