"""Limits that several steps know of; some must do without torch."""

from __future__ import annotations

LABELS_LISTED = 200  # labels that dataset.json names, and that a classifier can choose from
VALIDATION_EXAMPLES = 256  # the validation loss is measured on the first so many: enough to see its course
TOKENS_AT_ONCE = {"cpu": 480, "cuda": 4096}  # products of matrices are hardly faster with more, and memory grows with it
TOKENS_TOGETHER = 2048  # of the longest rows of all processes that share a step on CPU
