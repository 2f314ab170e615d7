#!/usr/bin/env python3
"""Personal data in English and Portuguese sentences that were made up: recall and precision by type. See README.md.

personal_data.py [--count N]

Each sentence holds one value, or a number that only looks like one (orders, dates, prices, postal codes, court cases, wrong check digits).
A value counts as found if its type is right and all of it, and nothing else, is marked.
"""

from __future__ import annotations

import argparse
import random
import string
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import common
from stdnum import iban, luhn
from stdnum.br import cnpj, cpf

from llamaflow.data_params import PERSONAL_TYPES, PersonalType
from llamaflow.personal import find

REGIONS = ("BR", "US", "GB")
SEED = 20261122
NAMES = ("ana", "joao.silva", "maria_souza", "o.connor", "lee", "carlos-lima", "wei.zhang", "priya")
HOSTS = ("example.com", "empresa.com.br", "mail.gov.br", "uni-bonn.de", "dept.example.co.uk", "acme.io", "prefeitura.sp.gov.br")
SENTENCES = {
    "en": (
        "Please send it to {}.",
        "{} is what the customer gave us",
        "Her contact ({}) is in the file;",
        "Ref: {}",
        "we wrote to {}, and got no answer",
        'He said "{}" twice.',
        "Details:\n{}\nThank you",
    ),
    "pt": (
        "Favor enviar para {}.",
        "{} foi o que o cliente informou",
        "O contato ({}) consta do processo;",
        "Ref.: {}",
        "escrevemos a {}, sem resposta",
        'Ele disse "{}" duas vezes.',
        "Dados:\n{}\nObrigado",
    ),
}
KEYWORDS = {"rg": {"en": "RG {}", "pt": "RG nº {}"}, "passport": {"en": "passport {}", "pt": "passaporte nº {}"}}


def digits(drawn: random.Random, count: int) -> str:
    return "".join(drawn.choices(string.digits, k=count))


def letters(drawn: random.Random, count: int) -> str:
    return "".join(drawn.choices(string.ascii_letters + string.digits, k=count))


def cpf_number(drawn: random.Random) -> str:
    number = next(number for number in (digits(drawn, 11) for _ in iter(int, 1)) if cpf.is_valid(number))
    return drawn.choice((number, cpf.format(number)))


def cnpj_number(drawn: random.Random) -> str:
    number = next(number for number in (f"{digits(drawn, 8)}0001{digits(drawn, 2)}" for _ in iter(int, 1)) if cnpj.is_valid(number))
    return drawn.choice((number, cnpj.format(number)))


def card(drawn: random.Random) -> str:
    number = drawn.choice(("4", "51", "37", "6011", "5067"))
    number += digits(drawn, (14 if number == "37" else 15) - len(number))
    number += luhn.calc_check_digit(number)
    ends = (4, 10, 15) if len(number) == 15 else (4, 8, 12, 16)
    return drawn.choice((number, " ".join(number[start:end] for start, end in pairwise((0, *ends)))))


def iban_number(drawn: random.Random) -> str:
    country, body = drawn.choice((("DE", digits(drawn, 18)), ("GB", "NWBK" + digits(drawn, 14))))
    number = f"{country}{iban.calc_check_digits(f'{country}00{body}')}{body}"
    return drawn.choice((number, iban.format(number)))


def phone(drawn: random.Random) -> str:
    area, mobile, fixed = drawn.choice(("11", "21", "31", "61", "85")), digits(drawn, 8), drawn.choice("2345") + digits(drawn, 7)
    return drawn.choice(
        (
            f"({area}) 9{drawn.choice('6789')}{mobile[:3]}-{mobile[3:7]}",
            f"+55 {area} 9{drawn.choice('6789')}{mobile[:3]}-{mobile[3:7]}",
            f"({area}) {fixed[:4]}-{fixed[4:]}",
            f"+1 212 {drawn.choice('23456789')}{digits(drawn, 2)} {digits(drawn, 4)}",
            f"(415) {drawn.choice('23456789')}{digits(drawn, 2)}-{digits(drawn, 4)}",
            f"+44 20 7{digits(drawn, 3)} {digits(drawn, 4)}",
            f"+49 30 {drawn.choice('123456789')}{digits(drawn, 6)}",
        )
    )


def address(drawn: random.Random) -> str:
    six = ":".join(f"{drawn.randrange(1, 65536):x}" for _ in range(8))
    return drawn.choice((".".join(str(drawn.randrange(1, 255)) for _ in range(4)), six, f"2001:db8::{drawn.randrange(1, 65536):x}"))


def api_key(drawn: random.Random) -> str:
    upper = "".join(drawn.choices(string.ascii_uppercase + string.digits, k=16))
    return drawn.choice(
        (f"AKIA{upper}", f"ghp_{letters(drawn, 36)}", f"hf_{letters(drawn, 34)}", f"sk-{letters(drawn, 40)}", f"xoxb-{digits(drawn, 12)}-{letters(drawn, 24)}")
    )


