"""fetch_model: every origin becomes one form, and what cannot work is refused here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from tiny import CHATML, SETTINGS, json_of, same_weights, weights_of, write_model
from transformers import AutoTokenizer

import fetch_model
from llamaflow.files import sha256
from llamaflow.models import load_model
from llamaflow.references import parse_reference
from llamaflow.tokencount import TokenCounter


class Fetch:
    def __init__(self, run_step: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.run_step, self.folder, self.capsys = run_step, folder, capsys

    def __call__(self, text: str, path: Path | None = None, **more: Any) -> dict[str, Any]:
        """Fetch a model; returns model.json."""
        given = SETTINGS | {"model": parse_reference(text).as_dict()} | more
        self.run_step("fetch_model", [*(["--path", path] if path else []), "--outdir", self.folder], given)
        found: dict[str, Any] = json_of(self.folder / "model/model.json")
        return found

    def refused(self, text: str, path: Path | None = None, **more: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            self(text, path, **more)
        assert ended.value.code == 64
        assert not (self.folder / "model").exists()
        assert not (self.folder / "fetch_model.json").exists()
        return self.capsys.readouterr().err


@pytest.fixture
def fetch(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fetch:
    (tmp_path / "out").mkdir()
    return Fetch(run_step, tmp_path / "out", capsys)


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A model directory that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def write_gguf(path: Path, model: Path) -> Path:
    """The tiny Llama as a GGUF file, as llama.cpp's converter would write it."""
    import gguf
    from gguf import GGUFWriter

    config, tokenizer = json_of(model / "config.json"), json_of(model / "tokenizer.json")["model"]
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    words = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL if word.startswith("<|") else gguf.TokenType.NORMAL for word in words])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHATML)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in weights_of(model).items():
        projection = name.split(".")[-2]
        if projection in heads:  # llama.cpp interleaves the halves of the rotary embedding
            tensor = tensor.reshape(heads[projection], 2, -1, tensor.shape[-1]).transpose(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_local_directory(fetch: Fetch, tiny_model: Path) -> None:
    found = fetch("./models/tiny", tiny_model)
    assert (found["id"], found["kind"], found["source"], found["revision"]) == ("tiny", "path", "./models/tiny", None)
    assert found["architecture"] == "LlamaForCausalLM"
    assert found["vocabulary"] == 500
    assert found["chat_template"] is True
    assert found["license"] is None
    assert found["parameters"] == sum(tensor.numel() for tensor in weights_of(tiny_model).values())
    assert (found["layers"], found["hidden_size"]) == (2, 64)
    assert found["parameters_in_layers"] == sum(tensor.numel() for name, tensor in weights_of(tiny_model).items() if ".layers." in name)
    assert list(found["linear"]) == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert found["linear"]["k_proj"] == [2 * 64 * 32, 2 * (64 + 32)]
    assert same_weights(fetch.folder / "model", tiny_model)
    (fetch.folder / "model/model.json").unlink()
    assert found["sha256"] == sha256(fetch.folder / "model") == json_of(fetch.folder / "fetch_model.json")["outputs"]["model"]


def test_the_digests_tell_weights_and_tokenizer_apart(fetch: Fetch, copy: Path) -> None:
    first = fetch("./copy", copy)
    load_model(copy, torch.bfloat16).save_pretrained(copy)
    second = fetch("./copy", copy)
    assert first["sha256"] != second["sha256"]
    assert first["tokenizer_sha256"] == second["tokenizer_sha256"]
    third = fetch("./copy", copy, chat_template_text="{{ messages[0].content }}")
    assert third["tokenizer_sha256"] != second["tokenizer_sha256"]


def test_a_file_in_a_package(fetch: Fetch, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "weights_of_tiny"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copytree(tiny_model, package / "sub/tiny")
    (tmp_path / "site" / "outside").mkdir()
    (package / "link").symlink_to(tmp_path / "site" / "outside")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert fetch("pkg://weights_of_tiny/sub/tiny")["source"] == "pkg://weights_of_tiny/sub/tiny"
    shutil.rmtree(fetch.folder / "model")
    (fetch.folder / "fetch_model.json").unlink()
    assert "has no file sub/other" in fetch.refused("pkg://weights_of_tiny/sub/other")
    assert "has no file link" in fetch.refused("pkg://weights_of_tiny/link"), "what lies outside the package"
    assert "which is not installed" in fetch.refused("pkg://no_such_package/tiny")
    assert "weights_of_tiny" not in sys.modules, "looked up, not run"


def test_paths_that_lead_nowhere(fetch: Fetch, tiny_model: Path, tmp_path: Path) -> None:
    assert "there is no" in fetch.refused("./missing", tmp_path / "missing")
    assert "but not a .gguf file" in fetch.refused("./tiny/config.json", tiny_model / "config.json")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in fetch.refused("./empty", tmp_path / "empty")


def test_weights_that_can_run_code_are_not_read(fetch: Fetch, copy: Path) -> None:
    torch.save(weights_of(copy), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert "has no .safetensors files" in fetch.refused("./copy", copy)


def test_a_damaged_model(fetch: Fetch, copy: Path) -> None:
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be loaded (SafetensorError" in fetch.refused("./copy", copy)
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "config.json").write_text("{")
    assert "cannot be loaded" in fetch.refused("./copy", copy)


def test_a_model_without_a_chat_template(fetch: Fetch, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", template=None)
    assert fetch("./base", base)["chat_template"] is False
    assert fetch("./base", base, chat_template_text=CHATML)["chat_template"] is True
    tokenizer = AutoTokenizer.from_pretrained(fetch.folder / "model")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "<|im_start|>user\nHi<|im_end|>\n"


def test_a_template_replaces_the_models_and_leaves_the_users_file_alone(fetch: Fetch, copy: Path) -> None:
    (copy / "chat_template.jinja").write_text(CHATML)
    fetch("./copy", copy, chat_template_text="{{ messages[0].content }}!")
    assert (copy / "chat_template.jinja").read_text() == CHATML
    tokenizer = AutoTokenizer.from_pretrained(fetch.folder / "model")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"


@pytest.mark.parametrize("template", ["{% for %}", "{{ raise_exception('no') }}", "{{ messages[0].nothing.at.all }}"])
def test_a_template_that_does_not_work(fetch: Fetch, tiny_model: Path, template: str) -> None:
    assert "chat template" in fetch.refused("./tiny", tiny_model, chat_template_text=template)


def test_lengths_count_what_the_template_adds(fetch: Fetch, tiny_model: Path) -> None:
    polite = CHATML.replace("{% for", "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe so kind.<|im_end|>\n' }}{% endif %}{% for", 1)
    mute = "{{ raise_exception('no system') if messages[0]['role'] == 'system' }}" + CHATML
    plain, kind, strict = (fetch("./tiny", tiny_model, chat_template_text=template)["lengths"] for template in (CHATML, polite, mute))
    assert plain["no_system"] == strict["no_system"] == 0
    assert plain["message"] == kind["message"] > 3
    assert strict["message"] > 3
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert kind["no_system"] == pytest.approx(len(tokenizer("<|im_start|>system\nBe so kind.<|im_end|>\n")["input_ids"]), abs=2)
    assert [point[0] for point in plain["tokens_per_character"]] == sorted(point[0] for point in plain["tokens_per_character"])


def test_the_licence_of_the_models_card(fetch: Fetch, copy: Path) -> None:
    (copy / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    assert fetch("./copy", copy)["license"] == "apache-2.0"
    assert not (fetch.folder / "model/README.md").exists()


def test_a_hub_id_without_the_hub(fetch: Fetch) -> None:
    error = fetch.refused("owner/tiny@v1")
    assert "owner/tiny could not be fetched from the Hugging Face Hub" in error
    assert "HF_TOKEN" in error
    assert "could not be fetched" in fetch.refused("owner/a--b"), "a name that the hub does not allow"


def test_a_gguf_file(fetch: Fetch, tiny_model: Path, tmp_path: Path) -> None:
    found = fetch("./tiny.gguf", write_gguf(tmp_path / "tiny.gguf", tiny_model))
    assert (found["id"], found["license"], found["chat_template"]) == ("tiny", "apache-2.0", True)
    converted = fetch.folder / "model"
    assert {tensor.dtype for tensor in weights_of(converted).values()} == {torch.bfloat16}
    assert "quantization_config" not in json_of(converted / "config.json")
    text = "<|im_start|>user\nForm F-2, é?<|im_end|>\n"
    ids = AutoTokenizer.from_pretrained(tiny_model)(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(converted)(text, add_special_tokens=False)["input_ids"] == ids
    with torch.no_grad():
        expected, given = (load_model(path, torch.float32)(torch.tensor([ids])).logits for path in (tiny_model, converted))
    assert (expected - given).abs().max() < 0.05 * expected.std(), "bfloat16 rounds, no more"


def test_a_damaged_gguf_file(fetch: Fetch, tiny_model: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF" + bytes(range(256)) * 8)
    assert "garbage.gguf cannot be read as a GGUF model" in fetch.refused("./garbage.gguf", garbage)
    whole = write_gguf(tmp_path / "whole.gguf", tiny_model).read_bytes()
    for share in (0.02, 0.5, 0.98):
        cut = tmp_path / f"cut{share}.gguf"
        cut.write_bytes(whole[: int(share * len(whole))])
        assert "may be damaged or incomplete" in fetch.refused("./cut.gguf", cut)


TOKENIZER = {"parameter": "tokenizer"}


def test_a_tokenizer_alone(fetch: Fetch, copy: Path) -> None:
    for file in copy.glob("*.safetensors"):
        file.unlink()
    found = fetch("./copy", copy, **TOKENIZER)
    assert sorted(file.name for file in (fetch.folder / "model").iterdir()) == ["model.json", "tokenizer.json"]
    assert (fetch.folder / "model/tokenizer.json").read_bytes() == (copy / "tokenizer.json").read_bytes()
    assert (found["id"], found["source"], found["vocabulary"]) == ("copy", "./copy", 500)
    written = json_of(fetch.folder / "fetch_model.json")
    assert (written["outputs"]["model"], written["counts"]) == (found["tokenizer_sha256"], {"vocabulary": 500})
    (copy / "config.json").unlink()
    (copy / "chat_template.jinja").write_text("another")
    assert fetch("./copy", copy, **TOKENIZER)["tokenizer_sha256"] == found["tokenizer_sha256"]


def test_a_tokenizer_in_a_package(fetch: Fetch, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "tokens_of_tiny"
    shutil.copytree(tiny_model, package / "tiny", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert fetch("pkg://tokens_of_tiny/tiny", **TOKENIZER)["vocabulary"] == 500


def test_the_tokenizer_of_a_gguf_file(fetch: Fetch, tiny_model: Path, tmp_path: Path) -> None:
    found = fetch("./tiny.gguf", write_gguf(tmp_path / "tiny.gguf", tiny_model), **TOKENIZER)
    assert (found["id"], found["vocabulary"]) == ("tiny", 500)
    assert sorted(file.name for file in (fetch.folder / "model").iterdir()) == ["model.json", "tokenizer.json"]
    texts = ["Form F-2, é?", "数字 0123456789", "a " * 50]
    plain = AutoTokenizer.from_pretrained(tiny_model)(texts, add_special_tokens=False)["input_ids"]
    assert list(TokenCounter(fetch.folder / "model")([text] for text in texts)) == list(map(len, plain))


def test_a_tokenizer_of_an_older_form(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "form", "##s", "is", "due"]
    (tmp_path / "old/vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "old/tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert fetch("./old", tmp_path / "old", **TOKENIZER)["vocabulary"] == 10
    assert list(TokenCounter(fetch.folder / "model")([["The forms", "is due"]])) == [5]
    assert sorted(file.name for file in (fetch.folder / "model").iterdir()) == ["model.json", "tokenizer.json"]


def test_tokenizers_that_cannot_count(fetch: Fetch, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 8)
    for name in ("empty", "slow", "damaged.gguf"):
        message = fetch.refused(f"./{name}", tmp_path / name, **TOKENIZER)
        assert f"--tokenizer: {name} has no tokenizer.json, nor anything that one could be made of (" in message
        assert message.strip().count("\n") == 0
    (copy / "tokenizer.json").write_text("{")
    assert "--tokenizer: its tokenizer.json cannot be read" in fetch.refused("./copy", copy, **TOKENIZER)
    assert "--tokenizer: there is no" in fetch.refused("./missing", tmp_path / "missing", **TOKENIZER)
    assert "--tokenizer: owner/tiny could not be fetched from the Hugging Face Hub" in fetch.refused("owner/tiny", **TOKENIZER)


def test_no_weights_are_fetched_for_a_tokenizer() -> None:
    files = ["config.json", "generation_config.json", "merges.txt", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "spiece.model"]
    files += ["README.md", "onnx/model.onnx", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "modeling.py"]
    chosen = filter_repo_objects(files, allow_patterns=fetch_model.TOKENIZER_FILES)
    assert list(chosen) == [
        *("config.json", "merges.txt", "spiece.model", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
    ]
