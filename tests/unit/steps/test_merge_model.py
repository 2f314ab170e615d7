"""merge_model: the merged model answers as the adapter did, or the step says that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from head_trials import LABELS, head_trial, labelled, plain, preference, read_alone
from record_files import write_records
from tiny import SETTINGS, Lab, json_of, same_weights, weights_of, write_model
from transformers import AutoTokenizer

from llamaflow.heads import trial_in
from llamaflow.models import load_model
from llamaflow.params import Export
from llamaflow.techniques import load_trained
from llamaflow.trials import TECHNIQUES
from merge_model import compare
from write_model_card import usage


class Merge:
    def __init__(self, run_step: Any, lab: Lab, folder: Path) -> None:
        self.run_step, self.lab, self.folder = run_step, lab, folder

    def trained(self, technique: str = "lora", model: Path | None = None) -> Path:
        lab = self.lab.on(model or self.lab.model)
        return lab.train(lab.trials(techniques=technique), self.folder)[0]

    def __call__(self, trial: Path, *, model: Path | None = None, dataset: Path | None = None, **export: Any) -> dict[str, Any]:
        """Merge; returns parity.json."""
        args = ["--model", model or self.lab.model, "--trial", trial, "--dataset", dataset or self.lab.dataset, "--outdir", self.folder]
        self.run_step("merge_model", args, SETTINGS | {"export": export})
        parity: dict[str, Any] = json_of(self.folder / "parity.json")
        assert json_of(self.folder / "merge_model.json")["counts"] == parity
        return parity


@pytest.fixture
def merge(run_step: Any, lab: Lab, tmp_path: Path) -> Merge:
    return Merge(run_step, lab, tmp_path)


@pytest.mark.parametrize("technique", [name for name, traits in TECHNIQUES.items() if traits.trains == "layers" and name != "loraplus"])
def test_an_adapter_merges(merge: Merge, lab: Lab, tmp_path: Path, technique: str) -> None:
    trial = merge.trained(technique)
    parity = merge(trial)
    assert parity["passed"] is True
    assert parity["relative_difference"] < 1e-3
    assert parity["greedy_agreement"] == parity["first_token_agreement"] == 1
    assert parity["prompts"] == 8
    merged = tmp_path / "merged"
    assert weights_of(merged).keys() == weights_of(lab.model).keys()
    assert not same_weights(merged, lab.model)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected, found = load_trained(lab.model, trial, "float32")(ids).logits, load_model(merged, torch.float32)(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (lab.model, merged)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    assert json_of(merged / "generation_config.json")["eos_token_id"] == [2]
    assert json_of(merged / "config.json")["use_cache"] is True


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("technique", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_are_released_beside_the_base(merge: Merge, lab: Lab, tmp_path: Path, technique: str, capsys: Any) -> None:
    """merged/ cannot be taken for the tuned model: only its base/ and the adapter together are."""
    from peft import PeftModel

    trial = merge.trained(technique)
    assert merge(trial)["largest_logit_difference"] == 0
    assert f"{trial.name}: virtual tokens cannot be merged" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["base"]
    assert same_weights(tmp_path / "merged/base", lab.model)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged/base").chat_template
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        found = PeftModel.from_pretrained(load_model(tmp_path / "merged/base", torch.float32), trial / "adapter")(ids).logits
        expected, base = load_trained(lab.model, trial, "float32")(ids).logits, load_model(lab.model, torch.float32)(ids).logits
    assert torch.equal(found, expected)
    assert (found[:, -37:] - base).abs().max() > 0.01


def test_a_whole_model_passes_through(merge: Merge, tmp_path: Path) -> None:
    trial = merge.trained("full")
    assert merge(trial)["largest_logit_difference"] == 0
    assert same_weights(tmp_path / "merged", trial / "model")


def test_a_broken_merge_is_reported(merge: Merge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A merge that forgets the adapter: the step ends well, and says no."""
    from peft.tuners.lora import LoraModel

    trial = merge.trained()
    monkeypatch.setattr(LoraModel, "merge_and_unload", LoraModel.unload)
    parity = merge(trial)
    assert parity["passed"] is False
    assert parity["relative_difference"] > parity["allowed_relative_difference"] == 0.1
    assert parity["greedy_agreement"] < 1
    assert (tmp_path / "merged").exists()


