"""ROUGE-L F1 of each row, 0 to 1: the longest common subsequence of words (Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries)."""

import unicodedata

import datasets
import evaluate
from rouge_score import rouge_scorer


class UnicodeWords:
    """Letters, digits and their marks, case-folded. rouge_score's own tokenizer keeps a-z and 0-9 only: it cuts 'ação' into 'a' and 'o'."""

    def tokenize(self, text: str) -> list[str]:
        folded = unicodedata.normalize("NFKC", text).casefold()
        return "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded).split()


class RougeL(evaluate.Metric):  # type: ignore[misc]
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Lin 2004, https://aclanthology.org/W04-1013",
            inputs_description="predictions, references: lists of texts",
            features=datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=UnicodeWords())
        return {"rouge_l": [scorer.score(reference, text)["rougeL"].fmeasure for text, reference in zip(predictions, references, strict=True)]}
