"""Threads of mail and tables of messages become conversations."""

from __future__ import annotations

import mailbox
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from record_files import encoded, receipt, rows

from llamaflow.sources import Source

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
ANA, HELP = "Ana Souza <Ana@x.org>", "Help <help@firm.com>"
Said = list[list[tuple[str, str]]]


def mail(sender: str, body: str, hours: int, number: int | None = None, answers: Sequence[int] = (), subject: str = "Leave", **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, HELP if sender != HELP else ANA, subject
    message["Date"] = format_datetime(START + timedelta(hours=hours))
    if number is not None:
        message["Message-ID"] = f"<{number}@x.org>"
    if answers:
        message["References"] = " ".join(f"<{other}@x.org>" for other in answers)
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(body)
    return message


def write_box(path: Path, messages: Sequence[EmailMessage]) -> Path:
    box = mailbox.mbox(path)
    for message in messages:
        box.add(message)
    box.close()
    return path


@pytest.fixture
def said(run_step: Any, tmp_path: Path) -> Callable[..., Said]:
    """Collect a source, and return what its conversations say."""

    def run(path: Path, **source: Any) -> Said:
        settings = {"source": {"id": "help", "path": path.name, **source}, "collection": {"max_dropped_fraction": 0.5}}
        run_step("collect_source", ["--path", path, "--outdir", tmp_path], settings)
        assert not list(tmp_path.glob(".messages*"))
        return [[(turn["role"], turn["content"]) for turn in record["messages"]] for record in rows(tmp_path / "collected.parquet")]

    return run


def reasons(folder: Path) -> list[str]:
    return [row["reason"] for row in rows(folder / "collect_source.dropped.parquet")]


def test_threads_of_a_mailbox(said: Callable[..., Said], tmp_path: Path) -> None:
    box = write_box(
        tmp_path / "box.mbox",
        [
            mail(HELP, "Thirty.\n\nOn Sunday Ana wrote:\n> How many days?\n\n-- \nHelp desk", 2, 2, [1], "Re: Leave"),
            mail(ANA, "How many days?", 0, 1),
            mail(ANA, "And for half a year?", 3, 3, [1, 2], "AW: Leave"),
            mail(ANA, "I began in June.", 4, 4, [1, 3], "Re: Leave"),
            mail(HELP, "Fifteen.", 5, 5, [4], "RES: Re: Leave"),
            mail(ANA, "Thank you!", 6, 6, [5], "Re: Leave"),
            mail(ANA, "Nobody answers this.", 7, 7),
            mail(HELP, "Newsletter", 8, 8, subject="News"),
        ],
    )
    assert said(box, assistant="help@firm.com") == [
        [("user", "Leave\n\nHow many days?"), ("assistant", "Thirty."), ("user", "And for half a year?\n\nI began in June."), ("assistant", "Fifteen.")]
    ]
    (record,) = rows(tmp_path / "collected.parquet")
    assert (record["meta"]["subject_id"], record["meta"]["location"], record["meta"]["created_at"]) == (
        "ana@x.org\nhelp@firm.com",
        "box.mbox:2",
        "2026-11-22T10:00:00+00:00",
    )
    assert reasons(tmp_path) == ["conversation without an answer"] * 2
    counts = receipt(tmp_path / "collect_source.json")["counts"]
    assert (counts["records"], counts["messages"], counts["messages_left_out"]) == (1, 8, 1)


def test_replies_without_references_belong_to_subject_and_people(said: Callable[..., Said], tmp_path: Path) -> None:
    box = write_box(
        tmp_path / "box.mbox",
        [
            mail(ANA, "One?", 0),
            mail(HELP, "First.", 1, subject="RE: leave"),
            mail(ANA, "Two?", 2),
            mail("Bob <b@y.org>", "Three?", 3),
            mail(HELP, "Second.", 4, subject="Re: Leave"),
        ],
    )
    assert said(box, assistant="firm.com") == [
        [("user", "Leave\n\nOne?"), ("assistant", "First.")],
        [("user", "Leave\n\nTwo?"), ("assistant", "Second.")],
    ]


def test_a_thread_in_several_files_with_copies(said: Callable[..., Said], tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    question, answer = mail(ANA, "One?", 0, 1), mail(HELP, "First.", 1, 2, [1])
    write_box(folder / "inbox.mbox", [question, answer])
    write_box(folder / "sent.mbox", [answer])
    (folder / "late.eml").write_bytes(bytes(mail(HELP, "Sorry, second.", 2, 3, [2])))
    assert said(folder, assistant="help@firm.com") == [[("user", "Leave\n\nOne?"), ("assistant", "First.\n\nSorry, second.")]]


def test_two_halves_of_a_thread_that_a_third_mail_joins(said: Callable[..., Said], tmp_path: Path) -> None:
    box = write_box(tmp_path / "box.mbox", [mail(ANA, "One?", 0, 1), mail(HELP, "Two.", 2, 3, [2]), mail(ANA, "More?", 1, 2, [1])])
    assert said(box, assistant="help@firm.com") == [[("user", "Leave\n\nOne?\n\nMore?"), ("assistant", "Two.")]]


def test_mails_that_say_nothing(said: Callable[..., Said], tmp_path: Path) -> None:
    undated = mail(ANA, "When?", 1, 4, [1])
    del undated["Date"]
    messages = [mail(ANA, "One?", 0, 1), mail(HELP, "We got your mail.", 1, 2, [1], Auto_Submitted="auto-replied"), mail(HELP, "Yes.", 2, 3, [1]), undated]
    assert said(write_box(tmp_path / "box.mbox", messages), assistant="help@firm.com") == [[("user", "Leave\n\nOne?"), ("assistant", "Yes.")]]
    assert sorted(reasons(tmp_path)) == ["automatic mail", "mail without date"]


def test_a_table_that_looks_like_mail(said: Callable[..., Said], tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    write_box(folder / "a.mbox", [mail(ANA, "One?", 0, 1), mail(HELP, "Yes.", 1, 2, [1])])
    row = {"message_id": "<1@x.org>", "from": "help@firm.com", "body": "No.", "created_at": "yesterday"}
    (folder / "b.jsonl").write_bytes(encoded([row], "jsonl"))
    assert said(folder, assistant="help@firm.com") == [[("user", "Leave\n\nOne?"), ("assistant", "Yes.")]]
    assert reasons(tmp_path) == ["mail without date"]


def test_mail_in_html(said: Callable[..., Said], tmp_path: Path) -> None:
    answer = mail(HELP, "", 1, 2, [1])
    answer.set_content(
        "<html><body><p>Yes.</p><p>Always.</p><div class='gmail_quote'>On Sunday Ana wrote:<blockquote>One?</blockquote></div></body></html>", subtype="html"
    )
    assert said(write_box(tmp_path / "box.mbox", [mail(ANA, "One?", 0, 1), answer]), assistant="help@firm.com") == [
        [("user", "Leave\n\nOne?"), ("assistant", "Yes.\nAlways.")]
    ]


TICKETS = [
    {"Ticket": "7", "author": "Ana", "body": "One?", "label": "leave"},
    {"Ticket": "8", "author": "Bob", "body": "Two?", "label": "pay"},
    {"Ticket": "7", "author": "Eva (support)", "body": "First.", "label": ""},
    {"Ticket": "8", "author": "eva@firm.com", "body": "Second.", "label": ""},
    {"Ticket": "", "author": "Ana", "body": "Lost.", "label": ""},
]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_a_table_of_messages(said: Callable[..., Said], tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"tickets.{file_format}"
    path.write_bytes(encoded(TICKETS, file_format))
    assert said(path, conversation=" ticket", assistant="Eva (Support), firm.com") == [
        [("user", "One?"), ("assistant", "First.")],
        [("user", "Two?"), ("assistant", "Second.")],
    ]
    assert [record["label"] for record in rows(tmp_path / "collected.parquet")] == ["leave", "pay"]
    assert reasons(tmp_path) == ["column 'ticket' has no value"]


def test_a_table_with_roles(said: Callable[..., Said], tmp_path: Path) -> None:
    roles = [("system", "Be kind."), ("bot", "Hello!"), ("Human", "A?"), ("assistant", "B."), ("system", "closed"), ("tool", "x"), ("human", "Bye")]
    path = tmp_path / "chat.jsonl"
    path.write_bytes(encoded([{"chat": 1, "role": role, "content": content} for role, content in roles], "jsonl"))
    assert said(path, conversation="chat") == [[("system", "Be kind."), ("user", "A?"), ("assistant", "B.")]]
    assert reasons(tmp_path) == ["message of an unknown role"]
    assert receipt(tmp_path / "collect_source.json")["counts"]["messages_left_out"] == 3


def test_a_column_that_tells_nothing_apart(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_bytes(encoded([{"chat": 1, "role": role, "content": "x"} for role in ("user", "assistant") * 600], "jsonl"))
    with pytest.raises(SystemExit) as stopped:
        run_step("collect_source", ["--path", path, "--outdir", tmp_path], {"source": {"id": "s", "path": "chat.jsonl", "conversation": "chat"}})
    assert stopped.value.code == 65
    assert "no record could be made of it: 1 x conversation of more than 1000 messages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"conversation": "chat"}, "Found: chat, content, who. Expected chat, role (or name the assistant"),
        ({"conversation": "thread", "assistant": "a"}, "Expected thread, author, from or role, and content, body or text."),
    ],
)
def test_columns_that_are_not_there(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: dict[str, str], words: str) -> None:
    (tmp_path / "a.csv").write_text("chat,who,content\n1,a,b\n")
    with pytest.raises(SystemExit) as stopped:
        run_step("collect_source", ["--path", tmp_path / "a.csv", "--outdir", tmp_path], {"source": {"id": "s", "path": "a.csv", **source}})
    assert stopped.value.code == 65
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"path": "a.csv", "assistant": "a"}, "a table needs conversation too"),
        ({"path": "a.sqlite", "query": "SELECT 1", "assistant": "a"}, "a table needs conversation too"),
        ({"path": "a.csv", "conversation": "a", "text": "{b}"}, "no templates"),
        ({"path": "a.mbox", "assistant": "a", "type": "text"}, "no other type"),
    ],
)
def test_samplesheets_that_make_no_sense(source: dict[str, str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Source(id="s", **source)  # type: ignore[arg-type]


def test_a_conversation_is_about_all_who_speak_in_it(said: Callable[..., Said], tmp_path: Path) -> None:
    bob = "Bob <b@y.org>"
    box = write_box(
        tmp_path / "box.mbox", [mail(ANA, "One?", 0, 1), mail(bob, "Two?", 1, 2, [1]), mail(HELP, "Three.", 2, 3, [2]), mail(bob, "Thanks", 3, 4, [3])]
    )
    said(box, assistant="help@firm.com")
    (record,) = rows(tmp_path / "collected.parquet")
    assert record["meta"]["subject_id"].split("\n") == ["ana@x.org", "b@y.org", "help@firm.com"]


def test_mails_of_a_thread_are_one_document(said: Callable[..., Said], tmp_path: Path, run_step: Any) -> None:
    box = write_box(tmp_path / "box.mbox", [mail(ANA, "One?", 0, 1), mail(HELP, "Two.", 1, 2, [1]), mail(ANA, "Three", 2, 3, [1, 2]), mail(ANA, "Else?", 3, 4)])
    run_step("collect_source", ["--path", box, "--outdir", tmp_path], {"source": {"id": "help", "path": box.name}})
    assert [record["meta"]["document_id"] for record in rows(tmp_path / "collected.parquet")] == ["<1@x.org>"] * 3 + ["<4@x.org>"]
