"""1 for each row whose answer is JSON that satisfies a JSON Schema, else 0; the reference plays no part."""

import json

import datasets
import evaluate

from llamaflow.schemas import validator_of


class JsonSchema(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="https://json-schema.org",
            inputs_description="predictions, references: lists of texts; answer_schema: a JSON Schema as JSON text",
            features=datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str], references: list[str], answer_schema: str) -> dict[str, list[float]]:
        validator = validator_of(answer_schema)

        def is_right(text: str) -> bool:
            try:
                return bool(validator.is_valid(json.loads(text, parse_constant=_refuse)))
            except (ValueError, RecursionError):  # a model may open ten thousand brackets
                return False

        return {"json_schema": [float(is_right(text)) for text in predictions]}


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which are no JSON."""
    raise ValueError(constant)
