"""write_model_card: what the Hub reads from it, and what people read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grid_results import scores_around, write_evaluation, write_trial
from huggingface_hub import ModelCard
from tiny import json_of

MODEL = {"id": "tiny", "kind": "hub", "source": "owner/tiny", "revision": "v1", "license": "apache-2.0", "chat_template": True}
PARITY = {"passed": True, "greedy_agreement": 0.9975, "relative_difference": 0.0123}
DATASET = {
    "sha256": "d" * 64,
    "splits": {"train": 80, "validation": 10, "test": 120},
    "sources": {
        "faq": {"train": 60, "validation": 8, "test": 100, "license": "CC0-1.0"},
        "manual": {"train": 20, "validation": 2, "test": 20, "license": None},
    },
    "languages": {"pt": 100, "en": 90, "unknown": 20},
}


class Card:
    def __init__(self, run_step: Any, folder: Path) -> None:
        self.run_step, self.folder = run_step, folder
        base = write_evaluation(folder / "evaluations", "base-tiny", {"rouge_l": scores_around(0.3, seed=7)}, kind="base")
        tuned = write_evaluation(folder / "evaluations", "tiny-lora-1", {"rouge_l": scores_around(0.5)})
        self.trial = write_trial(folder / "trials", "tiny-lora-1", lora_alpha=32.0)
        run_step("rank_trials", ["--evaluations", base, tuned, "--trials", self.trial, "--outdir", folder], {"evaluation": {"bootstrap_resamples": 200}})

    def __call__(self, *, model: dict[str, Any] | None = None, dataset: dict[str, Any] | None = None, **export: Any) -> ModelCard:
        args = ["--trial", self.trial, "--outdir", self.folder]
        for name, content in (("model", MODEL | (model or {})), ("parity", PARITY), ("dataset", DATASET | (dataset or {}))):
            (self.folder / f"{name}.json").write_text(json.dumps(content))
        for name in ("model", "parity", "dataset", "leaderboard", "winner"):
            args += [f"--{name}", self.folder / f"{name}.json"]
        self.run_step("write_model_card", args, {"export": export})
        return ModelCard.load(self.folder / "README.md")


@pytest.fixture
def card(run_step: Any, tmp_path: Path) -> Card:
    return Card(run_step, tmp_path)


def test_the_hub_can_read_it(card: Card) -> None:
    found = card(release_name="faq-model").data
    assert (found.base_model, found.license, found.language) == ("owner/tiny", "apache-2.0", ["en", "pt"])
    assert (found.library_name, found.pipeline_tag, found.tags) == ("transformers", "text-generation", ["llamaflow", "lora"])
    assert found.model_name == "faq-model"
    measured = {result.metric_type: result.metric_value for result in found.eval_results or ()}
    row = next(row for row in json_of(card.folder / "leaderboard.json")["rows"] if row["id"] == "tiny-lora-1")
    assert measured == {name: round(metric["value"], 4) for name, metric in row["metrics"].items()}
    assert 0.45 < measured["rouge_l"] < 0.55


def test_people_can_read_it(card: Card) -> None:
    text = card().text
    rows = {row["id"]: row["metrics"]["rouge_l"] for row in json_of(card.folder / "leaderboard.json")["rows"]}
    shown = [f"{metric['value']:.3f} [{metric['ci_low']:.3f}, {metric['ci_high']:.3f}]" for metric in (rows["base-tiny"], rows["tiny-lora-1"])]
    for expected in (
        f"| rouge_l | {shown[0]} | {shown[1]} | 120 |",
        json_of(card.folder / "winner.json")["reason"],
        "tiny (owner/tiny at revision v1), fine-tuned with lora",
        "| lora_alpha | 32.0 |",
        "| faq | CC0-1.0 | 60 | 8 | 100 |",
        "| manual | not given | 20 | 2 | 20 |",
        "d" * 64,
        "99.75% of next tokens are the same",
        "1.23% of the logits' spread",
        "test split (120 records)",
    ):
        assert expected in text


def test_what_is_not_known_is_left_out(card: Card) -> None:
    found = card(model={"kind": "path", "source": "./tiny", "revision": None, "license": None}, dataset={"languages": {"unknown": 5}})
    assert not {"base_model", "license", "language"} & set(found.data.to_dict())
    assert "tiny (./tiny), fine-tuned" in found.text


def test_the_users_licence_goes_before_the_bases(card: Card) -> None:
    assert card(license="mit").data.license == "mit"


def test_what_cannot_be_merged_is_used_with_its_adapter(card: Card) -> None:
    trial = json_of(card.trial / "trial.json")
    (card.trial / "trial.json").write_text(json.dumps(trial | {"technique": "prompt_tuning"}))
    found = card(release_name="faq-model")
    assert found.data.library_name == "peft"
    assert 'from_pretrained("path/to/faq-model/base"), "path/to/faq-model/adapter")' in found.text
    assert "The released base and adapter answer as when they were measured: 99.75%" in found.text


def test_the_example_fits_the_model(card: Card) -> None:
    assert '[{"role": "user", "content": "..."}]' in card().text
    assert 'generate("...", max_new_tokens=128)' in card(model={"chat_template": False}).text


def test_the_example_is_python(card: Card) -> None:
    for template in (True, False):
        compile(card(model={"chat_template": template}).text.split("```python")[1].split("```")[0], "card", "exec")


def as_stage(card: Card, stage: str) -> None:
    """The card's trial, as another stage would have trained it."""
    trial = json_of(card.trial / "trial.json")
    changed = {"hyperparameters": trial["hyperparameters"] | {"stage": stage}, "data": trial["data"] | {"labels": ["no", "yes"]}}
    (card.trial / "trial.json").write_text(json.dumps(trial | changed))


