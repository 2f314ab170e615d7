"""How much of a training goes at once: what trains needs to know it, and what estimates, which must do without torch."""

from __future__ import annotations

VALIDATION_EXAMPLES = 256  # the validation loss is measured on the first so many: enough to see its course
TOKENS_AT_ONCE = {"cpu": 480, "cuda": 4096}  # products of matrices are hardly faster with more, and memory grows with it
