"""1 for each row whose answer is the reference, else 0; case, Unicode form, white space and closing punctuation do not count."""

import datasets
import evaluate

from llamaflow.metrics import fold_answer


class ExactMatch(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Rajpurkar 2016, https://aclanthology.org/D16-1264",
            inputs_description="predictions, references: lists of texts",
            features=datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        return {"exact_match": [float(fold_answer(text) == fold_answer(reference)) for text, reference in zip(predictions, references, strict=True)]}
