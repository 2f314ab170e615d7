from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

import llamaflow.metrics
from llamaflow.errors import UsageError
from llamaflow.metrics import OURS, _keep_off_an_unwritable_home, column_of, fold_answer, row_scores

FOLDER = Path(llamaflow.metrics.__file__).parent


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def user_metric(folder: Path, features: str, body: str) -> Path:
    """A metric as a user would write it, in a file of its own."""
    path = folder / "mine.py"
    path.write_text(
        "import datasets\nimport evaluate\n\n\nclass Mine(evaluate.Metric):\n    def _info(self):\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='',\n"
        f"            features=datasets.Features({features}))\n\n    def _compute(self, **texts):\n        {body}\n"
    )
    return path


TEXTS = "{'predictions': datasets.Value('string'), 'references': datasets.Value('string')}"


@pytest.mark.parametrize("name", OURS)
def test_every_measure_is_one_for_the_reference_and_zero_for_nothing_in_common(name: str) -> None:
    reference = "O reembolso é pago em até trinta dias úteis."
    assert row_scores(name, [reference, "xyz", ""], [reference] * 3) == pytest.approx([1, 0, 0])


@pytest.mark.parametrize(
    ("name", "prediction", "reference", "expected"),
    [
        # LCS "the cat sat": precision 3/3, recall 3/6, F1 2/3
        ("rouge_l", "the cat sat", "the cat sat on the mat", 2 / 3),
        # LCS "police ... the gunman" of Lin 2004: 3 of 4 words on both sides
        ("rouge_l", "police kill the gunman", "police killed the gunman", 3 / 4),
        # all n-grams match; brevity penalty exp(1 - 6/3)
        ("bleu", "the cat sat", "the cat sat on the mat", 0.36787944),
        # character 1-grams alone: precision 1/1, recall 1/2, F2 = 5/(1 + 4 * 2)
        ("chrf", "x", "x!", 5 / 9),
        ("exact_match", "  Sim,\n SENHOR. ", "sim, senhor", 1),
        ("exact_match", "50 %", "50", 0),
    ],
)
def test_known_pairs(name: str, prediction: str, reference: str, expected: float) -> None:
    assert row_scores(name, [prediction], [reference]) == pytest.approx([expected])


def test_rouge_l_keeps_accents_and_knows_no_difference_of_case_or_unicode_form() -> None:
    assert row_scores("rouge_l", ["AÇÃO válida"], [unicodedata.normalize("NFD", "ação válida")]) == [1]
    # the words differ in their accents only: another word, not the pieces "a" and "o" that rouge_score's own tokenizer leaves
    assert row_scores("rouge_l", ["avó"], ["avô"]) == [0]


def test_our_files_are_modules_that_evaluate_loads_by_path(tmp_path: Path) -> None:
    import evaluate

    for name in OURS:
        module = evaluate.load(str(FOLDER / f"{name}.py"), cache_dir=str(tmp_path), keep_in_memory=True)
        assert module.compute(predictions=["sim", "talvez"], references=["sim", "nunca"])[name] == pytest.approx(
            row_scores(name, ["sim", "talvez"], ["sim", "nunca"])
        )


def test_a_users_module_with_one_number_is_computed_row_by_row(tmp_path: Path) -> None:
    # "parts" holds as many numbers as there are rows, as BLEU's precisions may: it is not a score a row
    path = user_metric(tmp_path, TEXTS, "return {'parts': [9.0, 9.0], 'mine': sum(map(len, texts['predictions']))}")
    assert row_scores(str(path), ["ab", "abc"], ["x", "y"]) == [2, 3]
    assert column_of(str(path)) == "mine"


def test_a_users_module_with_a_list_is_computed_once(tmp_path: Path) -> None:
    path = user_metric(tmp_path, TEXTS, "return {'f1': [len(texts['predictions']) + n for n in range(len(texts['predictions']))]}")
    assert row_scores(str(path), ["ab", "abc"], ["x", "y"]) == [2, 3]


def test_a_module_that_does_not_take_texts_is_a_usage_error(tmp_path: Path) -> None:
    path = user_metric(tmp_path, "{'predictions': datasets.Value('int64'), 'references': datasets.Value('int64')}", "return {'mine': 1}")
    with pytest.raises(UsageError, match=r"mine\.py does not work on pairs of texts"):
        row_scores(str(path), ["yes"], ["no"])


def test_a_module_without_a_number_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no number a row \(it has note"):
        row_scores(str(user_metric(tmp_path, TEXTS, "return {'note': 'fine'}")), ["yes"], ["no"])


def test_an_unknown_name_is_a_usage_error_that_tells_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'rougel' cannot be loaded \(did you mean rouge_l\?\)"):
        row_scores("rougel", ["a"], ["b"])


def test_no_rows_have_no_scores() -> None:
    assert row_scores("rouge_l", [], []) == []


def test_folding_strips_closing_punctuation_only() -> None:
    assert fold_answer("  Não, é  ÍNDICE…! ") == "não, é índice"


def test_a_home_that_cannot_be_written_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "XDG_CACHE_HOME", "HF_MODULES_CACHE"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/proc/none")
    _keep_off_an_unwritable_home()
    Path(os.environ["HF_MODULES_CACHE"]).rmdir()
