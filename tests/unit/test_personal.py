"""Personal data is found where it is, and only there; what stands in its place is the same for the same value."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaflow.data_params import PERSONAL_TYPES, Action, PersonalType, actions_of
from llamaflow.personal import Redactor, find

REGIONS = ("BR", "US", "GB")


def found(text: str) -> list[tuple[str, str]]:
    return [(one.type, text[one.start : one.end]) for one in find(text, REGIONS)]


def redactor(action: Action = "mask", **others: Action) -> Redactor:
    return Redactor(dict.fromkeys(PERSONAL_TYPES, action) | others, REGIONS, b"a key of sixteen")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to ana.souza+rh@empresa.com.br.", "email", "ana.souza+rh@empresa.com.br"),
        ("Ligue (11) 91234-5678 amanhã", "phone", "(11) 91234-5678"),
        ("Call +44 20 7946 0958, please", "phone", "+44 20 7946 0958"),
        ("CPF 529.982.247-25", "cpf", "529.982.247-25"),
        ("cpf: 52998224725", "cpf", "52998224725"),
        ("CNPJ 11.222.333/0001-81", "cnpj", "11.222.333/0001-81"),
        ("RG nº 12.345.678-9", "rg", "12.345.678-9"),
        ("Passport no. FZ123456", "passport", "FZ123456"),
        ("passaporte: FZ123456", "passport", "FZ123456"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "iban", "DE89 3704 0044 0532 0130 00"),
        ("Card 4111 1111 1111 1111 exp", "credit_card", "4111 1111 1111 1111"),
        ("from 203.0.113.9 at noon", "ip", "203.0.113.9"),
        ("from 2001:db8::8a2e:370:7334", "ip", "2001:db8::8a2e:370:7334"),
        ("postgres://ana:s3cret@db/x", "url_credentials", "ana:s3cret"),
        ("key AKIAIOSFODNN7EXAMPLE", "api_key", "AKIAIOSFODNN7EXAMPLE"),
        ("token hf_abcdefghijklmnopqrstuvwxyzABCD", "api_key", "hf_abcdefghijklmnopqrstuvwxyzABCD"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "private_key", None),
        ("-----BEGIN PRIVATE KEY-----\nMIIE and then the file ends", "private_key", None),
    ],
)
def test_found(text: str, kind: str, value: str | None) -> None:
    assert found(text) == [(kind, value or text)]


@pytest.mark.parametrize(
    "text",
    [
        "CPF 529.982.247-26",  # the check digit is wrong
        "CNPJ 11.222.333/0001-82",
        "Card 4111 1111 1111 1112",
        "IBAN DE88 3704 0044 0532 0130 00",
        "It is 12:30:45 and std::vector, a :: b",
        "Version 1.2.3 of 2026-11-22, chapter 4.5.6.7.8",
        "Release 4.6.2.0, section 10.1.1.2, see 5.6.12.1.",
        "localhost is 127.0.0.1 or ::1",
        "@ana wrote, a @ b, user@host",
        "Write to support@example.com, dpo@example.com or no-reply@example.com",
        "In 2025 we sold 1,234,567 units in 12 countries",
        "https://example.org/path?x=1:2@3",
        "The passport office closes at 1230",
    ],
)
def test_not_found(text: str) -> None:
    assert found(text) == []


def test_the_same_value_gets_the_same_word_within_a_record() -> None:
    mask = redactor()
    assert mask("Ana (ana@x.org) asks Bob (bob@x.org).") == "Ana ([EMAIL_1]) asks Bob ([EMAIL_2])."
    assert mask("Dear ANA@x.org, (11) 91234-5678") == "Dear [EMAIL_1], [PHONE_1]"
    assert mask.counts == {"email": 3, "phone": 1}


def test_the_first_of_overlapping_findings_wins() -> None:
    assert found("postgres://ana:s3cret@db.org/x") == [("url_credentials", "ana:s3cret")]
    many = " ".join(f"user{number}@x.org" for number in range(5000))
    assert redactor()(many) == " ".join(f"[EMAIL_{number}]" for number in range(1, 5001))


def test_a_hash_is_the_same_however_a_number_is_written_and_depends_on_the_key() -> None:
    one, other = redactor("hash"), redactor("hash")
    assert one("+55 11 91234-5678") == other("(11) 91234-5678")
    assert one("CPF 529.982.247-25") == other("CPF 52998224725")
    assert one("ana@x.org") == other("Ana@X.org")
    assert one("a.na@x.org") != one("ana@x.org")
    assert one("1.231.1.10") != one("12.31.11.0")
    third = Redactor(one.actions, REGIONS, b"another key of 16")
    assert one("ana@x.org") != third("ana@x.org")


def test_each_type_as_asked() -> None:
    mixed = redactor(phone="keep", cpf="drop", email="hash")
    text = mixed("(11) 91234-5678, CPF 529.982.247-25, 203.0.113.9")
    assert text == "(11) 91234-5678, CPF [CPF_1], [IP_1]"
    assert mixed.forbidden() == "cpf"
    assert redactor("drop").forbidden() is None


def test_actions() -> None:
    assert set(actions_of("mask").values()) == {"mask"}
    actions = actions_of("keep, email = mask,cpf=drop")
    assert {kind: action for kind, action in actions.items() if action != "keep"} == {"email": "mask", "cpf": "drop"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("hide", "begins with 'hide'"), ("mask,mail=keep", "'mail=keep' is not understood"), ("mask,email", "'email' is not"), ("", "begins with ''")],
)
def test_actions_that_are_not_understood(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        actions_of(text)


@given(st.lists(st.sampled_from(["ana@x.org", "CPF 529.982.247-25", "203.0.113.9", "word", " ", "\n", ".", "4111111111111111"]), max_size=12).map(" ".join))
def test_nothing_is_found_twice_or_after_it_was_masked(text: str) -> None:
    places = [(one.start, one.end) for one in find(text, REGIONS)]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))
    assert found(redactor()(text)) == []


@given(st.text(max_size=60))
def test_any_text_comes_through(text: str) -> None:
    kept = redactor("keep")
    assert kept(text) == text


def test_the_type_that_forbids_is_named() -> None:
    kind: PersonalType = "api_key"
    strict = redactor("drop")
    strict("AKIAIOSFODNN7EXAMPLE")
    assert strict.forbidden() == kind
