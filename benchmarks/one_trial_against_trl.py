#!/usr/bin/env python3
"""One LoRA trial: tokens a second of ours and of TRL's fastest layout, and the share of this machine's GEMM peak. See README.md.

one_trial_against_trl.py --cache DIR [--rows reviews,questions] [--max-steps N] [--own-settings]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import common
import sides

from llamaflow.files import read_json

CELL = {"lora_r": 16, "learning_rate": 2e-4}
GEMM = (2048, 576, 1536)  # tokens, hidden size and intermediate size of the model: the largest product of a layer


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where the model, the rows and the trained trials go; later runs use it again")
    parser.add_argument("--results", type=Path, default=common.RESULTS / "one_trial_against_trl.json")
    parser.add_argument("--rows", default="reviews,questions")
    parser.add_argument("--max-steps", type=int, help="for a quick look: so many steps instead of an epoch")
    parser.add_argument("--tune-steps", type=int, default=10)
    parser.add_argument("--own-settings", action="store_true", help="TRL by its own settings alone: bfloat16, rows and attention")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    figures = common.begin(args) | {"gemm_gflops": gemm_gflops(), "rows": {}}
    for rows in args.rows.split(","):
        model = common.fetch_model(args.cache, common.PLAIN_TEMPLATE if rows == "questions" else None)
        figures["rows"][rows] = measure(args, rows, model, figures["gemm_gflops"]["best"])
        ours, trl = (figures["rows"][rows][side] for side in ("ours", "trl"))
        print(f"{rows}: {ours['tokens_per_second']} tokens/s, TRL {trl['tokens_per_second']}, ratio {figures['rows'][rows]['ours_to_trl']}")
        print(f"  share of the GEMM peak: {ours['share_of_peak']:.0%}, TRL {trl['share_of_peak']:.0%}")
    common.keep(args.results, figures)


def measure(args: argparse.Namespace, rows: str, model: Path, peak: float) -> dict[str, Any]:
    """Tokens a second of both sides on these rows, in one process that has all cores."""
    folder = args.cache / f"one-trial-{rows}"
    sides.prepare(model, common.rows_for(rows, args.cache), [CELL], folder, steps=args.max_steps)
    kept = args.cache / f"tuning-{rows}{'-own-settings' * args.own_settings}.json"
    tuning = sides.tuned(model, folder, kept, args.tune_steps, own_settings=args.own_settings)
    ours = sides.train_ours(model, folder)
    trl = sides.train_trl(model, folder / "tokens", sides.planned(folder)[0]["trials"], sides.fastest(tuning)["layout"], folder / "trl")
    gflops = gflops_per_token(model, folder, read_json(ours.trials[0] / "train_trials.json")["counts"]["trainable_parameters"])
    found = {side: done.figures() | {"share_of_peak": round(done.tokens_per_second * gflops / peak, 3)} for side, done in (("ours", ours), ("trl", trl))}
    ratio = round(ours.tokens_per_second / trl.tokens_per_second, 2)
    return {**found, "ours_to_trl": ratio, "gflops_per_token": round(gflops, 3), "tuning": tuning}


def gflops_per_token(model: Path, folder: Path, trained: int) -> float:
    """What a token costs at least when the base is frozen: forward and activation gradients of the base, those and weight gradients of
    the adapter, the head where something is learnt. Attention itself is left out."""
    config, counts = read_json(model / "config.json"), read_json(folder / "tokens" / "tokens.json")["splits"]["train"]
    head = config["vocab_size"] * config["hidden_size"]
    base = read_json(model / "model.json")["parameters"] - head * (1 if config["tie_word_embeddings"] else 2)
    flops: float = 4 * base + 6 * trained + 4 * head * counts["labelled_tokens"] / counts["tokens"]
    return flops / 1e9


def gemm_gflops(repeats: int = 1000) -> dict[str, float]:
    """GFLOP/s of bfloat16 products of the model's size on all cores: the best of many, and the median, which is lower where others share the machine."""
    import torch

    torch.set_num_threads(common.CORES)
    rows, inner, columns = GEMM
    left, right = torch.randn(rows, inner).bfloat16(), torch.randn(inner, columns).bfloat16()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    gflop = 2 * rows * inner * columns / 1e9
    return {"best": round(gflop / min(seconds), 1), "median": round(gflop / statistics.median(seconds), 1)}


if __name__ == "__main__":
    main()
