"""What the report tells of the data: what was kept and dropped, splits, personal data, lengths, tokenizers, records to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_page import HOSTILE, Report, RunStep


@pytest.fixture
def report(run_step: RunStep, tmp_path: Path) -> Report:
    return Report(run_step, tmp_path)


def test_the_funnel_adds_up_the_steps(report: Report) -> None:
    report.grid()
    section = report.write()["data_funnel"]
    names = {key: value["name"] for key, value in section["categories"].items()}
    assert {names[key]: count for key, count in section["data"]["handbook"].items()} == {"Kept": 172, "Dropped: exact duplicate": 8, "Dropped: too short": 5}


def test_the_funnel_names_skipped_sources(report: Report) -> None:
    report.grid()
    report.dataset["skipped_sources"] = {"wiki": "wiki.csv <is> not there."}
    text = report.write()["data_funnel"]["description"]
    assert "wiki could not be read and was skipped" in text
    assert "<is>" not in text


def test_the_funnel_warns_of_licences(report: Report) -> None:
    report.grid()
    assert "Mind the licence" not in report.write()["data_funnel"]["description"]
    report.dataset["licenses"] = {"mit": 5, "cc-by-nc-4.0": 3, "<b>own": 1}
    text = report.write()["data_funnel"]["description"]
    assert "cc-by-nc-4.0: commercial use is not allowed." in text
    assert "no licence that is known here" in text
    assert "<b>own" not in text


def test_the_splits_say_if_test_questions_were_given_for_training_too(report: Report) -> None:
    report.grid()
    assert "Mind that" not in report.write()["splits"]["description"]
    report.dataset["prompts_in_several_splits"] = 7
    report.dataset["documents"] = {"found": 9, "in_several_splits": 3}
    text = report.write()["splits"]["description"]
    assert "7 questions were given in several of these parts" in text
    assert "documents in several of these parts, 3 of 9" in text


def test_what_is_tested_and_what_was_learnt(report: Report) -> None:
    report.grid()
    report.dataset |= {"leakage": {"train": {"validation": 1, "test": 7}, "validation": {"test": 0}}, "previous": None, "benchmarks": None}
    section = report.write()["leakage"]
    assert section["data"] == {
        "train": {"records": 100, "in_validation": 1, "in_test": 7},
        "validation": {"records": 12, "in_test": 0},
        "test": {"records": 60},
    }
    assert {"kept", "new"} & section["headers"].keys() == set()
    counts = {name: {"train": 1, "validation": 2, "test": 3} for name in ("kept", "related", "moved", "new")}
    report.dataset["previous"] = counts | {"test_not_as_given": 4}
    report.dataset["benchmarks"] = {HOSTILE: {"questions": 1319, "dropped": 5, "test": 6}}
    section = report.write()["leakage"]
    assert section["data"]["test"] == {"records": 60, "kept": 3, "related": 3, "new": 3, "moved": 3}
    assert "4 records stay in the test although" in section["description"]
    assert "5 records with questions of" in section["description"]
    assert HOSTILE not in section["description"]


def test_personal_data_is_counted_by_source_and_type(report: Report) -> None:
    report.grid()
    assert "personal_data" not in report.write(), "there was none"
    report.dataset["personal_data"] = {"action": "mask,phone=keep", "found": {"handbook": {"email": 3, "phone": 1}, "tickets": {"email": 2}}}
    section = report.write()["personal_data"]
    assert section["data"] == {"handbook": {"email": 3, "phone": 1}, "tickets": {"email": 2}}
    assert section["description"].startswith("<p>6 pieces of personal data")
    assert {kind: header["description"] for kind, header in section["headers"].items()} == {
        "email": "What was found was masked",
        "phone": "What was found was left in the texts",
    }


def test_the_model_that_found_names_is_named(report: Report) -> None:
    report.grid()
    report.dataset["personal_data"] = {"action": "mask", "found": {"handbook": {"name": 3}}, "names_model": None}
    assert "Names of people are not looked for." in report.write()["personal_data"]["description"]
    report.dataset["personal_data"]["names_model"] = HOSTILE
    description = report.write()["personal_data"]["description"]
    assert "Names of people are those that the model" in description
    assert HOSTILE not in description


def test_what_a_model_wrote_and_what_it_took(report: Report) -> None:
    report.grid()
    usage = {"answers": 1500, "prompt_tokens": 90000, "completion_tokens": 4000, "without_usage": 0, "kept_answers": 0}
    made = {"step": "generate_records", "seconds": 1.0, "peak_memory_bytes": 1, "counts": {"texts": 1600, "usage": usage}}
    report.receipts += [made, made | {"counts": {"texts": 7, "usage": usage | {"answers": 2, "without_usage": 2, "kept_answers": 5}}}]
    text = report.write()["data_funnel"]["description"]
    assert "asked about 1,607 texts and gave 1,502 answers (180,000 prompt tokens and 8,000 completion tokens" in text
    assert "of 2 answers it did not tell); 5 were kept from earlier runs." in text


def tokenized(**more: Any) -> dict[str, Any]:
    fit = {"words": 900, "tokens_per_word": 1.5, "characters_per_token": 4.0, "unknown": 0.0, "fits": True, "warning": None}
    lengths = {"records": 100, "p50": 40, "p95": 90, "max": 300, "longer": 0.02}
    counts = {
        "model": "tiny",
        "lengths": {"train": {"en": lengths}},
        "languages": {"en": fit, "ru": fit | {"tokens_per_word": 6.0, "fits": False, "warning": "6.00 tokens a word"}},
    }
    return {"step": "tokenize_dataset", "seconds": 1.0, "peak_memory_bytes": 1, "settings": {"max_length": 256}, "counts": counts | more}


def test_a_tokenizer_that_fits_a_language_badly_is_warned_of(report: Report) -> None:
    report.grid()
    report.receipts.append(tokenized())
    section = report.write()["tokenizers"]
    assert {name: row["fit"] for name, row in section["data"].items()} == {"tiny, 256 tokens: en": "well", "tiny, 256 tokens: ru": "badly"}
    assert section["data"]["tiny, 256 tokens: en"]["longer"] == 2
    assert "<b>tiny fits ru badly</b>: 6.00 tokens a word." in section["description"]


def test_shares_of_a_mixture_have_their_unit(report: Report) -> None:
    report.grid()
    shares = {"handbook": {"weight": 1, "records": 100, "times": 1.0, "share": 1.0}}
    for unit, tokenizer, words in (("bytes", HOSTILE, "in bytes: handbook 100%"), ("tokens", "tiny", "in tokens of tiny: handbook 100%")):
        report.dataset |= {"mixture": {"unit": unit, "sources": shares}, "tokenizer": tokenizer}
        assert words in report.write()["splits"]["description"]
    report.dataset["tokenizer"] = HOSTILE
    assert HOSTILE not in report.write()["splits"]["description"]


def test_lengths_are_shares_of_each_split(report: Report) -> None:
    report.grid()
    report.dataset["characters"] = {"train": {"p50": 70, "histogram": [[64, 95, 3], [96, 127, 1]]}, "test": {"p50": 100, "histogram": [[96, 127, 5]]}}
    assert report.write()["text_lengths"]["data"] == {"Train": {"64 to 95": 75, "96 to 127": 25}, "Test": {"64 to 95": 0, "96 to 127": 100}}


def sample(text: str = "user: Who?") -> dict[str, Any]:
    kept = [{"id": "0", "source": "faq", "changed": True, "before": f"{text} \x00", "after": f"{text} [EMAIL_1]"}]
    kept.append({"id": "1", "source": "faq", "changed": False, "before": "same", "after": "same"})
    return {"kept": kept, "dropped": [{"source": "faq", "location": text, "step": "clean_records", "reason": text, "record": text}]}


def test_records_are_shown_before_and_after(report: Report) -> None:
    report.grid()
    report.dataset["sample"] = sample("user: Who?\nassistant: I")
    table = report.write()["samples"]["data"]
    assert '<td>user: Who?<br>assistant: I <span class="lf-cut">\ufffd</span></td>' in table
    assert '<span class="lf-hit"><span class="lf-mask">[EMAIL_1]</span></span></td>' in table
    assert table.count("the same") == 1


@pytest.mark.slow
def test_multiqc_takes_what_is_told_of_the_data(report: Report) -> None:
    report.grid()
    report.dataset |= {"sample": sample(HOSTILE), "characters": {"train": {"p50": 70, "histogram": [[64, 95, 3]]}}}
    report.receipts += [
        tokenized(model=HOSTILE),
        {"step": "deduplicate_records", "seconds": 1, "peak_memory_bytes": 1, "counts": {"clusters": {"2": 3, "3 to 4": 1}}},
    ]
    sections = report.write()
    assert {"text_lengths", "clusters", "tokenizers", "samples"} < sections.keys()
    page = report.multiqc()
    assert "<img src=x" not in page
    assert "alert(1)</script>" not in page