MAKERS: dict[PersonalType, Callable[[random.Random], str]] = {
    "email": lambda drawn: f"{drawn.choice(NAMES)}{drawn.choice(('', digits(drawn, 2), '+x'))}@{drawn.choice(HOSTS)}",
    "phone": phone,
    "cpf": cpf_number,
    "cnpj": cnpj_number,
    "rg": lambda drawn: f"{digits(drawn, 2)}.{digits(drawn, 3)}.{digits(drawn, 3)}-{drawn.choice(string.digits + 'X')}",
    "passport": lambda drawn: "".join(drawn.choices(string.ascii_uppercase, k=2)) + digits(drawn, 6),
    "iban": iban_number,
    "credit_card": card,
    "ip": address,
    "url_credentials": lambda drawn: f"{drawn.choice(NAMES)}:{letters(drawn, 10)}",
    "api_key": api_key,
    "private_key": lambda drawn: f"-----BEGIN RSA PRIVATE KEY-----\n{letters(drawn, 64)}\n{letters(drawn, 64)}\n-----END RSA PRIVATE KEY-----",
}
LOOK_ALIKES: tuple[Callable[[random.Random], str], ...] = (
    lambda drawn: f"{drawn.randrange(1, 29):02}/{drawn.randrange(1, 13):02}/{drawn.randrange(1990, 2027)}",
    lambda drawn: f"R$ {drawn.randrange(1, 999)}.{digits(drawn, 3)},{digits(drawn, 2)}",
    lambda drawn: f"US$ {drawn.randrange(1, 999)},{digits(drawn, 3)}.{digits(drawn, 2)}",
    lambda drawn: f"CEP {digits(drawn, 5)}-{digits(drawn, 3)}",
    lambda drawn: f"{digits(drawn, 7)}-{digits(drawn, 2)}.{drawn.randrange(1990, 2027)}.8.26.{digits(drawn, 4)}",
    lambda drawn: f"order {digits(drawn, 6)}",
    lambda drawn: f"version {drawn.randrange(20)}.{drawn.randrange(20)}.{drawn.randrange(20)}",
    lambda drawn: f"{drawn.randrange(24):02}:{drawn.randrange(60):02}:{drawn.randrange(60):02}",
    lambda drawn: f"art. {drawn.randrange(1, 500)}, § {drawn.randrange(1, 9)}º, Lei {drawn.randrange(1, 14)}.{digits(drawn, 3)}/{drawn.randrange(1990, 2027)}",
    lambda drawn: f"{drawn.randrange(1, 100)}.{digits(drawn, 3)}.{digits(drawn, 3)} people",
    lambda drawn: f"cpf {wrong(cpf_number(drawn))}",
    lambda drawn: f"card {wrong(card(drawn))}",
    lambda drawn: f"@{drawn.choice(NAMES)} on the forum",
    lambda drawn: f"ISBN 978-{drawn.randrange(10)}-{digits(drawn, 2)}-{digits(drawn, 6)}-{drawn.randrange(10)}",
    lambda drawn: f"https://{drawn.choice(HOSTS)}/page?id={digits(drawn, 5)}",
)


def wrong(number: str) -> str:
    """The number with another last digit, so that its checksum fails."""
    return number[:-1] + str((int(number[-1]) + 1) % 10)


def sentences(count: int) -> list[tuple[str, str, PersonalType | None]]:
    """Text, value and type, so many of each type and language; look-alikes have none."""
    drawn, made = random.Random(SEED), []
    for language, frames in SENTENCES.items():
        for kind, make in MAKERS.items():
            for _ in range(count):
                value = make(drawn)
                written = f"https://{value}@{drawn.choice(HOSTS)}/" if kind == "url_credentials" else KEYWORDS.get(kind, {}).get(language, "{}").format(value)
                made.append((drawn.choice(frames).format(written), value, kind))
        made += [(drawn.choice(frames).format(make(drawn)), "", None) for make in LOOK_ALIKES for _ in range(count)]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="values of each type and language")
    parser.add_argument("--results", type=Path, default=common.RESULTS / "personal_data.json")
    args = parser.parse_args()
    given, right, marked = Counter[str](), Counter[str](), Counter[str]()
    mistakes: list[str] = []
    for text, value, kind in sentences(args.count):
        found = [(one.type, text[one.start : one.end]) for one in find(text, REGIONS)]
        given.update([kind] if kind else [])
        marked.update(name for name, _ in found)
        right.update(name for name, what in found if (name, what) == (kind, value))
        if found != ([(kind, value)] if kind else []):
            mistakes.append(f"{kind}: {text!r} -> {found}")
    table = {
        kind: {"values": given[kind], "recall": right[kind] / given[kind], "precision": right[kind] / (marked[kind] or 1)}
        for kind in PERSONAL_TYPES
        if given[kind]
    }
    for kind, row in table.items():
        print(f"{kind:16} {row['values']:5} values, recall {row['recall']:.3f}, precision {row['precision']:.3f}")
    print(
        f"{sum(given.values())} values, {args.count * len(LOOK_ALIKES) * 2} look-alikes, {len(mistakes)} mistakes",
        *random.Random(1).sample(mistakes, min(20, len(mistakes))),
        sep="\n  ",
    )
    common.keep(args.results, {"types": table, "mistakes": len(mistakes), "look_alikes": args.count * len(LOOK_ALIKES) * 2})


if __name__ == "__main__":
    main()
