"""A pack: every trial is trained as it would be alone, and alone as PEFT would train it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Child, Lab, counts, examples, history, json_of, routed_batch, weights_of, with_values

from llamaflow.adapters import peft_config
from llamaflow.loss import CompletionLoss
from llamaflow.models import load_model
from llamaflow.techniques import load_base, load_trained, prepared
from llamaflow.trials import Trial

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
SHARED = ["lora", "rslora", "loraplus", "dora", "pissa", "olora"]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far, by norm: AdamW's first steps blow a rounding of a tiny gradient up to a whole step in single places."""
    return float((one - other).norm() / one.norm())


@pytest.fixture(scope="module")
def mixed(lab: Lab) -> list[dict[str, Any]]:
    """One trial of each technique that shares the base, and no two alike in anything else."""
    trials = lab.trials(techniques=",".join(SHARED), learning_rate=1e-2)
    ranks, batches, epochs = (4, 16, 8, 2, 6, 12), (8, 4, 8, 6, 3, 8), (2, 1, 1.5, 1, 2, 0.5)
    schedules, dropouts = ("cosine", "linear", "constant", "cosine", "constant", "linear"), (0.1, 0, 0, 0.2, 0, 0)
    made = []
    for number, trial in enumerate(trials):
        values = {"lora_r": ranks[number], "per_device_train_batch_size": batches[number], "num_train_epochs": epochs[number], "seed": number}
        values |= {
            "lr_scheduler_type": schedules[number],
            "lora_dropout": dropouts[number],
            "learning_rate": 1e-3 * (number + 1),
            "max_grad_norm": 0.5 + number,
        }
        made.append(with_values(trial, **values) | {"trial_id": f"trial-{trial['technique']}"})
    return made