def test_a_classifier_is_used_as_one(card: Card) -> None:
    as_stage(card, "classification")
    found = card(release_name="faq-model")
    assert (found.data.pipeline_tag, found.data.tags) == ("text-classification", ["llamaflow", "lora", "classification"])
    assert found.data.eval_results[0].task_type == "text-classification"
    code = found.text.split("```python")[1].split("```")[0]
    compile(code, "card", "exec")
    assert 'AutoModelForSequenceClassification.from_pretrained("path/to/faq-model")' in code
    assert "id2label" in code
    assert "generate(" not in code
    assert "fine-tuned with lora (classification) by LlamaFlow" in found.text
    assert "99.75% of labels are the same, and the largest output difference is 1.23% of the outputs' spread" in found.text
    assert "The base has no such output: it was measured by the answers that it writes." in found.text


def test_a_reward_model_is_used_as_one(card: Card) -> None:
    as_stage(card, "reward")
    text = card().text
    code = text.split("```python")[1].split("```")[0]
    compile(code, "card", "exec")
    assert '{"role": "assistant", "content": "..."}], tokenize=False)' in code
    assert "print(float(outputs[0]))" in code
    assert "99.75%" not in text, "rewards have no labels that could agree"
    assert "answer as the adapter did: the largest output difference is 1.23%" in text


def test_what_only_one_of_both_has_is_left_out(card: Card) -> None:
    board = json_of(card.folder / "leaderboard.json")
    for row in board["rows"]:
        del row["metrics"]["perplexity" if row["kind"] == "trial" else "rouge_l"]
    (card.folder / "leaderboard.json").write_text(json.dumps(board))
    text = card().text
    assert "perplexity" not in text
    assert "| rouge_l | \u2013 | 0." in text


def test_odd_names_do_not_break_the_metadata(card: Card) -> None:
    assert card(license="other: see 'LICENSE' # é").data.license == "other: see 'LICENSE' # é"


def test_a_model_from_scratch_inherits_nothing(card: Card) -> None:
    text = card(model={"kind": "scratch", "license": None}).text
    assert "Trained from scratch by LlamaFlow, in the architecture of tiny (owner/tiny at revision v1), with a tokenizer of its own." in text
    assert "inherits" not in text
    assert "inherits" in card().text


def test_what_personal_data_the_texts_held(card: Card) -> None:
    found = card(dataset={"personal_data": {"action": "mask", "found": {"faq": {"email": 1200, "phone": 3}, "manual": {"email": 34}}}})
    assert "Personal data found by pattern and checksum (`personal_data: mask`): 1,234 email, 3 phone. Names of people were not looked for." in found.text
    assert "(`personal_data: hash`): none. Names" in card(dataset={"personal_data": {"action": "hash", "found": {}}}).text


def test_a_language_of_a_few_records_is_not_named(card: Card) -> None:
    assert card(dataset={"languages": {"pt": 90, "en": 8, "gl": 2}}).data.language == ["en", "pt"]
