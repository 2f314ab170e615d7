"""Sentence BLEU of each row, 0 to 1: word n-grams up to 4, or as many as the sentence has (Papineni 2002; Post 2018, sacrebleu)."""

import datasets
import evaluate
import sacrebleu


class Bleu(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Post 2018, https://aclanthology.org/W18-6319",
            inputs_description="predictions, references: lists of texts",
            features=datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        bleu = sacrebleu.BLEU(effective_order=True)  # without it, a sentence of three words always scores 0
        return {"bleu": [bleu.sentence_score(text, [reference]).score / 100 for text, reference in zip(predictions, references, strict=True)]}
