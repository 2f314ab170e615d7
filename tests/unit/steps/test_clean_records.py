"""clean_records: text is repaired, records that cannot teach are dropped with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_files import chat, receipt, rows, write_records
from tokenizers import Tokenizer

from llamaflow.records import content_id, texts_of

Clean = Callable[..., list[dict[str, Any]]]
USER, ASSISTANT, SYSTEM = ({"role": role, "content": f"I am the {role}."} for role in ("user", "assistant", "system"))


@pytest.fixture
def clean(run_step: Any, tmp_path: Path) -> Clean:
    """Clean records and return what is left."""

    def run(records: list[dict[str, Any]], *more: Any, personal_data: str = "mask", **cleaning: Any) -> list[dict[str, Any]]:
        path = write_records(tmp_path / "collected.parquet", records)
        groups = {"cleaning": cleaning, "personal_data": {"personal_data": personal_data}}
        run_step("clean_records", ["--records", path, *more, "--outdir", tmp_path], groups)
        return rows(tmp_path / "cleaned.parquet")

    return run


def test_repairs_every_field_and_gives_a_new_id(clean: Clean, tmp_path: Path) -> None:
    preference = {"type": "preference", "prompt": [USER], "chosen": [{"role": "assistant", "content": "Ã© bom \n"}], "rejected": [ASSISTANT]}
    text, talk, choice = clean([{"type": "text", "text": " FÃ©rias\r\n"}, chat("A ?\x00", "B\n\n\n\n\nC"), preference])
    assert text["text"] == "Férias"
    assert [turn["content"] for turn in talk["messages"]] == ["A ?", "B\n\n\nC"]
    assert choice["chosen"][0]["content"] == "é bom"
    assert all(record["id"] == content_id(record) for record in (text, talk, choice))
    assert receipt(tmp_path / "clean_records.json")["counts"] == {
        "records": 3,
        "changed": 3,
        "dropped": {},
        "sources": {"faq": {"kept": 3, "dropped": {}}},
        "faults": {},
        "personal_data": {},
    }


def test_label_stays_equal_to_the_answer(clean: Clean) -> None:
    (record,) = clean([chat("Buy!", "lÃ¡ ", label="lÃ¡ ")])
    assert record["label"] == record["messages"][1]["content"] == "lá"


def test_system_prompt_is_put_before_conversations_without_one(clean: Clean) -> None:
    prompt = {"role": "system", "content": "Be kind."}
    preference = {"type": "preference", "prompt": [USER], "chosen": [ASSISTANT], "rejected": [{**ASSISTANT, "content": "no"}]}
    empty = {"type": "chat", "messages": [{"role": "system", "content": " "}, USER, ASSISTANT]}
    own = {"type": "chat", "messages": [SYSTEM, USER, ASSISTANT]}
    records = clean([chat("A?", "B."), preference, empty, own, {"type": "text", "text": "plain"}], system_prompt="Be kind.")
    assert [(record["messages"] or record["prompt"] or [None])[0] for record in records] == [prompt, prompt, prompt, SYSTEM, None]
    assert records[0]["id"] == content_id(records[0])


def conversation(*turns: dict[str, str]) -> dict[str, Any]:
    return {"type": "chat", "messages": list(turns)}


def preference(prompt: list[dict[str, str]], chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> dict[str, Any]:
    return {"type": "preference", "prompt": prompt, "chosen": chosen, "rejected": rejected}


OTHER = {"role": "assistant", "content": "Something else."}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"type": "text", "text": " \x00\n"}, "empty"),
        (chat("", " "), "empty"),
        ({"type": "text", "text": "short"}, "too short"),
        ({"type": "text", "text": "long " * 50}, "too long"),
        (conversation(USER), "no assistant turn"),
        (conversation(SYSTEM, ASSISTANT), "no user turn"),
        (conversation(ASSISTANT, USER), "role order"),
        (conversation(USER, USER, ASSISTANT), "role order"),
        (conversation(USER, ASSISTANT, USER), "role order"),
        (conversation(USER, SYSTEM, ASSISTANT), "role order"),
        (conversation(USER, {**ASSISTANT, "content": "\t"}), "empty turn"),
        (conversation(USER, {"role": "tool", "content": "x"}, ASSISTANT), "unknown role"),
        (preference([USER], [ASSISTANT], [{**ASSISTANT, "content": "i am the assistant"}]), None),
        (preference([USER], [ASSISTANT], [{**ASSISTANT, "content": " I am the assistant.\n"}]), "chosen equals rejected"),
        (preference([USER], [ASSISTANT], [USER]), "no assistant turn"),
        (preference([], [USER, ASSISTANT], [USER, OTHER]), "role order"),
        (preference([USER, ASSISTANT], [], []), "role order"),
        (conversation(SYSTEM, USER, ASSISTANT, USER, ASSISTANT), None),
        (preference([SYSTEM, USER], [ASSISTANT], [OTHER]), None),
        (preference([USER], [ASSISTANT, USER, ASSISTANT], [OTHER]), None),
    ],
)
def test_rules(clean: Clean, tmp_path: Path, record: dict[str, Any], reason: str | None) -> None:
    good = {"type": "text", "text": "good enough"}
    left = clean([good, record], min_characters=9, max_characters=200)
    dropped = rows(tmp_path / "clean_records.dropped.parquet")
    assert len(left) == (2 if reason is None else 1)
    assert [(row["step"], row["reason"], row["location"]) for row in dropped] == ([] if reason is None else [("clean_records", reason, "faq.csv:2")])


def test_lengths_do_not_count_the_added_system_prompt(clean: Clean) -> None:
    assert len(clean([chat("A?", "B.")], system_prompt="x" * 100, max_characters=4)) == 1


@pytest.mark.parametrize(
    "record",
    [
        {"type": "text", "text": "The committee meets on Thursday. 数字 0123456789"},
        conversation(SYSTEM, USER, ASSISTANT),
        preference([USER], [ASSISTANT], [OTHER]),
    ],
)
def test_bounds_in_tokens_count_all_texts(clean: Clean, token_model: Path, tmp_path: Path, record: dict[str, Any]) -> None:
    def reasons(**bounds: int) -> list[str]:
        clean([record], "--tokenizer", token_model, system_prompt="x" * 100, **bounds)
        return [row["reason"] for row in rows(tmp_path / "clean_records.dropped.parquet")]

    tokenizer = Tokenizer.from_file(str(token_model / "tokenizer.json"))
    count = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts_of(record))
    assert reasons(min_tokens=count, max_tokens=count) == []
    assert reasons(min_tokens=count + 1) == ["too few tokens"]
    assert reasons(max_tokens=count - 1) == ["too many tokens"]
    made = receipt(tmp_path / "clean_records.json")
    assert made["counts"]["dropped"] == {"too many tokens": 1}
    assert not made["counts"]["faults"], "that is the user's choice, no fault of the source"
    assert made["inputs"]["tokenizer"] == receipt(token_model / "model.json")["tokenizer_sha256"]


def test_bounds_in_tokens_need_what_counts_them(clean: Clean, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        clean([conversation(USER, ASSISTANT)], max_tokens=9)
    assert stopped.value.code == 64
    assert "--min_tokens and --max_tokens: tokens are to be counted, but --tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "cleaned.parquet").exists()


def test_personal_data_is_masked_everywhere_and_counted_by_source(clean: Clean, tmp_path: Path) -> None:
    talk = chat("I am ana@x.org, who are you?", "bob@x.org; hello ana@x.org.")
    (record, page) = clean(
        [talk, {"type": "text", "text": "Ligue (11) 91234-5678.", "source": "page"}, {"type": "text", "text": "x" * 60 + " ana@x.org"}],
        max_characters=60,
    )
    assert [turn["content"] for turn in record["messages"]] == ["I am [EMAIL_1], who are you?", "[EMAIL_2]; hello [EMAIL_1]."]
    assert page["text"] == "Ligue [PHONE_1]."
    assert receipt(tmp_path / "clean_records.json")["counts"]["personal_data"]["page"] == {"phone": 1}
    assert b"@x.org" not in b"".join(file.read_bytes() for file in tmp_path.glob("clean*"))


def test_records_that_may_not_be_there_are_no_faults_of_the_source(clean: Clean, tmp_path: Path) -> None:
    shout = {"type": "text", "text": "We sell good shoes to you. " * 30}
    records = [
        {"type": "text", "text": "CPF 529.982.247-25"},
        shout,
        chat("Why?", shout["text"]),
        {"type": "text", "text": "Ein Satz in einer anderen Sprache als gefragt."},
    ]
    kept = clean([*records, {"type": "text", "text": "A sentence in the language that was asked for."}], personal_data="keep,cpf=drop", languages="en")
    assert [record["meta"]["language"] for record in kept] == ["en"]
    dropped = rows(tmp_path / "clean_records.dropped.parquet")
    again = "quality: mostly the same words again"
    assert [row["reason"] for row in dropped] == ["personal data: cpf", again, again, "language: de"]
    assert "529" not in dropped[0]["record"]


def test_hashes_need_a_key_and_are_the_same_in_all_records(clean: Clean, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"type": "text", "text": f"{greeting} ana@x.org"} for greeting in ("Dear", "Hello")]
    monkeypatch.delenv("LLAMAFLOW_HASH_KEY", raising=False)
    with pytest.raises(SystemExit) as stopped:
        clean(records, personal_data="hash")
    assert stopped.value.code == 64
    assert "LLAMAFLOW_HASH_KEY" in capsys.readouterr().err
    monkeypatch.setenv("LLAMAFLOW_HASH_KEY", "sixteen letters.")
    one, other = (record["text"].split(" ", 1)[1] for record in clean(records, personal_data="hash"))
    assert one == other
    assert one.startswith("[EMAIL ")