def test_every_trial_of_a_pack_is_trained_as_alone(lab: Lab, mixed: list[dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    together = lab.train(mixed, tmp_path / "together")
    assert "one by one" not in capsys.readouterr().out
    for trial, in_pack in zip(mixed, together, strict=True):
        (alone,) = lab.train([trial], tmp_path / trial["technique"])
        expected, found = history(alone), history(in_pack)
        assert len(expected) == len(found) > 1
        for row, other in zip(expected, found, strict=True):
            assert other == pytest.approx(row, rel=1e-4), f"{trial['technique']}, step {row['step']}"
        first, second = weights_of(alone / "adapter"), weights_of(in_pack / "adapter")
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert apart(second[name], tensor) < 1e-3
        assert json_of(alone / "adapter/adapter_config.json") == json_of(in_pack / "adapter/adapter_config.json")
    assert len({round(history(trained)[1]["loss"], 3) for trained in together}) == len(together), "otherwise nothing is shown"


def test_dropout_does_not_depend_on_the_pack(lab: Lab, mixed: list[dict[str, Any]], tmp_path: Path) -> None:
    """And does something: without it the losses are others."""
    (dropped,) = lab.train([mixed[0]], tmp_path / "with")
    (whole,) = lab.train([with_values(mixed[0], lora_dropout=0.0)], tmp_path / "without")
    assert history(dropped)[1]["loss"] != pytest.approx(history(whole)[1]["loss"], rel=1e-6)


@pytest.mark.parametrize("technique", ["lora", "rslora", "dora"])
def test_alone_it_is_what_peft_computes(lab: Lab, technique: str) -> None:
    """The same start, losses and gradients, step by step, with plain PEFT, its padded rows and torch's own AdamW."""
    from peft import get_peft_model

    trial = Trial.model_validate(lab.trials(techniques=technique, lora_r=4)[0])
    torch.manual_seed(trial.hyperparameters["seed"])
    theirs: Any = get_peft_model(load_model(lab.model, torch.float32), peft_config(trial)).train()
    their_loss, their_weights = CompletionLoss(theirs), [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    with prepared(load_base(lab.model, trial), lab.model, [trial]) as ready:
        ready.model.train()
        our_loss, our_weights = CompletionLoss(ready.model), list(ready.parameters(trial).values())
        assert all(torch.equal(one, other) for one, other in zip(our_weights, their_weights, strict=True))
        optimizers = [torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0) for weights in (our_weights, their_weights)]
        for step in range(4):
            made = examples(20, 9, 14, 30, seed=step)
            batch = routed_batch(ready, {trial.trial_id: made})
            ours, other = our_loss.per_token(batch).mean(), their_loss.per_token(batch).mean()
            assert ours.item() == pytest.approx(other.item(), rel=1e-5)
            ours.backward()
            other.backward()
            for one, two in zip(our_weights, their_weights, strict=True):
                torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=5e-6)  # after steps that differ by rounding
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()


@pytest.mark.parametrize("technique", ["pissa", "olora"])
def test_a_start_from_the_bases_weights_leaves_the_base_whole(lab: Lab, technique: str, tmp_path: Path) -> None:
    """Untrained, the model answers as the base does; what is saved is a plain LoRA for the unchanged base, as PEFT reads it."""
    trial = Trial.model_validate(lab.trials(techniques=technique, lora_r=4)[0])
    base = load_base(lab.model, trial)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    made = examples(20, 9, 14)
    with prepared(base, lab.model, [trial]) as ready:
        assert all(parameter.any() for parameter in ready.parameters(trial).values()), "both matrices start from the weights"
        loss = CompletionLoss(ready.model)
        batch = routed_batch(ready, {trial.trial_id: made})
        with torch.no_grad():
            start = loss.per_token(batch)
            for parameter in ready.parameters(trial).values():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
            moved = loss.per_token(batch)
        ready.save(trial, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(start, CompletionLoss(base).per_token(batch), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moved, CompletionLoss(load_trained(lab.model, tmp_path, "float32")).per_token(batch), rtol=1e-4, atol=1e-5)
    assert (start - moved).abs().max() > 0.1
    config = json_of(tmp_path / "adapter/adapter_config.json")
    assert (config["r"], config["init_lora_weights"]) == (8, True)


@pytest.mark.parametrize("technique", ["lora", "pissa"])
def test_gated_layers_and_norms_are_one_operation_until_the_pack_is_closed(lab: Lab, technique: str) -> None:
    (trial,) = [Trial.model_validate(values) for values in lab.trials(techniques=technique, lora_dropout=0.1)]
    base = load_base(lab.model, trial)
    with prepared(base, lab.model, [trial]):
        replaced = {type(module).__name__ for module in base.modules() if "forward" in vars(module)}
        assert {"LlamaMLP", "LlamaRMSNorm"} <= replaced
    assert not [module for module in base.modules() if "forward" in vars(module)]


def test_adapters_meet_only_their_own_rows(lab: Lab) -> None:
    """The other trials' gradients do not change by a bit when one adapter holds nonsense."""
    one, other = (Trial.model_validate(trial) for trial in lab.trials(lora_r="4,8"))

    def gradients(nonsense: float) -> list[torch.Tensor]:
        with prepared(load_base(lab.model, one), lab.model, [one, other]) as ready:
            with torch.no_grad():
                for parameter in ready.parameters(other).values():
                    parameter.fill_(nonsense)
            loss = CompletionLoss(ready.model)
            batch = routed_batch(ready, {one.trial_id: examples(20, 9), other.trial_id: examples(12, 17, seed=1)})
            loss.per_token(batch).sum().backward()
            return [parameter.grad for parameter in ready.parameters(one).values() if parameter.grad is not None]

    sane, insane = gradients(0.1), gradients(float("nan"))
    assert len(sane) == 2 * 14
    assert all(torch.equal(first, second) for first, second in zip(sane, insane, strict=True))


def test_loraplus_learns_its_matrices_b_faster(lab: Lab, tmp_path: Path) -> None:
    """With the ratio 1 it is LoRA."""
    lora, plus = lab.trials(techniques="lora,loraplus", num_train_epochs=0.5)
    same = with_values(plus, loraplus_lr_ratio=1.0) | {"trial_id": "same"}
    trained = [weights_of(trial / "adapter") for trial in lab.train([lora, plus, same], tmp_path)]
    for name in trained[0]:
        assert apart(trained[0][name], trained[2][name]) < 1e-3
        assert (trained[0][name] - trained[1][name]).abs().max() > 1e-2


def test_a_pack_that_crashes_goes_on_one_by_one(lab: Lab, tmp_path: Path, capsys: Any) -> None:
    """Here, a hyperparameter that no plan would give."""
    good, bad = lab.trials(lora_r="4,8")
    finished, crashed = lab.train([good, with_values(bad, lr_scheduler_type="polygon")], tmp_path)
    assert counts(finished)["status"] == "finished"
    assert counts(crashed)["status"] == "failed"
    assert counts(crashed)["reason"].startswith("crashed: ")
    assert "polygon" in counts(crashed)["reason"]


@pytest.mark.parametrize(("failures", "words"), [(1, "tokens at once"), (3, "activation checkpointing")])
def test_out_of_memory_goes_on_with_less(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, failures: int, words: str) -> None:
    """The same training, in smaller pieces or with its activations computed twice."""
    from llamaflow import passes

    trials = lab.trials(lora_r="4,8", num_train_epochs=1)
    expected = [history(trained) for trained in lab.train(trials, tmp_path / "expected")]
    stack, left = passes.stack, failures

    def stack_in_little_memory(rows: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise MemoryError("no room for so many tokens")
        return stack(rows)

    monkeypatch.setattr(passes, "stack", stack_in_little_memory)
    found = [history(trained) for trained in lab.train(trials, tmp_path / "found")]
    assert f"out of memory: goes on with {words}" in re.sub(r"at most \d+ ", "", capsys.readouterr().out)
    for one, other in zip(expected, found, strict=True):
        assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in other], rel=1e-4)
    left = 1_000_000
    child = Child(lambda: lab.train(trials, tmp_path / "never"))
    with child.output:
        assert "out of memory" in child.output.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 75, "the next attempt gets more"
