"""Measures of generated answers, one number a row.

Each file here is a Hugging Face evaluate module, `evaluate.load("bin/llamaflow/metrics/rouge_l.py")` works without a hub.
Ours return one score a row under their own name, from 0 (nothing in common) to 1 (the reference itself); BLEU and chrF, which
sacrebleu gives as 0 to 100, are divided by 100. Any other evaluate module can be named by its id or path.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaflow.errors import UsageError
from llamaflow.params import Answers
from llamaflow.records import fold
from llamaflow.validation import NEEDED, nearest

OURS = ("rouge_l", "chrf", "bleu", "exact_match", *NEEDED)
CLOSING = ".,;:!?。 "  # what NFKC leaves of them


def fold_answer(text: str) -> str:
    """An answer or a label as exact_match sees it: NFKC, case-folded, white space folded, closing punctuation stripped."""
    return fold(text).rstrip(CLOSING)


def column_of(name: str) -> str:
    """The short name of a measure: that of ours, or the last part of an id or a path (its score column is score_<this>)."""
    return Path(name).stem


def row_scores(name: str, predictions: Sequence[str], references: Sequence[str], answers: Answers | None = None) -> list[float]:
    """Score each prediction against its reference, with ours by name or any evaluate module by id or path.

    Modules that only give one number for all rows are computed row by row. Raises UsageError if the module cannot be loaded,
    needs other inputs (of ours, pattern and json_schema need their parameter in `answers`), or returns no number.
    """
    if not predictions:
        return []
    module, needed = _load(name), NEEDED.get(name)
    given = {needed: getattr(answers, needed, None)} if needed else {}
    if needed and given[needed] is None:
        raise UsageError(f"the measure {name} needs --{needed}")
    try:
        result = module.compute(predictions=list(predictions), references=list(references), **given)
        key, value = _pick(result, column_of(name), len(predictions))
        if isinstance(value, list):
            return value
        rows = zip(predictions, references, strict=True)
        return [float(module.compute(predictions=[prediction], references=[reference])[key]) for prediction, reference in rows]
    except (ValueError, TypeError, KeyError, LookupError) as error:
        raise UsageError(
            f"the measure {name} does not work on pairs of texts (one prediction, one reference): {error}. Name another one; ours are {', '.join(OURS)}."
        ) from error


def _pick(result: Mapping[str, Any], name: str, rows: int) -> tuple[str, list[float] | float]:
    """The measure's number in a result: the key with its own name, then the usual ones, then whichever comes first."""
    for key in (name, "score", "f1", *result):
        value: Any = result.get(key)
        value = value.tolist() if hasattr(value, "tolist") else value  # numpy's
        if isinstance(value, list) and len(value) == rows and all(isinstance(score, int | float) for score in value):
            return key, [float(score) for score in value]
        if isinstance(value, int | float):
            return key, float(value)
    raise LookupError(f"its result holds no number a row (it has {', '.join(map(str, result)) or 'nothing'})")


@functools.cache
def _load(name: str) -> Any:
    """The module, loaded once in a process: grpo scores every step's answers with it."""
    _keep_off_an_unwritable_home()
    import evaluate
    from evaluate.loading import import_main_class

    cache = tempfile.mkdtemp(prefix="llamaflow_metric_")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    if name in OURS:  # imported in place: no copy in a shared cache that several tasks write at once
        return import_main_class(f"llamaflow.metrics.{name}")(cache_dir=cache, keep_in_memory=True)
    try:
        return evaluate.load(name, cache_dir=cache, keep_in_memory=True)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise UsageError(
            f"the measure {name!r} cannot be loaded{nearest(name, OURS)}: {error}\n"
            f"Ours are {', '.join(OURS)}; any other is the id or the path of a Hugging Face evaluate module (ids need the hub, or a filled cache)."
        ) from error


def _keep_off_an_unwritable_home() -> None:
    """evaluate copies a module that it loads into a cache in the home directory; containers often have none that can be written."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (Path.home() raises for a user without an entry)
    if not {"HF_HOME", "HF_MODULES_CACHE", "XDG_CACHE_HOME"} & set(os.environ) and not os.access(home, os.W_OK):
        os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="llamaflow_modules_")
