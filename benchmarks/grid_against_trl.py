#!/usr/bin/env python3
"""A grid of 8 LoRA trials: LlamaFlow's packs against TRL's SFTTrainer, one process a trial. See README.md.

grid_against_trl.py --cache DIR [--sides ours,trl] [--trials 8] [--max-steps N] [--tune] [--own-settings] [--peer-trials N]
    [--training '{}' --training '{"scheduler": "halving"}']
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import sides

from llamaflow.files import read_json, write_json

RANKS = (8, 16)
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
CELLS = [{"lora_r": rank, "learning_rate": rate} for rank, rate in itertools.product(RANKS, LEARNING_RATES)]
RESAMPLES = 2000  # behind each interval


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where the model, the rows and the trained trials go; later runs use it again")
    parser.add_argument("--results", type=Path, default=common.RESULTS / "grid_against_trl.json")
    parser.add_argument("--sides", default="ours,trl")
    parser.add_argument("--trials", type=int, default=len(CELLS))
    parser.add_argument("--max-steps", type=int, help="for a quick look: so many steps instead of an epoch")
    parser.add_argument("--training", type=json.loads, action="append", help="more settings of ours, as JSON; once for every way to train the grid")
    parser.add_argument("--packs", type=int, default=1, help="processes that share our trials and the cores")
    parser.add_argument("--tune", action="store_true", help="only find TRL's fastest layout, anew; later runs take it from the cache")
    parser.add_argument("--tune-steps", type=int, default=10)
    parser.add_argument("--own-settings", action="store_true", help="TRL by its own settings alone: bfloat16, rows and attention; one process after the other")
    parser.add_argument(
        "--peer-trials", type=int, default=len(CELLS), help="so many of TRL's trials, which all take as long, and their time for all; no accuracies"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    model, dataset = common.fetch_model(args.cache), common.rows_for("reviews", args.cache)
    cells, figures, done = CELLS[: args.trials], common.begin(args), dict[str, sides.Done]()
    for training in (args.training or [{}]) if "ours" in args.sides and not args.tune else []:
        side = " ".join(["ours", *(f"{name}={value}" for name, value in training.items())])
        folder = args.cache / side.replace(" ", "-")
        preparing = sides.prepare(model, dataset, cells, folder, packs=args.packs, steps=args.max_steps, **training)
        done[side] = sides.train_ours(model, folder, **training).after(preparing)
    if "trl" in args.sides or args.tune:
        folder = args.cache / "trl"
        sides.prepare(model, dataset, cells, folder, steps=args.max_steps)
        kept = args.cache / f"tuning-reviews{'-own-settings' * args.own_settings}.json"
        figures["tuning"] = sides.tuned(model, folder, kept, args.tune_steps, anew=args.tune, own_settings=args.own_settings)
        if args.tune:
            return
        done["trl"] = train_trl(model, folder, figures["tuning"], args.peer_trials)
    write_json(args.cache / "times.json", figures | {side: what.figures() for side, what in done.items()})  # should the scoring fail
    common.keep(args.results, figures | finish(model, dataset, done))


def finish(model: Path, dataset: Path, done: dict[str, sides.Done]) -> dict[str, Any]:
    """Score every trial of every side, and the base; print the comparison."""
    answers = {side: score(model, what.trials, dataset) for side, what in done.items()}
    figures: dict[str, Any] = {"base": accuracy(common.predictions(model, None, dataset))}
    figures |= {side: done[side].figures() | {"trials": [describe(*scored) for scored in answers[side].items()]} for side in done}
    ours = [side for side in done if side != "trl"]
    for side, what in done.items():
        print(f"{side}: {what.seconds:.0f} s, {what.tokens_per_second:.0f} tokens/s while training, best accuracy {accuracy(best_of(answers[side]))}")
    for side in ours if "trl" in done else []:
        figures[side]["to_trl"] = compare(done[side], done["trl"], answers[side], answers["trl"])
    for side in ours[1:]:
        figures[side]["winner_to_first"] = gain(answers[side][chosen(answers[side])], answers[ours[0]][chosen(answers[ours[0]])])
    for side in ours:
        print(json.dumps({name: figures[side].get(name) for name in ("to_trl", "winner_to_first")}, indent=2))
    return figures


def train_trl(model: Path, folder: Path, tuning: list[sides.Tried], count: int) -> sides.Done:
    """The same trials as planned for ours, in the layout that finishes them first; if only `count` are trained, with the seconds of all."""
    trials = [trial for pack in sides.planned(folder) for trial in pack["trials"]]
    tokens = read_json(folder / "tokens" / "tokens.json")["splits"]["train"]["tokens"]
    best = sides.fastest_for_grid(tuning, len(trials), tokens)
    done = sides.train_trl(model, folder / "tokens", trials[:count], best["layout"], folder / "trl", at_once=best["at_once"])
    return replace(done, seconds=done.seconds * len(trials) / len(done.trials))


def score(model: Path, trials: list[Path], dataset: Path) -> dict[Path, Any]:
    """The test answers of every trial that ended with an adapter."""
    return {trial: common.predictions(model, trial, dataset) if (trial / "adapter").exists() else None for trial in trials}


def describe(trial: Path, answers: Any) -> dict[str, Any]:
    """A trial's accuracy, and how it ended (ours) or its losses (TRL's)."""
    receipt = trial / "train_trials.json"
    ended = read_json(receipt)["counts"] if receipt.exists() else {"losses": read_json(trial / "trl.json")["losses"]}
    found = {"trial": trial.name, "accuracy": accuracy(answers) if answers else None, **ended}
    print("  {trial:70} {accuracy}".format(**found))
    return found


def accuracy(answers: Any) -> dict[str, float]:
    """value, ci_low and ci_high (95 %), n."""
    from llamaflow.stats import estimates

    found = estimates(answers, RESAMPLES, common.SEED)["accuracy"]
    return {name: round(value, 4) for name, value in found.items()}


def chosen(answers: dict[Path, Any]) -> Path:
    """Our trial that a user would get: the lowest validation loss."""
    return min((trial for trial, table in answers.items() if table), key=lambda trial: read_json(trial / "train_trials.json")["counts"]["validation_loss"])


def best_of(answers: dict[Path, Any]) -> Any:
    return max((table for table in answers.values() if table), key=lambda table: accuracy(table)["value"])


def compare(ours: sides.Done, trl: sides.Done, our_answers: dict[Path, Any], their_answers: dict[Path, Any]) -> dict[str, Any]:
    """Ratios, above 1 where ours is faster; and how much better our best trial answers the same test rows, with its 95 % interval."""
    ratios = {"wall_time": round(trl.seconds / ours.seconds, 2), "tokens_per_second": round(ours.tokens_per_second / trl.tokens_per_second, 2)}
    if len(their_answers) < len(our_answers):
        return ratios
    return ratios | {"best_accuracy_gain": gain(best_of(our_answers), best_of(their_answers))}


def gain(answers: Any, to: Any) -> Any:
    from llamaflow.stats import paired_gain

    return paired_gain(answers, to, "accuracy", RESAMPLES, common.SEED)


if __name__ == "__main__":
    main()
