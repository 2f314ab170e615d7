"""initialise_model: random weights in the base's architecture, and a tokenizer that has learnt from the data and loses nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from record_files import chat, write_records
from tiny import CHATML, ROOT, SETTINGS, Lab, counts, history, json_of, run_step, same_weights, weights_of, write_model
from transformers import AutoTokenizer

from llamaflow.errors import UsageError
from llamaflow.models import load_model
from llamaflow.validation import resolve

REGULATIONS = sorted((ROOT / "assets/examples/regulations").rglob("*.md"))
# bytes that the data do not have, white space of all kinds, the tokenizers' own marks, half a code point's worth of bytes in one word
ODD = ("", " ", "  two\n\n\tthree\r\n ", "é ⋯▁ ## ###a ##b", "日本語のテキスト 👩‍👩‍👧 \x00\x7f", "don't  <|im_start|>", "x" * 350 + "ł" * 120)
Initialise = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of plain text."""
    records = [{"type": "text", "text": piece} for file in REGULATIONS for piece in file.read_text(encoding="utf-8").split("\n\n") if len(piece) > 40]
    folder = tmp_path_factory.mktemp("corpus")
    write_records(folder / "deduplicated.parquet", records)
    run_step("split_dataset", ["--records", folder / "deduplicated.parquet", "--outdir", folder], {"splitting": {}})
    return folder / "dataset"


@pytest.fixture
def initialise(lab: Lab, corpus: Path, tmp_path: Path) -> Initialise:
    """Draw a model in tmp_path/model; returns model.json."""

    def run(base: Path = lab.model, dataset: Path = corpus, **scratch: Any) -> dict[str, Any]:
        given = SETTINGS | {"scratch": {"from_scratch": True, "vocab_size": 1000, **scratch}}
        run_step("initialise_model", ["--model", base, "--dataset", dataset, "--outdir", tmp_path], given)
        found: dict[str, Any] = json_of(tmp_path / "model/model.json")
        return found

    return run


