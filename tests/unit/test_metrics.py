from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

import llamaflow.metrics
from llamaflow.errors import UsageError
from llamaflow.metrics import OURS, _keep_off_an_unwritable_home, column_of, fold_answer, row_scores
from llamaflow.params import Answers
from llamaflow.validation import NEEDED

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


ANSWERS = Answers(answer_pattern=".", answer_schema='{"type": "string"}')
OF_WORDS = [name for name in OURS if name not in NEEDED]


@pytest.mark.parametrize("name", OF_WORDS)
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
        more = {NEEDED[name]: getattr(ANSWERS, NEEDED[name])} if name in NEEDED else {}
        predictions, references = ["sim", '"talvez"', ""], ["sim", "nunca", "."]
        found = module.compute(predictions=predictions, references=references, **more)[name]
        assert found == pytest.approx(row_scores(name, predictions, references, ANSWERS))
        assert 0 < sum(found) < 3


@pytest.mark.parametrize(
    ("pattern", "answer", "reference", "expected"),
    [
        (r"\d+ euros", "It costs 5 euros.", "9 euros", 1),  # no group: it only has to match
        (r"^\d+ euros", "It costs 5 euros.", "5 euros", 0),
        (r"answer: (\w+)", "So the answer: YES.", "the answer: yes", 1),  # folded as exact_match folds
        (r"answer: (\w+)", "So the answer: no.", "the answer: yes", 0),
        (r"answer: (\w+)", "yes", "answer: yes", 0),  # the answer itself must match
        (r"answer: (.+)", "answer: 50 %.", "50 %", 1),  # the reference does not: then it is all of it
        (r"A: (\d)|B: (\d)", "B: 7", "A: 7", 1),
        (r"x(\d)?", "x", "", 0),  # a group that takes no part finds nothing
    ],
)
def test_pattern(pattern: str, answer: str, reference: str, expected: float) -> None:
    assert row_scores("pattern", [answer], [reference], Answers(answer_pattern=pattern)) == [expected]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"floor": 3, "rooms": ["a"]}', 1),
        (' {"floor": 3}\n', 1),
        ('{"floor": "3"}', 0),
        ('{"floor": 0}', 0),
        ('{"rooms": []}', 0),
        ('{"floor": 3, "rooms": [1]}', 0),
        ('Here it is: {"floor": 3}', 0),
        ('{"floor": ' + "9" * 5000 + "}", 0),  # more digits than Python reads
        ("[" * 100_000, 0),
        ("", 0),
    ],
)
def test_json_schema(answer: str, expected: float) -> None:
    schema = {"type": "object", "required": ["floor"], "properties": {"floor": {"type": "integer", "minimum": 1}, "rooms": {"$ref": "#/$defs/names"}}}
    schema["$defs"] = {"names": {"type": "array", "items": {"type": "string"}}}
    assert row_scores("json_schema", [answer], ["any"], Answers(answer_schema=json.dumps(schema))) == [expected]


def test_what_python_takes_for_json_too_is_none() -> None:
    assert row_scores("json_schema", ["NaN", "[Infinity]", "null"], [""] * 3, Answers(answer_schema="true")) == [0, 0, 1]


def test_an_answer_that_a_schema_follows_for_ever_is_wrong() -> None:
    assert row_scores("json_schema", ["1"], [""], Answers(answer_schema='{"$ref": "#"}')) == [0]


@pytest.mark.parametrize(("name", "needed"), NEEDED.items())
def test_a_measure_without_what_it_needs_is_a_usage_error(name: str, needed: str) -> None:
    for answers in (None, Answers()):
        with pytest.raises(UsageError, match=f"the measure {name} needs --{needed}"):
            row_scores(name, ["a"], ["b"], answers)


def test_a_module_is_loaded_once(tmp_path: Path) -> None:
    path = user_metric(tmp_path, TEXTS, "return {'mine': 1.0}")
    assert row_scores(str(path), ["a"], ["b"]) == [1]
    path.unlink()
    assert row_scores(str(path), ["a", "b"], ["b", "c"]) == [1, 1]


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
