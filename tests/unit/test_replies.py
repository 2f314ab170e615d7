"""What is somebody's own in a mail, as common programs write replies."""

from __future__ import annotations

import pytest

from llamaflow.replies import own_words


@pytest.mark.parametrize(
    "reply",
    [
        "Own.\n\nOn Sun, Nov 22, 2026 at 10:00 AM Ana <ana@x.org> wrote:\n> Hi.\n> Bye.",
        "Own.\n\nOn Sun, 22 Nov 2026 at 10:00,\nAna de Souza e Silva <\nana@x.org> wrote:\n\n> Hi.",
        "On 22.11.2026 Ana wrote:\n> Hi.\n\nOwn.\n\n-- \nBob",
        "Own.\n\nAm So., 22. Nov. 2026 um 10:00 Uhr schrieb Ana <ana@x.org>:\n\n> Hi.",
        "Own.\n\nAna <ana@x.org> schrieb am Sonntag:\n> Hi.",
        "Own.\n\nEm dom., 22 de nov. de 2026 às 10:00, Ana <ana@x.org> escreveu:\n\n> Hi.",
        "Own.\n\nEl dom, 22 nov 2026 a las 10:00, Ana (<ana@x.org>) escribió:\n> Hi.",
        "Own.\n\nLe dim. 22 nov. 2026 à 10:00, Ana <ana@x.org> a écrit :\n\n> Hi.",
        "Own.\n\nOn Sunday Ana wrote:\n",
        "Own.\n\n-----Original Message-----\nFrom: Ana\nHi.",
        "Own.\n\n-----Mensagem Original-----\nHi.",
        "Own.\n\n________________________________\nVon: Ana <ana@x.org>\nGesendet: Sonntag, 22. November 2026\nAn: Bob\n\nHi.",
        "Own.\n\nDe: Ana\nEnviado em: domingo\nPara: Bob\n\nOi.",
        "Own.\r\n\r\n--\r\nBob".replace("\r\n", "\n"),
        "> Hi.\n\nOwn.",
    ],
)
def test_own_words(reply: str) -> None:
    assert own_words(reply) == "Own."


@pytest.mark.parametrize(
    "text",
    [
        "He wrote:\nwe are closed.\n\nIs that so?",
        "From: here to there\nit is far.",
        "On the one hand: yes.\n- a\n- b",
        "From now on",
        "Thanks,\n\nand another thing",
    ],
)
def test_what_only_looks_like_it(text: str) -> None:
    assert own_words(text) == text


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_an_answer_that_begins_like_an_attribution(gap: str) -> None:
    assert own_words(f"On form F-2.{gap}On Mon, 1 Jun 2026, Ana wrote:\n> Which form?") == "On form F-2."


def test_answers_between_quotations() -> None:
    assert own_words("On Sunday Ana wrote:\n> One?\n\nYes.\n\n> Two?\n\nNo.") == "Yes.\n\nNo."


def test_a_line_that_a_mailbox_escapes() -> None:
    assert own_words(">From now on it works.") == "From now on it works."


@pytest.mark.parametrize("text", ["On " * 200_000, "wrote " * 100_000 + "\n>", "> a\n" * 100_000, "\n" * 300_000, "On wrote\n" * 50_000 + ">"])
def test_no_mail_takes_for_ever(text: str) -> None:
    """A pattern that goes back over all of it would not end."""
    assert len(own_words(text)) <= len(text)
