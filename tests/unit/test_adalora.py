"""AdaLoRA: the same as PEFT's, step by step, with the ranks that were asked for in the end, and after a kill."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Child, Lab, examples, same_weights, weights_of

from llamaflow.adalora import RankAllocation
from llamaflow.adapters import adapted, peft_config
from llamaflow.batches import make_batch
from llamaflow.loss import CompletionLoss
from llamaflow.models import load_model
from llamaflow.trials import Trial

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
STEPS = 20


def made(lab: Lab, trial: Trial) -> tuple[Any, dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = adapted(load_model(lab.model, torch.float32).requires_grad_(False), peft_config(trial)).train()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return model, weights, torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=0.0)


def test_it_is_what_peft_does(lab: Lab) -> None:
    """Losses with the regularisation, importance, masks: PEFT's forward and update_and_allocate on one side, ours on the other."""
    trial = Trial.model_validate(lab.trials(techniques="adalora", lora_r=4)[0])
    ours, our_weights, our_optimizer = made(lab, trial)
    theirs, their_weights, their_optimizer = made(lab, trial)
    ranks, loss = RankAllocation(trial, our_weights, STEPS), CompletionLoss(ours)
    theirs.peft_config["default"].__dict__.update(vars(ranks.config) | {"target_modules": theirs.peft_config["default"].target_modules})
    for step in range(1, STEPS + 1):
        (ids, _), *_ = example = examples(24, seed=step)
        example[0][1][:] = True
        loss.per_token(make_batch(example, packing=False)).mean().backward()
        ranks.regularise()
        our_optimizer.step()
        ranks.allocate(step)
        tokens = torch.from_numpy(ids).long()[None]
        theirs(input_ids=tokens, labels=tokens).loss.backward()
        their_optimizer.step()
        theirs.base_model.update_and_allocate(step)
        for optimizer in (our_optimizer, their_optimizer):
            optimizer.zero_grad()
        for name, weight in our_weights.items():
            torch.testing.assert_close(weight, their_weights[name], rtol=1e-3, atol=2e-3)
            if "lora_E" in name:
                assert torch.equal(weight == 0, their_weights[name] == 0), f"the same ranks are masked after step {step}"
    assert list(ranks.kept.values()) == list(theirs.peft_config["default"].rank_pattern.values())


def test_so_many_ranks_are_kept_in_the_mean(lab: Lab, tmp_path: Path) -> None:
    (trained,) = lab.train(lab.trials(techniques="adalora", lora_r=4, num_train_epochs=4), tmp_path)
    singular = [tensor for name, tensor in weights_of(trained / "adapter").items() if "lora_E" in name]
    assert {len(tensor) for tensor in singular} == {6}
    kept = [int((tensor != 0).sum()) for tensor in singular]
    assert sum(kept) == 4 * len(kept)
    assert len(set(kept)) > 1, "not the same for all layers"


@pytest.mark.slow
def test_after_kills_it_goes_on_as_if_nothing_had_happened(lab: Lab, tmp_path: Path) -> None:
    """While ranks are still being chosen, and after the choice."""
    trials = lab.trials(techniques="adalora", lora_r=4, num_train_epochs=6)
    settings: dict[str, Any] = {"store": tmp_path / "store", "save_steps": 1, "logging_steps": 1}
    (undisturbed,) = lab.train(trials, tmp_path / "undisturbed")
    for step in (9, 23):
        child = Child(lambda: lab.train(trials, tmp_path / "killed", **settings))
        assert child.kill_after(f"step {step}/24", signal.SIGKILL) == -signal.SIGKILL
    (resumed,) = lab.train(trials, tmp_path / "resumed", **settings)
    assert same_weights(resumed / "adapter", undisturbed / "adapter")