def test_the_bases_precision_is_kept_and_its_rounding_measured(merge: Merge, lab: Lab, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", dtype="bfloat16")
    (base / "model.json").write_text((lab.model / "model.json").read_text())
    trial = merge.trained(model=base)
    parity = merge(trial, model=base)
    assert parity["passed"] is True
    assert 1e-4 < parity["relative_difference"] < 0.1
    assert {tensor.dtype for tensor in weights_of(tmp_path / "merged").values()} == {torch.bfloat16}
    assert merge(trial, model=base, parity_max_difference=1e-6)["passed"] is False


def test_texts_are_compared_by_their_beginnings(merge: Merge, tmp_path: Path) -> None:
    """A few texts, and of a long one what is read is the same, whatever comes after."""
    trial = merge.trained()

    def compared(end: str) -> dict[str, Any]:
        write_records(tmp_path / "test.parquet", [{"type": "text", "text": f"{count} employees may travel. {'So it is. ' * 200}{end}"} for count in range(30)])
        return merge(trial, dataset=tmp_path)

    parity = compared("")
    assert parity["prompts"] == 8
    assert compared("Or is it not?") == parity


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
@pytest.mark.parametrize(("stage", "technique"), [("classification", "lora"), ("classification", "full"), ("reward", "lora")])
def test_a_head_is_merged_and_used_as_its_card_says(merge: Merge, lab: Lab, tmp_path: Path, capsys: Any, stage: str, technique: str) -> None:
    from transformers import pipeline

    reward, trial, merged = stage == "reward", head_trial(lab, tmp_path / "trials", stage, technique), tmp_path / "merged"
    (tmp_path / "data").mkdir()
    records = [preference("Yes.", f"No {place}.", f"Is it {place}?") for place in range(20)] if reward else labelled()
    write_records(tmp_path / "data/test.parquet", records)
    parity = merge(trial, dataset=tmp_path / "data")
    assert (parity["passed"], parity["greedy_agreement"], parity["prompts"]) == (True, 1, 8)
    assert parity["relative_difference"] < 1e-3
    assert parity["logit_spread"] > 0.01
    assert not [name for name in weights_of(merged) if "lora" in name or "modules_to_save" in name or "lm_head" in name]

    model, tokenizer = plain(lab, trial, 1 if reward else 3)
    question = {"role": "user", "content": "..."}
    messages = [question, {"role": "assistant", "content": "..."}] if reward else [question]
    expected = read_alone(model, tokenizer, messages, answer_next=not reward)
    facts = {"trial": trial_in(trial), "head": trial_in(trial).head, "model": {"chat_template": True}}
    code = usage(facts, Export(release_name="it")).split("```python")[1].split("```")[0].replace("path/to/it", str(merged))
    capsys.readouterr()
    exec(code)
    printed = capsys.readouterr().out.strip()
    if reward:
        assert float(printed) == pytest.approx(float(expected), rel=1e-4)
    else:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        (found,) = pipeline("text-classification", model=str(merged))(text)
        assert printed == found["label"] == LABELS[int(expected.argmax())]
        assert found["score"] == pytest.approx(float(expected.softmax(0).max()), rel=1e-4)
    released: Any = AutoTokenizer.from_pretrained(merged)
    assert (released.truncation_side, released.model_max_length) == ("left", 96), "as the head was trained"


def test_comparison() -> None:
    torch.manual_seed(0)
    before = [torch.randn(5, 50), torch.randn(3, 50)]
    same = compare(before, before, 0.1)
    assert (same["passed"], same["relative_difference"], same["greedy_agreement"]) == (True, 0, 1)
    shifted = compare(before, [before[0], before[1] + 0.5], 0.1)
    assert shifted["largest_logit_difference"] == pytest.approx(0.5)
    assert shifted["relative_difference"] == pytest.approx(0.5 / shifted["logit_spread"], rel=1e-4)
    assert (shifted["passed"], shifted["greedy_agreement"]) == (False, 1)
    turned = compare(before, [-before[0], before[1]], 10)
    assert (turned["passed"], turned["first_token_agreement"], turned["greedy_agreement"]) == (True, 0.5, 3 / 8)


def test_logits_that_are_no_numbers_do_not_pass() -> None:
    before = [torch.randn(5, 50)]
    assert compare(before, [before[0] * float("nan")], 0.1)["passed"] is False
