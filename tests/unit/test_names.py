"""Names of people: what a model finds, whatever stands beside it, and where in a text it is then looked for."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from name_finder import FIRST, LAST, PLACES, sentence

from llamaflow.data_params import PERSONAL_TYPES, Action
from llamaflow.errors import UsageError
from llamaflow.files import read_json, write_json
from llamaflow.names import NameFinder, _is_person, _names
from llamaflow.personal import Redactor, pattern_of

NAME = st.text("aAbB .*(\\张", max_size=6).map(lambda text: " ".join(text.split())).filter(lambda name: len(name) > 1)
MANY = [f"{first} {last}" for first in FIRST for last in LAST]


@pytest.fixture(scope="module")
def finder(name_finder: Path) -> NameFinder:
    return NameFinder(name_finder)


def test_names_and_not_places(finder: NameFinder) -> None:
    texts = ["Please ask Ana Souza about the form.", "Is the office in Lisbon open today?", "Bruno works in Recife since May.", ""]
    assert finder(texts) == [["Ana Souza"], [], ["Bruno"], []]
    assert finder([]) == []


def test_names_at_any_place_of_a_text_longer_than_a_window(finder: NameFinder) -> None:
    text = " ".join(f"Please ask {name} about the form." for name in MANY)
    assert len(finder.tokenizer(text)["input_ids"]) > 3 * finder.window
    (found,) = finder([text])
    assert found == MANY


def test_a_text_has_the_same_names_alone_and_beside_others(finder: NameFinder) -> None:
    rng = random.Random(1)
    texts = [" ".join(sentence(rng) for _ in range(rng.randrange(1, 9))) for _ in range(40)]
    together = finder(texts)
    assert sum(map(len, together)) > 40
    assert [names for text in texts for names in finder([text])] == together
    assert finder(texts[::-1]) == together[::-1]


def test_models_that_find_no_people(name_finder: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(name_finder, tmp_path / "other"))
    config = read_json(other / "config.json")
    write_json(other / "config.json", config | {"id2label": {str(number): f"LABEL_{number}" for number in range(4)}})
    with pytest.raises(UsageError, match="none of its labels means people: LABEL_0"):
        NameFinder(other)
    with pytest.raises(UsageError, match=r"--names_model: its files have no .*not trained to find names"):
        NameFinder(tiny_model)
    (other / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UsageError, match="cannot be loaded as a model for token classification"):
        NameFinder(other)


@pytest.mark.parametrize("labels", [("O", "I-person"), ("O", "GIVENNAME"), ("O", "B-PESSOA"), ("private_person", "O")])
def test_what_models_call_people(labels: tuple[str, str]) -> None:
    assert _is_person(dict(enumerate(labels))) == [label != "O" for label in labels]


@pytest.mark.parametrize(
    ("text", "tokens", "names"),
    [
        ("Ask Ana Souza.", [(4, 5)], ["Ana"]),  # the model saw a part of the word
        ("Ask Ana Souza.", [(4, 7), (7, 9), (9, 14)], ["Ana Souza"]),  # tokens with their space, and the full stop
        ("Ana\nBruno", [(0, 3), (4, 9)], ["Ana", "Bruno"]),
        ("Ana\n\nBruno", [(0, 3), (3, 10)], ["Ana", "Bruno"]),
        ("(Ana)", [(0, 5)], ["Ana"]),
        ("J. R. Silva", [(0, 2), (3, 5), (6, 11)], ["J. R. Silva"]),
        ("Ana\tBruno  Eva", [(0, 3), (4, 9), (11, 14)], ["Ana", "Bruno", "Eva"]),
        ("Ana " * 30, [(0, 120)], ["Ana"] * 30),
        ("x" * 5000, [(place, place + 1) for place in range(0, 5000, 2)], []),
        ("X said", [(0, 1)], []),
        ("问张伟好", [(1, 3)], ["张伟"]),
        ("", [(0, 0)], []),
    ],
)
def test_from_tokens_to_names(text: str, tokens: list[tuple[int, int]], names: list[str]) -> None:
    assert list(_names(text, tokens)) == names


def redacted(text: str, *names: str, action: Action = "mask") -> str:
    return Redactor(dict.fromkeys(PERSONAL_TYPES, action), ("BR",), b"a key of sixteen", pattern_of(names))(text)


def test_every_place_of_a_name_is_masked_with_the_same_word() -> None:
    text = "Ana Souza and Ana met ANA  SOUZA. Anabel wrote to Ana\nSouza, ana.souza@x.org."
    assert redacted(text, "Ana", "Ana Souza") == "[NAME_1] and [NAME_2] met ANA  SOUZA. Anabel wrote to [NAME_1], [EMAIL_1]."
    assert redacted("Ana and ANA", "Ana", "ANA") == "[NAME_1] and [NAME_1]"
    one, other = redacted("ANA SOUZA", "ANA SOUZA", action="hash"), redacted("Ana Souza", "Ana Souza", action="hash")
    assert one == other
    assert re.fullmatch(r"\[NAME [0-9a-f]{10}\]", one)
    assert redacted("请问张伟和李伟在吗", "张伟") == "请问[NAME_1]和李伟在吗"
    assert redacted("Ana", action="mask") == "Ana"


@given(
    st.lists(NAME, min_size=1, max_size=8),
    st.text("aAbB .*(\\张", max_size=40),
)
def test_a_trie_of_names_matches_as_a_plain_list_of_them_would(names: list[str], text: str) -> None:
    def plain(name: str) -> str:
        edges = [r"\b" if letter.lower() != letter.upper() else "" for letter in (name[0], name[-1])]
        return edges[0] + re.sub(r"(\\ )", r"\\s+", re.escape(name)) + edges[1]

    alternatives = "|".join(map(plain, sorted(names, key=len, reverse=True)))
    pattern = pattern_of(names)
    assert pattern
    assert [match.span() for match in pattern.finditer(text)] == [match.span() for match in re.finditer(alternatives, text)]


def test_many_names_in_a_long_text() -> None:
    names = [f"{first}{number} {last}" for number in range(200) for first in FIRST for last in LAST]
    text = ", ".join(names)
    assert redacted(text, *names).count("[NAME_") == len(names) == 6000
    assert PLACES[0] not in names
