"""check_params: everything that can be wrong is said before anything heavy runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import ROOT, json_of

from check_params import GROUPS_OF_STEPS

Check = Callable[..., dict[str, Any]]
VALUES = {"input": "data.jsonl", "outdir": "results", "models": "owner/tiny"}


@pytest.fixture
def check(run_step: Any, tmp_path: Path) -> Check:
    def run(*args: Any, **values: Any) -> dict[str, Any]:
        run_step("check_params", [*args, "--outdir", tmp_path], VALUES | values)
        found: dict[str, Any] = json_of(tmp_path / "params.json")
        return found

    return run


@pytest.fixture
def refused(check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*args: Any, **values: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            check(*args, **values)
        assert ended.value.code == 64
        assert not (tmp_path / "params.json").exists()
        return capsys.readouterr().err

    return run


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_each_step_gets_its_groups_and_its_code(check: Check) -> None:
    settings = check(min_characters=7, lora_r="8,16")["settings"]
    assert set(settings) == set(GROUPS_OF_STEPS)
    for step, groups in GROUPS_OF_STEPS.items():
        assert set(settings[step]) == {"code", *groups}
        assert len(settings[step]["code"]) == 16
    assert settings["clean_records"]["cleaning"]["min_characters"] == 7
    assert settings["plan_trials"]["grid"]["lora_r"] == [8, 16]


def test_a_change_reaches_only_the_steps_that_it_concerns(check: Check) -> None:
    def changed(**values: Any) -> set[str]:
        after = check(**values)["settings"]
        return {step for step in GROUPS_OF_STEPS if after[step] != before[step]}

    before = check()["settings"]
    assert changed(lora_r="8,16") == {"plan_trials"}
    assert changed(max_new_tokens=64) == {"evaluate_model", "rank_trials"}
    assert changed(release_name="other") == {"merge_model", "write_model_card", "publish_model"}
    assert changed(personal_data="mask,name=hash", names_model="owner/names") == {"clean_records", "generate_records", "split_dataset"}
    assert changed(max_tokens=512, tokenizer="owner/tiny") == {"clean_records", "generate_records"}
    assert changed(tokenizer="owner/tiny") == set(), "what counts is an input of those that count"
    assert changed(models="owner/tiny,owner/other") == set(), "a model more must not run the others again"


def test_a_single_data_file(check: Check) -> None:
    assert check(input="/data/my FAQ-v1.jsonl.gz")["sources"] == [{"id": "my_FAQ_v1", "path": "/data/my FAQ-v1.jsonl.gz"}]


def test_a_table_of_data(check: Check, tmp_path: Path) -> None:
    table = written(tmp_path, "faq.csv", "question,answer\na,b\n")
    assert check("--input", table, input="faq.csv")["sources"] == [{"id": "faq", "path": "faq.csv"}]


def test_a_samplesheet(check: Check, tmp_path: Path) -> None:
    sheet = written(tmp_path, "sheet.csv", "id,path,split\nfaq,faq.csv,\nmanual,https://host/manual.md,train\n")
    assert check("--input", sheet, input="sheet.csv")["sources"] == [
        {"id": "faq", "path": "faq.csv"},
        {"id": "manual", "path": "https://host/manual.md", "split": "train"},
    ]


def test_the_example_samplesheet(check: Check) -> None:
    sheet = ROOT / "assets/examples/samplesheet.csv"
    assert {source["id"] for source in check("--input", sheet, input=str(sheet))["sources"]} >= {"qa_en", "qa_pt"}


def test_models(check: Check) -> None:
    assert check(models="owner/one@v1,pkg://weights/two.gguf")["models"] == [
        {"id": "one", "kind": "hub", "source": "owner/one", "revision": "v1"},
        {"id": "two", "kind": "package", "source": "pkg://weights/two.gguf", "revision": None},
    ]


def test_other_models(check: Check, refused: Callable[..., str]) -> None:
    message = refused(names_model="not a model", teacher_model="pkg://..", stage="sft,distillation", tokenizer="a b")
    assert "--tokenizer: 'a b' is neither" in message
    assert "--names_model: 'not a model' is neither" in message
    assert "--teacher_model: 'pkg://..' is not of the form" in message
    checked = check(names_model="owner/names@v2", teacher_model="./teacher", stage="sft,distillation")
    assert checked["names_model"] == {"id": "names", "kind": "hub", "source": "owner/names", "revision": "v2"}
    assert checked["teacher_model"] == {"id": "teacher", "kind": "path", "source": "./teacher", "revision": None}
    assert {"names_model", "tokenizer"} & check().keys() == set()
    assert check(tokenizer="./words")["tokenizer"] == {"id": "words", "kind": "path", "source": "./words", "revision": None}


def test_what_becomes_of_names_needs_a_model_that_finds_them(check: Check, refused: Callable[..., str]) -> None:
    assert "give a --names_model" in refused(personal_data="mask, name = drop")
    assert check(personal_data="mask,name=keep")
    assert check(personal_data="mask,name=drop", names_model="owner/names")


@pytest.mark.parametrize("bounds", [{"min_tokens": 4}, {"max_tokens": 4}, {"min_tokens": 4, "max_tokens": 4}])
def test_bounds_in_tokens_need_a_tokenizer(check: Check, refused: Callable[..., str], bounds: dict[str, int]) -> None:
    assert "--min_tokens and --max_tokens need --tokenizer" in refused(**bounds)
    assert check(**bounds, tokenizer="owner/tiny")["settings"]["clean_records"]["cleaning"]["min_tokens"] == bounds.get("min_tokens")


def test_bounds_in_tokens_that_leave_nothing(refused: Callable[..., str]) -> None:
    assert "--min_tokens 5 is more than --max_tokens 4" in refused(min_tokens=5, max_tokens=4, tokenizer="owner/tiny")


def test_the_chat_template_travels_as_text(check: Check, tmp_path: Path) -> None:
    template = written(tmp_path, "own.jinja", "{{ messages[0].content }} é")
    settings = check("--chat-template", template, chat_template="own.jinja")["settings"]
    assert settings["fetch_model"]["chat_template_text"] == "{{ messages[0].content }} é"


def test_faults_of_all_parts_at_once(refused: Callable[..., str], tmp_path: Path) -> None:
    sheet = written(tmp_path, "sheet.csv", "id,path,splt\nfaq,faq.csv,\n")
    trials = written(tmp_path, "trials.csv", "technique\nloar\n")
    message = refused("--input", sheet, "--trials", trials, input="sheet.csv", models="not a model,owner/tiny")
    assert "there is no column 'splt' in a samplesheet (did you mean split?)" in message
    assert "'not a model' is neither" in message
    message = refused("--input", sheet, "--trials", trials, input="sheet.csv")
    assert "'splt'" in message
    assert "line 2: technique: 'loar' is not accepted" in message
    message = refused("--input", sheet, input="sheet.csv", lora_rank=8)
    assert "'splt'" in message
    assert "--lora_rank: there is no such parameter (did you mean lora_r?)" in message


def test_an_input_of_unknown_kind(refused: Callable[..., str]) -> None:
    message = refused(input="data.odt")
    assert "data.odt is neither a samplesheet" in message
    assert ".jsonl" in message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"input": "docs/**.pdf"}, "** stands alone between slashes"),
        ({"input": "s3://buck*/faq.jsonl"}, "expected s3://BUCKET/PREFIX/"),
        ({"input": "hf://owner/name"}, "hf://datasets/OWNER/NAME"),
        ({"input": "gs://bucket/docs**.pdf"}, "** stands alone between slashes"),
        ({"languages": "English"}, "'English' is no language code; expected codes of ISO 639-1, such as en or pt"),
        ({"phone_regions": "BR,brazil"}, "'brazil' is no country code"),
        ({"personal_data": "mask,mail=keep"}, "'mail=keep' is not understood; expected type=action with a type of private_key,"),
    ],
)
def test_data_parameters_that_are_wrong(refused: Callable[..., str], given: dict[str, Any], words: str) -> None:
    assert words in refused(**given)


def test_an_accidental_grid(refused: Callable[..., str]) -> None:
    message = refused(learning_rate="1e-1,1e-2,1e-3,1e-4,1e-5", lora_r="1,2,4,8,16,32,64,128", seed=list(range(100)))
    assert "4000 trials (5 learning_rate x 8 lora_r x 100 seed)" in message
    assert "--max_trials 64" in message


def test_a_missing_input(refused: Callable[..., str]) -> None:
    assert refused(input=None).startswith("error: 1 of the parameters cannot be used:\n  --input: is required\n")


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ('{"type"', "--answer_schema is not JSON: Expecting ':' delimiter"),
        ("[1]", "--answer_schema is no JSON Schema: that is an object"),
        ('{"$schema": 5}', "--answer_schema is no JSON Schema: that is an object"),
        ('{"properties": {"floor": {"type": "number!"}}}', "--answer_schema is no JSON Schema: at $.properties.floor.type, 'number!' is not valid"),
        ('{"items": {"$ref": "#/$defs/room"}}', "--answer_schema refers to #/$defs/room, which it does not hold"),
        ('{"$ref": "https://example.org/room.json"}', "--answer_schema refers to https://example.org/room.json, which it does not hold: nothing is fetched"),
    ],
)
def test_a_faulty_json_schema_is_refused(refused: Callable[..., str], schema: str, fault: str) -> None:
    assert fault in refused(answer_schema=schema)


def test_json_schemas_of_several_drafts(check: Check) -> None:
    for schema in ("true", '{"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"enum": [{"$ref": "any"}]}}}'):
        assert check(answer_schema=schema)["settings"]["evaluate_model"]["answers"]["answer_schema"] == schema
    check(answer_schema='{"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"}')


def test_a_sheet_cannot_add_adapters_to_a_model_from_scratch(refused: Callable[..., str], tmp_path: Path) -> None:
    sheet = written(tmp_path, "trials.csv", "technique,learning_rate\nfull,1e-3\nlora,1e-3\n")
    said = refused("--trials", sheet, trials="trials.csv", techniques="full", from_scratch=True)
    assert "--trials: --from_scratch needs --techniques full" in said


def test_questions_are_written_for_the_sources_that_ask_for_them(check: Check, tmp_path: Path) -> None:
    sheet = written(tmp_path, "sheet.csv", "id,path,generate\nfaq,faq.csv,\nmanual,manual.md,3\n")
    found = check("--input", sheet, input="sheet.csv", generation_endpoint="http://localhost:8000/v1", generation_model="m", checkpoint_dir="kept")
    assert found["sources"] == [{"id": "faq", "path": "faq.csv"}, {"id": "manual", "path": "manual.md"}], "another number reads nothing again"
    assert found["settings"]["generate_records"]["pairs_of"] == {"manual": 3}
    assert found["settings"]["generate_records"]["checkpoint_dir"] == "kept"


def test_questions_need_a_server_and_a_model(refused: Callable[..., str], tmp_path: Path) -> None:
    sheet = written(tmp_path, "sheet.csv", "id,path,generate\nmanual,manual.md,3\n")
    message = refused("--input", sheet, input="sheet.csv")
    assert "--generation_endpoint is needed: questions are to be written from source manual" in message
    assert "--generation_model is needed" in message
    assert "less than or equal to 10" in refused("--input", written(tmp_path, "sheet.csv", "id,path,generate\nmanual,manual.md,11\n"), input="sheet.csv")


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host/v1", "http://", "http://me:hidden@host/v1", "https://host/v1?api-version=1"])
def test_addresses_of_servers_that_are_refused(refused: Callable[..., str], address: str) -> None:
    message = refused(generation_endpoint=address)
    assert "--generation_endpoint: expected an address such as http://localhost:8000/v1" in message
    assert "hidden" not in message


def test_the_cache_of_sources_is_for_the_step_that_reads_them(check: Check) -> None:
    found = check(source_cache="/kept here")["settings"]
    assert found.pop("collect_source")["source_cache"] == "/kept here"
    assert "kept here" not in str(found), "with a cache, or another one, nothing else is different"
    assert "source_cache" not in check()["settings"]["collect_source"]


def test_a_cache_of_sources_is_a_directory(refused: Callable[..., str]) -> None:
    assert "expected a directory that all tasks can reach, not an address" in refused(source_cache="s3://bucket/cache")
