"""Loading models: only safetensors, and what cannot be loaded says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny import weights_of

from llamaflow.errors import UsageError
from llamaflow.models import load_model, resolve_dtype, saved_dtype, trusted


def test_a_model_is_ready_to_use(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_model(tiny_model, torch.float32)
    assert not model.training
    assert torch.equal(model.lm_head.weight, weights_of(tiny_model)["lm_head.weight"])
    assert load_model(tiny_model, torch.bfloat16).dtype == torch.bfloat16
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", ["truncated", "pickle", "no weights", "unknown architecture"])
def test_a_model_that_cannot_be_loaded(fault: str, tiny_model: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    if fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif fault == "pickle":
        torch.save(weights_of(tiny_model), broken / "pytorch_model.bin")
        weights.unlink()
    elif fault == "no weights":
        weights.unlink()
    else:
        config = broken / "config.json"
        config.write_text(config.read_text().replace('"llama"', '"llama-next"'))
    with pytest.raises(UsageError, match="the model in broken cannot be loaded"):
        load_model(broken, torch.float32)


def test_dtype() -> None:
    assert resolve_dtype("float32") == torch.float32
    assert resolve_dtype("bfloat16") == torch.bfloat16
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and not torch.cuda.is_available():
        fast = any(flag in cpuinfo.read_text() for flag in ("avx512_bf16", "amx_bf16"))
        assert resolve_dtype("auto") == (torch.bfloat16 if fast else torch.float32)


def test_saved_dtype(tiny_model: Path, tmp_path: Path) -> None:
    assert saved_dtype(tiny_model) == torch.float32
    load_model(tiny_model, torch.bfloat16).save_pretrained(tmp_path)
    assert saved_dtype(tmp_path) == torch.bfloat16


def test_code_of_a_model_is_trusted_only_if_the_user_says_so() -> None:
    assert trusted({"models": {"trust_remote_code": True}})
    assert not trusted({"models": {"trust_remote_code": False}})
    assert not trusted({})
