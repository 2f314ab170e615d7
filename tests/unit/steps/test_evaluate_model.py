"""evaluate_model: numbers that a hand computation gives too, and answers that depend on nothing but the model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from head_trials import LABELS, head_trial, labelled, plain, preference, read_alone
from record_files import chat, rows, write_records
from tiny import Lab, json_of
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = {"type": "text", "text": "Employees may take up to ten days."}


@pytest.fixture(scope="module")
def trained(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial that has learnt something, so that its answers differ."""
    return lab.train(lab.trials(techniques="full", num_train_epochs=8, learning_rate=1e-2), tmp_path_factory.mktemp("trained"))[0]


def predictions(evaluation: Path) -> dict[str, dict[str, Any]]:
    return {row["record_id"]: row for row in rows(evaluation / "predictions.parquet")}


def dataset_of(folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"sha256": "e" * 64}))
    write_records(folder / "test.parquet", records)
    return folder


def test_perplexity_by_hand(lab: Lab, trained: Path, tmp_path: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(lab.model), AutoModelForCausalLM.from_pretrained(trained / "model").eval()
    nll, tokens = 0.0, 0
    for record in rows(lab.dataset / "test.parquet"):
        whole = tokenizer(tokenizer.apply_chat_template(record["messages"], tokenize=False), add_special_tokens=False)["input_ids"]
        prompt = tokenizer(tokenizer.apply_chat_template(record["messages"][:-1], tokenize=False, add_generation_prompt=True), add_special_tokens=False)[
            "input_ids"
        ]
        end = len(whole) - 1  # the line break after the end of the turn is the template's
        assert whole[: len(prompt)] == prompt
        with torch.no_grad():
            likelihoods = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        nll -= sum(float(likelihoods[at - 1, whole[at]]) for at in range(len(prompt), end))
        tokens += end - len(prompt)
    found = json_of(lab.evaluate(trained, tmp_path) / "metrics.json")["metrics"]["perplexity"]
    assert found["value"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    assert found["ci_low"] < found["value"] < found["ci_high"]
    assert found["n"] == 10


def test_answers_by_hand(lab: Lab, trained: Path, tmp_path: Path) -> None:
    """One token after the other, the likeliest each time."""
    tokenizer, model = AutoTokenizer.from_pretrained(lab.model), AutoModelForCausalLM.from_pretrained(trained / "model").eval()
    found = predictions(lab.evaluate(trained, tmp_path))
    for record in rows(lab.dataset / "test.parquet"):
        ids = tokenizer(tokenizer.apply_chat_template(record["messages"][:-1], tokenize=False, add_generation_prompt=True), add_special_tokens=False)[
            "input_ids"
        ]
        answer: list[int] = []
        with torch.no_grad():
            while len(answer) < 12 and (not answer or answer[-1] != tokenizer.eos_token_id):
                answer.append(int(model(torch.tensor([ids + answer])).logits[0, -1].argmax()))
        assert found[record["id"]]["prediction"] == tokenizer.decode(answer, skip_special_tokens=True).strip()
    assert len({row["prediction"] for row in found.values()}) > 1, "otherwise nothing is shown"


def test_a_base_model_with_a_borrowed_template_stops_too(lab: Lab, trained: Path, tmp_path: Path) -> None:
    """It declares its own end of text only, and has learnt the template's end of turn."""
    tokenizer = AutoTokenizer.from_pretrained(lab.model)
    tokenizer.eos_token = "<|endoftext|>"
    base, other = (Path(shutil.copytree(path, tmp_path / "copies" / path.name)) for path in (lab.model, trained))
    tokenizer.save_pretrained(base)
    for path in (base, other / "model"):
        (path / "generation_config.json").write_text(json.dumps(json_of(path / "generation_config.json") | {"eos_token_id": 0}))
    expected = predictions(lab.evaluate(trained, tmp_path, max_new_tokens=30))
    found = predictions(lab.on(base).evaluate(other, tmp_path / "other", max_new_tokens=30))
    assert {name: row["prediction"] for name, row in found.items()} == {name: row["prediction"] for name, row in expected.items()}
    assert any(len(tokenizer(row["prediction"])["input_ids"]) < 30 for row in expected.values()), "otherwise nothing is shown"


@pytest.mark.parametrize("size", [1, 3])
def test_the_batch_size_changes_nothing(lab: Lab, trained: Path, tmp_path: Path, size: int) -> None:
    whole, parts = predictions(lab.evaluate(trained, tmp_path / "whole")), predictions(lab.evaluate(trained, tmp_path / "parts", eval_batch_size=size))
    assert parts.keys() == whole.keys()
    for name, row in whole.items():
        assert parts[name]["prediction"] == row["prediction"]
        assert parts[name]["nll"] == pytest.approx(row["nll"], rel=1e-5)
        assert parts[name]["tokens"] == row["tokens"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("technique", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_stand_before_every_text(lab: Lab, tmp_path: Path, technique: str) -> None:
    """Losses and answers are those of plain PEFT for each record alone, however long its neighbours in the batch are."""
    from peft import PeftModel

    (trial,) = lab.train(lab.trials(techniques=technique, learning_rate=0.2, num_virtual_tokens=6), tmp_path)
    mixed = dataset_of(
        tmp_path / "mixed",
        [chat(question, "On floor 1.") for question in ("Where?", "Which floor is room atlas 3 on?", "Which floor is room grove 5 on, and why?")],
    )
    found = {row["prompt"]: row for row in predictions(lab.evaluate(trial, tmp_path / "out", dataset=mixed)).values()}
    tokenizer = AutoTokenizer.from_pretrained(lab.model)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(lab.model), trial / "adapter").eval()
    base = predictions(lab.evaluate(None, tmp_path / "out", dataset=mixed))
    for record in rows(mixed / "test.parquet"):
        row = found[json.dumps(record["messages"][:-1])]
        prompt = tokenizer.apply_chat_template(record["messages"][:-1], add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        whole = tokenizer.apply_chat_template(record["messages"], return_tensors="pt", return_dict=True)["input_ids"]
        ids = prompt
        with torch.no_grad():
            losses = torch.nn.functional.cross_entropy(plain(whole).logits[0, -whole.shape[1] : -1], whole[0, 1:], reduction="none")
            for _ in range(12):
                ids = torch.cat([ids, plain(ids).logits[:, -1].argmax(-1)[None]], 1)
        learnt = losses[prompt.shape[1] - 1 :][: row["tokens"]]
        assert row["nll"] == pytest.approx(learnt.sum().item(), rel=1e-5)
        answer = ids[0, prompt.shape[1] :].tolist()
        answer = answer[: answer.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in answer else answer
        assert row["prediction"] == tokenizer.decode(answer, skip_special_tokens=True).strip()
        assert row["nll"] != pytest.approx(base[row["record_id"]]["nll"], rel=1e-2)


def test_what_is_left_behind(lab: Lab, trained: Path, tmp_path: Path) -> None:
    base, tuned = lab.evaluate(None, tmp_path), lab.evaluate(trained, tmp_path)
    for evaluation, kind in ((base, "base"), (tuned, "trial")):
        found = json_of(evaluation / "metrics.json")
        assert (found["id"], found["kind"], found["model"]) == (evaluation.name, kind, "tiny")
        assert set(found["metrics"]) == {"perplexity", "rouge_l", "chrf", "bleu", "exact_match"}
        assert set(json_of(evaluation / "evaluate_model.json")["outputs"]) == {"metrics.json", "predictions.parquet"}
        assert {path.name for path in evaluation.iterdir()} == {"metrics.json", "predictions.parquet", "evaluate_model.json"}
    record = rows(lab.dataset / "test.parquet")[0]
    row = predictions(tuned)[record["id"]]
    assert row["reference"] == record["messages"][-1]["content"]
    assert json.loads(row["prompt"]) == record["messages"][:-1]
    assert json_of(tuned / "metrics.json")["metrics"]["perplexity"]["value"] < 0.1 * json_of(base / "metrics.json")["metrics"]["perplexity"]["value"]


def test_an_adapter(lab: Lab, tmp_path: Path) -> None:
    (trial,) = lab.train(lab.trials(), tmp_path)
    base, tuned = (json_of(lab.evaluate(which, tmp_path / "out") / "metrics.json")["metrics"]["perplexity"]["value"] for which in (None, trial))
    assert tuned < 0.5 * base


def test_texts_have_a_likelihood_and_no_scores(lab: Lab, tmp_path: Path) -> None:
    mixed = dataset_of(tmp_path / "mixed", [chat("Q?", "A."), TEXT, chat("R?", "B.")])
    evaluation = lab.evaluate(None, tmp_path, dataset=mixed)
    by_reference = {row["reference"]: row for row in predictions(evaluation).values()}
    assert set(by_reference) == {"A.", "B.", None}
    text = by_reference[None]
    assert (text["prompt"], text["prediction"], text["score_rouge_l"], text["score_exact_match"]) == (None, None, None, None)
    assert text["tokens"] > 5
    assert text["nll"] > 0
    measured = json_of(evaluation / "metrics.json")["metrics"]
    assert measured["perplexity"]["n"] == 3
    assert measured["rouge_l"]["n"] == 2
    only = dataset_of(tmp_path / "only", [TEXT, TEXT | {"text": "Expenses are refunded."}])
    assert set(json_of(lab.evaluate(None, tmp_path, dataset=only) / "metrics.json")["metrics"]) == {"perplexity"}


def test_labels_are_classified(lab: Lab, tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "labelled", [chat(f"{word}?", label, label=label) for word, label in (("Good", "yes"), ("Bad", "no"))])
    assert {"accuracy", "macro_f1"} <= set(json_of(lab.evaluate(None, tmp_path, dataset=dataset) / "metrics.json")["metrics"])


def test_a_limit_gives_all_models_the_same_rows(lab: Lab, trained: Path, tmp_path: Path) -> None:
    base, tuned = (predictions(lab.evaluate(which, tmp_path, max_eval_rows=4)) for which in (None, trained))
    assert len(base) == 4
    assert base.keys() == tuned.keys()
    records = rows(lab.dataset / "test.parquet")
    assert base.keys() < {record["id"] for record in records}
    turned = Path(shutil.copytree(lab.dataset, tmp_path / "turned"))
    write_records(turned / "test.parquet", records[::-1])
    assert predictions(lab.evaluate(None, tmp_path, dataset=turned, max_eval_rows=4)).keys() == base.keys(), "whatever the file's order"


def test_examples_longer_than_the_model_can_read(lab: Lab, tmp_path: Path) -> None:
    long = dataset_of(tmp_path / "long", [chat("Q?", "word " * 400), chat("word " * 400, "A."), TEXT | {"text": "word " * 400}])
    evaluation = lab.evaluate(None, tmp_path, dataset=long, max_new_tokens=1)
    assert sorted(row["tokens"] for row in predictions(evaluation).values())[0] == 0, "the answer lies beyond the context"
    assert json_of(evaluation / "metrics.json")["metrics"]["perplexity"]["n"] == 2


class Kept:
    """Evaluations with a store, and whether each was computed."""

    def __init__(self, lab: Lab, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.lab, self.folder, self.capsys = lab, folder, capsys

    def reused(self, trial: Path | None, **given: Any) -> bool:
        self.capsys.readouterr()
        self.lab.evaluate(trial, self.folder / "out", store=self.folder / "store", max_eval_rows=2, **given)
        return "taken from the store" in self.capsys.readouterr().out


@pytest.fixture
def kept(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Kept:
    return Kept(lab, tmp_path, capsys)


def test_an_evaluation_is_reused(kept: Kept, trained: Path, tmp_path: Path) -> None:
    assert not kept.reused(trained)
    first = json_of(tmp_path / "out" / trained.name / "metrics.json")
    assert kept.reused(trained)
    assert json_of(tmp_path / "out" / trained.name / "metrics.json") == first
    assert not kept.reused(trained, max_new_tokens=3), "another question"


def test_a_trial_that_was_trained_again_is_evaluated_again(kept: Kept, trained: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(trained, tmp_path / "again" / trained.name))
    assert not kept.reused(trained)
    assert kept.reused(again)
    receipt = json_of(again / "train_trials.json")
    receipt["outputs"]["model"] = "0" * 64
    (again / "train_trials.json").write_text(json.dumps(receipt))
    assert not kept.reused(again)


def test_base_models_are_not_kept(kept: Kept, tmp_path: Path) -> None:
    """Their name does not tell their content."""
    assert not kept.reused(None)
    assert not kept.reused(None)
    assert not (tmp_path / "store").exists()


def mean_likelihood(lab: Lab, prompt: list[dict[str, str]], answer: list[dict[str, str]]) -> float:
    """Of the answer's tokens, the mark after it included, by the plain model."""
    tokenizer, model = AutoTokenizer.from_pretrained(lab.model), AutoModelForCausalLM.from_pretrained(lab.model).eval()
    text = tokenizer.apply_chat_template([*prompt, *answer], tokenize=False).rstrip()
    whole, before = (
        tokenizer(part, add_special_tokens=False)["input_ids"]
        for part in (text, tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
    )
    with torch.no_grad():
        likelihoods = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(float(likelihoods[at - 1, whole[at]]) for at in range(len(before), len(whole))) / (len(whole) - len(before))


def test_preferences_by_hand(lab: Lab, tmp_path: Path) -> None:
    """The mean over the answer's own tokens: neither a long answer nor the turns before it decide."""
    prompts = [("Which floor?",), ("Which floor?", "Zzz qqq xxx.", "Room atlas 3."), ("And then, after the long way round?",)]
    answers = [("On floor 1.", "Somewhere else, as you will certainly see when you arrive."), ("Up there.", "It is on floor 2, I think.")]
    pairs = [preference(*pair, *prompt) for prompt in prompts for one in answers for pair in (one, one[::-1])]
    evaluation = lab.evaluate(None, tmp_path, dataset=dataset_of(tmp_path / "pairs", [*pairs, chat("Q?", "A.")]), eval_batch_size=5)
    found = predictions(evaluation)
    records = rows(tmp_path / "pairs/test.parquet")
    for record in records[:-1]:
        chosen, rejected = (mean_likelihood(lab, record["prompt"], record[name]) for name in ("chosen", "rejected"))
        assert found[record["id"]]["score_preference_accuracy"] == float(chosen > rejected)
    assert found[records[-1]["id"]]["score_preference_accuracy"] is None
    measured = json_of(evaluation / "metrics.json")["metrics"]
    assert (measured["preference_accuracy"]["value"], measured["preference_accuracy"]["n"]) == (0.5, 12), "each pair stands there both ways round"
    assert {"perplexity", "rouge_l"} < set(measured)


def test_an_answer_beyond_the_context_has_no_preference(lab: Lab, tmp_path: Path) -> None:
    long = dataset_of(tmp_path / "long", [preference("A.", "B.", "word " * 400), preference("A.", "B.")])
    assert json_of(lab.evaluate(None, tmp_path, dataset=long, max_new_tokens=1) / "metrics.json")["metrics"]["preference_accuracy"]["n"] == 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("technique", ["lora", "full"])
def test_labels_chosen_by_a_head(lab: Lab, tmp_path: Path, technique: str) -> None:
    trial, dataset = head_trial(lab, tmp_path, technique=technique), dataset_of(tmp_path / "labelled", labelled())
    evaluation = lab.evaluate(trial, tmp_path / "out", dataset=dataset, eval_batch_size=5)
    model, tokenizer = plain(lab, trial, 3)
    found, hits = predictions(evaluation), 0
    for record in rows(dataset / "test.parquet"):
        expected = LABELS[int(read_alone(model, tokenizer, record["messages"][:-1], answer_next=True).argmax())]
        assert found[record["id"]]["prediction"] == expected
        assert (found[record["id"]]["nll"], found[record["id"]]["tokens"]) == (None, None)
        hits += expected == record["label"]
    measured = json_of(evaluation / "metrics.json")["metrics"]
    assert set(measured) == {"accuracy", "macro_f1", "rouge_l", "chrf", "bleu", "exact_match"}
    assert measured["accuracy"]["value"] == measured["exact_match"]["value"] == pytest.approx(hits / 12)
    assert len({row["prediction"] for row in found.values()}) > 1, "otherwise nothing is shown"
    assert set(measured) < set(json_of(lab.evaluate(None, tmp_path, dataset=dataset) / "metrics.json")["metrics"])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
def test_a_reward_only_prefers(lab: Lab, tmp_path: Path) -> None:
    records = [preference(f"On floor {place}.", f"It may be {place % 3}, or more.", f"Where is room {place}?") for place in range(8)]
    trial, dataset = head_trial(lab, tmp_path, "reward"), dataset_of(tmp_path / "pairs", records)
    evaluation = lab.evaluate(trial, tmp_path / "out", dataset=dataset, eval_batch_size=5)
    model, tokenizer = plain(lab, trial, 1)
    found = predictions(evaluation)
    for record in rows(dataset / "test.parquet"):
        chosen, rejected = (float(read_alone(model, tokenizer, [*record["prompt"], *record[name]], answer_next=False)) for name in ("chosen", "rejected"))
        assert found[record["id"]]["score_preference_accuracy"] == float(chosen > rejected)
        assert found[record["id"]]["prediction"] is None
    assert set(json_of(evaluation / "metrics.json")["metrics"]) == {"preference_accuracy"}
    assert {row["score_preference_accuracy"] for row in found.values()} == {0, 1}, "otherwise nothing is shown"


def test_measures_get_the_parameters_that_they_need(lab: Lab, trained: Path, tmp_path: Path) -> None:
    answers = {"answer_pattern": "^Room", "answer_schema": "true"}
    evaluation = lab.evaluate(trained, tmp_path, answers=answers, metrics="pattern,json_schema")
    expected = [row["prediction"].startswith("Room") for row in predictions(evaluation).values()]
    measured = json_of(evaluation / "metrics.json")["metrics"]
    assert measured["pattern"]["value"] == pytest.approx(sum(expected) / len(expected))
    assert any(expected), "otherwise nothing is shown"
    assert measured["json_schema"]["value"] == 0
