"""Models with a head: outputs are those of each text alone, whatever stands beside it in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from head_trials import LABELS, head_trial, labelled, plain, preference, read_alone
from tiny import Lab
from transformers import AutoTokenizer

from llamaflow.errors import UsageError
from llamaflow.heads import head_tokenizer, outputs, texts_for, trial_in
from llamaflow.models import load_model
from llamaflow.techniques import load_trained
from llamaflow.trials import REWARD

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own


@pytest.mark.parametrize("technique", ["lora", "full"])
def test_outputs_are_those_of_each_text_alone(lab: Lab, tmp_path: Path, technique: str) -> None:
    directory = head_trial(lab, tmp_path, technique=technique, max_length=32)
    trial = trial_in(directory)
    assert trial.head == LABELS
    model, tokenizer = load_trained(lab.model, directory, "float32", head=trial.head), head_tokenizer(lab.model, trial)
    records = labelled()
    texts = [text for record in records for text in texts_for(LABELS, tokenizer, record)]
    found = outputs(model, tokenizer, texts, size=5)
    alone, plain_tokenizer = plain(lab, directory, 3)
    expected = torch.stack([read_alone(alone, plain_tokenizer, record["messages"][:-1], answer_next=True, longest=32) for record in records])
    torch.testing.assert_close(found, expected)
    assert len({len(plain_tokenizer(text)["input_ids"]) for text in texts}) > 2, "otherwise nothing is padded"
    assert max(len(plain_tokenizer(text)["input_ids"]) for text in texts) > 32, "otherwise nothing is truncated"
    assert (found - found[0]).abs().max() > 0.1


def test_what_a_head_reads(lab: Lab) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(lab.model)
    chat, pair, text = labelled(1)[0], preference("Floor 1.", "Floor 2."), {"type": "text", "text": "Rooms."}
    (prompt,) = texts_for(LABELS, tokenizer, chat)
    assert prompt.endswith("It is number 0.<|im_end|>\n<|im_start|>assistant\n")
    chosen, rejected = texts_for(REWARD, tokenizer, pair)
    assert (chosen.endswith("Floor 1.<|im_end|>\n"), rejected.endswith("Floor 2.<|im_end|>\n")) == (True, True)
    assert texts_for(LABELS, tokenizer, text) == texts_for(REWARD, tokenizer, text) == texts_for(REWARD, tokenizer, chat) == []


def test_a_new_head(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Its names and its padding are in the configuration, and that it is new is no news."""
    from transformers import logging

    verbosity = logging.get_verbosity()
    model: Any = load_model(lab.model, torch.bfloat16, head=LABELS)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {"blue": 0, "green": 1, "red": 2}
    assert (model.score.weight.shape, model.score.weight.dtype, model.config.pad_token_id) == ((3, 64), torch.bfloat16, 0)
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == verbosity


def test_a_head_is_not_quantised(lab: Lab) -> None:
    model: Any = load_model(lab.model, torch.float32, quantization_bit=4, head=LABELS)
    assert type(model.score) is torch.nn.Linear
    assert type(model.model.layers[0].mlp.up_proj) is not torch.nn.Linear


def test_an_architecture_without_a_head_is_refused(tmp_path: Path, lab: Lab) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=50)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(lab.model).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"cannot be loaded: .*AutoModelForSequenceClassification"):
        load_model(tmp_path, torch.float32, head=LABELS)
