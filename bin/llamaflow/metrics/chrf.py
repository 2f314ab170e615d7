"""chrF2 of each row, 0 to 1: character n-grams up to 6, recall weighs double; works for every language (Popović 2015, chrF)."""

import datasets
import evaluate
import sacrebleu


class Chrf(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Popović 2015, https://aclanthology.org/W15-3049",
            inputs_description="predictions, references: lists of texts",
            features=datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        return {"chrf": [sacrebleu.sentence_chrf(text, [reference]).score / 100 for text, reference in zip(predictions, references, strict=True)]}