@pytest.fixture
def refused(initialise: Initialise, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(**scratch: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            initialise(**scratch)
        assert ended.value.code == 64
        assert not (tmp_path / "model").exists()
        assert not (tmp_path / "initialise_model.json").exists()
        return capsys.readouterr().err

    return run


@pytest.fixture
def base(lab: Lab, tmp_path: Path) -> Path:
    """A fetched model that a test may change."""
    return Path(shutil.copytree(lab.model, tmp_path / "base"))


def with_config(base: Path, **values: Any) -> Path:
    (base / "config.json").write_text(json.dumps(json_of(base / "config.json") | values))
    return base


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_tokenizer_learns_from_the_data_and_loses_nothing(initialise: Initialise, tmp_path: Path, kind: str) -> None:
    found = initialise(tokenizer_type=kind)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer) == found["vocabulary"] == 1000
    texts = [file.read_text(encoding="utf-8") for file in REGULATIONS]
    for text in (*texts, *ODD):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert sum(len(tokenizer(text)["input_ids"]) for text in texts) < sum(map(len, texts)) / 2
    spans = tokenizer(texts[0], return_offsets_mapping=True)["offset_mapping"]
    assert [start for start, _ in spans] == sorted(start for start, _ in spans), "labels are found by the characters that a token stands for"
    assert spans[-1][1] == len(texts[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_the_same_data_give_the_same_tokenizer_in_another_process(initialise: Initialise, lab: Lab, corpus: Path, tmp_path: Path, kind: str) -> None:
    found = initialise(tokenizer_type=kind)
    given = json.dumps(SETTINGS | {"scratch": {"from_scratch": True, "vocab_size": 1000, "tokenizer_type": kind}})
    (tmp_path / "again").mkdir()
    args = ["--model", lab.model, "--dataset", corpus, "--outdir", tmp_path / "again"]
    subprocess.run([sys.executable, ROOT / "bin/initialise_model.py", *args], input=given, text=True, check=True, timeout=100)
    assert json_of(tmp_path / "again/model/model.json") == found
    assert same_weights(tmp_path / "model", tmp_path / "again/model")


def test_weights_are_drawn_from_the_seed(initialise: Initialise, lab: Lab, tmp_path: Path) -> None:
    first = initialise()
    shutil.move(tmp_path / "model", tmp_path / "first")
    other = initialise(init_seed=1)
    assert other["tokenizer_sha256"] == first["tokenizer_sha256"]
    assert other["sha256"] != first["sha256"]
    assert not same_weights(tmp_path / "model", tmp_path / "first")
    drawn = weights_of(tmp_path / "model")
    assert drawn.keys() == weights_of(lab.model).keys()
    assert drawn["model.layers.0.mlp.up_proj.weight"].std().item() == pytest.approx(json_of(lab.model / "config.json")["initializer_range"], rel=0.05)
    assert len(drawn["lm_head.weight"]) == 1000


def test_the_description_is_that_of_a_fetched_model(initialise: Initialise, lab: Lab, tmp_path: Path) -> None:
    found, base = initialise(), json_of(lab.model / "model.json")
    assert found.keys() == base.keys() | {"learning_rate"}
    assert (found["id"], found["source"], found["revision"]) == (base["id"], base["source"], base["revision"])
    assert (found["kind"], found["license"], found["architecture"]) == ("scratch", None, "LlamaForCausalLM")
    assert found["parameters"] == sum(tensor.numel() for tensor in weights_of(tmp_path / "model").values())
    receipt = json_of(tmp_path / "initialise_model.json")
    assert receipt["inputs"]["model"] == base["sha256"]
    assert receipt["outputs"]["model"] == found["sha256"]
    assert receipt["counts"] == {"parameters": found["parameters"], "vocabulary": 1000}


def test_sizes_of_the_architecture(initialise: Initialise, tmp_path: Path) -> None:
    found = initialise(config_overrides="hidden_size=96, num_hidden_layers=3,num_attention_heads=6,tie_word_embeddings=true,rms_norm_eps=1e-5")
    assert (found["hidden_size"], found["layers"]) == (96, 3)
    config = json_of(tmp_path / "model/config.json")
    assert (config["head_dim"], config["rms_norm_eps"], config["vocab_size"]) == (16, 1e-5, 1000)
    assert "lm_head.weight" not in weights_of(tmp_path / "model")
    assert load_model(tmp_path / "model", torch.float32)(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, 1000)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("hiden_size=64", "hiden_size is no number of the model's config.json (did you mean hidden_size?)"),
        ("hidden_act=1", "hidden_act is no number"),
        ("hidden_size=66", "hidden_size 66 is not a multiple of num_attention_heads 4"),
        ("num_attention_heads=8,num_key_value_heads=3", "num_attention_heads 8 is not a multiple of num_key_value_heads 3"),
        ("num_hidden_layers=2.5", "num_hidden_layers=2.5 is not of the kind of the model's own num_hidden_layers=2"),
        ("num_hidden_layers=true", "is not of the kind"),
        ("vocab_size=100", "is --vocab_size"),
        ("head_dim=15", "llama does not accept that"),
        ("hidden_size=0", "hidden_size=0 must be at least 1"),
        ("initializer_range=7", "does not accept that"),
    ],
)
def test_sizes_that_cannot_be(refused: Callable[..., str], overrides: str, message: str) -> None:
    assert message in refused(config_overrides=overrides)


def test_an_architecture_that_does_not_write_text(refused: Callable[..., str], base: Path) -> None:
    assert "--from_scratch: t5 cannot be drawn" in refused(base=with_config(base, model_type="t5", num_heads=4))


def test_an_architecture_whose_tokenizer_is_fixed(refused: Callable[..., str], base: Path) -> None:
    assert "gives qwen2 its own tokenizer" in refused(base=with_config(base, model_type="qwen2", architectures=["Qwen2ForCausalLM"]))


def test_little_text_gives_what_there_is(initialise: Initialise, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(tmp_path / "train.parquet", [chat("a", "b")])
    (tmp_path / "dataset.json").write_text('{"sha256": "0"}')
    for kind in ("bpe", "wordpiece", "unigram"):
        found = initialise(dataset=tmp_path, tokenizer_type=kind)
        assert 256 < found["vocabulary"] < 600
        assert f"a vocabulary of {found['vocabulary']} tokens, fewer than --vocab_size 1,000" in capsys.readouterr().out


def test_a_vocabulary_without_room_for_all_bytes(refused: Callable[..., str]) -> None:
    assert "--vocab_size 500 is too small: wordpiece takes 515 tokens" in refused(tokenizer_type="wordpiece", vocab_size=500)


def test_every_text_of_a_record_is_learnt_from(initialise: Initialise, tmp_path: Path) -> None:
    turn = [{"role": "assistant", "content": "rejectedly rejectedly"}]
    chosen = {
        "type": "preference",
        "prompt": [{"role": "user", "content": "promptly promptly"}],
        "chosen": [turn[0] | {"content": "chosenly"}],
        "rejected": turn,
    }
    write_records(tmp_path / "train.parquet", [chosen, chosen, {"type": "text", "text": "plainly plainly"}])
    (tmp_path / "dataset.json").write_text('{"sha256": "0"}')
    initialise(dataset=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for word in (" rejectedly", " promptly", "chosenly", " plainly", "assistant"):
        assert len(tokenizer(word)["input_ids"]) <= 2, word


def test_the_bases_template_and_special_tokens_are_kept(initialise: Initialise, base: Path, tmp_path: Path) -> None:
    initialise(base)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer.chat_template == CHATML
    config = json_of(tmp_path / "model/config.json")
    assert [config[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    (base / "chat_template.jinja").write_text("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|eot|>' }}{% endfor %}")
    initialise(base)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert [len(tokenizer(mark)["input_ids"]) for mark in ("<|user|>", "<|assistant|>", "<|eot|>")] == [1, 1, 1]


def test_a_base_without_a_template_gets_chatml(initialise: Initialise, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "plain", template=None)
    (folder / "model.json").write_text('{"id": "plain", "source": "./plain", "revision": null, "sha256": "0"}')
    assert initialise(folder)["chat_template"] is True
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "<|im_start|>user\nHi<|im_end|>\n"
    assert len(tokenizer("<|im_end|>")["input_ids"]) == 1


def test_only_the_architecture_of_a_quantised_base_counts(initialise: Initialise, base: Path, tmp_path: Path) -> None:
    initialise(with_config(base, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 64}))
    assert "quantization_config" not in json_of(tmp_path / "model/config.json")


def test_layers_of_several_kinds_follow_their_number(initialise: Initialise, base: Path, tmp_path: Path) -> None:
    given = with_config(base, model_type="qwen3", architectures=["Qwen3ForCausalLM"], layer_types=["full_attention"] * 2, head_dim=32)
    assert initialise(given, config_overrides="num_hidden_layers=4,hidden_size=80")["layers"] == 4
    config = json_of(tmp_path / "model/config.json")
    assert (len(config["layer_types"]), config["head_dim"]) == (4, 32), "heads that are not as wide as their share of the hidden size stay so"


def test_it_trains_with_its_own_learning_rate(initialise: Initialise, lab: Lab, tmp_path: Path) -> None:
    assert initialise(dataset=lab.dataset, vocab_size=600)["learning_rate"] == 1e-3
    own = Lab(tmp_path / "model", lab.dataset, tmp_path)
    (trial,) = own.trials(techniques="full", learning_rate="auto")
    assert trial["hyperparameters"]["learning_rate"] == 1e-3
    (trained,) = own.train([trial], tmp_path / "trained")
    assert counts(trained)["status"] == "finished"
    losses = [line["loss"] for line in history(trained)]
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"from_scratch": True, "techniques": "full,lora"}, "--from_scratch needs --techniques full"),
        ({"from_scratch": True, "techniques": "full", "stage": "sft,dpo"}, "--from_scratch and --stage dpo cannot be combined"),
        ({"config_overrides": "hidden_size=64"}, "--config_overrides needs --from_scratch"),
        ({"from_scratch": True, "techniques": "full", "config_overrides": "hidden_size=64;num_hidden_layers=2"}, "expected name=number"),
        ({"from_scratch": True, "techniques": "full", "config_overrides": "hidden_size=064"}, "expected name=number"),
    ],
)
def test_parameters_that_do_not_go_together(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        resolve({"input": "data.jsonl", "outdir": "results", "models": "a/b", **values})
    assert message in str(refusal.value)
