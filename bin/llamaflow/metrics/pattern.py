"""1 for each row whose answer matches a regular expression, else 0; if that has a group, the group must find there what it finds in the reference."""

import re

import datasets
import evaluate

from llamaflow.metrics import fold_answer


class Pattern(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="https://docs.python.org/3/library/re.html",
            inputs_description="predictions, references: lists of texts; answer_pattern: a regular expression of Python",
            features=datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str], references: list[str], answer_pattern: str) -> dict[str, list[float]]:
        pattern = re.compile(answer_pattern)

        def found(text: str) -> str | None:
            """What the group finds; of several groups (one | other), the first that takes part in the match."""
            match = pattern.search(text)
            return next((part for part in match.groups() if part is not None), None) if match else None

        def is_right(text: str, reference: str) -> bool:
            if not pattern.groups:
                return pattern.search(text) is not None
            answer = found(text)
            return answer is not None and fold_answer(answer) == fold_answer(found(reference) or reference)

        return {"pattern": [float(is_right(text, reference)) for text, reference in zip(predictions, references, strict=True)]}
