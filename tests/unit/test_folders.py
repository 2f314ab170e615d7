"""Directories, patterns and archives: every file by its own columns, nothing outside, no bombs, what cannot be read counted."""

from __future__ import annotations

import io
import random
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_files import receipt, rows

from llamaflow import folders
from llamaflow.sources import Source, pattern_of

FILES = {
    "faq.csv": b"question,answer\nA?,B.\n",
    "sub/notes.md": b"# Leave\n\nThirty days.\n",
    "sub/deep/page.txt": b"Plain text.\n",
    ".hidden/x.txt": b"no",
    "photo.jpg": b"\xff\xd8",
    "broken.json": b"{",
}
MAIL = (
    b"From: Ana Souza <Ana@x.org>\nDate: Sun, 22 Nov 2026 10:00:00 -0300\nSubject: =?utf-8?q?F=C3=A9rias?=\nContent-Type: text/plain; charset=utf-8\n\n"
    b"How many days?\n\n> you wrote\n> before\n\n-- \nAna\n"
)
Collect = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def collect(run_step: Any, tmp_path: Path) -> Collect:
    def run(given: Path, path: str | None = None, **source: Any) -> list[dict[str, Any]]:
        settings = {"source": {"id": "docs", "path": path or given.name, **source}, "collection": {"max_dropped_fraction": 0.5}}
        run_step("collect_source", ["--path", given, "--outdir", tmp_path], settings)
        return rows(tmp_path / "collected.parquet")

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_bytes(content)
    return tmp_path / "docs"


def places(records: list[dict[str, Any]]) -> list[str]:
    return [record["meta"]["location"] for record in records]


def test_a_directory(collect: Collect, folder: Path, tmp_path: Path) -> None:
    assert places(collect(folder)) == ["faq.csv:2", "sub/deep/page.txt:1", "sub/notes.md:1"]
    dropped = rows(tmp_path / "collect_source.dropped.parquet")
    assert [(row["location"], row["reason"]) for row in dropped] == [("broken.json", "file that cannot be read"), ("photo.jpg", "file of an unknown kind")]
    assert "not valid JSON" in dropped[0]["record"]
    assert receipt(tmp_path / "collect_source.json")["counts"]["files"] == {"csv": 1, "json": 1, "markdown": 1, "txt": 1}


@pytest.mark.parametrize(("path", "found"), [("docs/**/*.md", ["sub/notes.md:1"]), ("/data/docs/*.csv", ["faq.csv:2"])])
def test_a_pattern(collect: Collect, folder: Path, path: str, found: list[str]) -> None:
    assert places(collect(folder, path)) == found


def test_a_pattern_stays_below_its_directory() -> None:
    assert pattern_of("/data/docs/*/a?.txt") == "*/a?.txt"
    with pytest.raises(ValueError, match=r"there can be no \.\."):
        Source(id="docs", path="docs/*/../../secret/*")
    with pytest.raises(ValueError, match="stands alone"):
        Source(id="docs", path="docs/**.md")


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("passwd.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.mark.parametrize(("pack", "name"), [(zipped, "docs.zip"), (tarred, "docs.tar.gz"), (tarred, "Docs.TGZ")])
def test_an_archive(collect: Collect, tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path], name: str) -> None:
    outside = {"../../evil.txt": b"Out of the archive.\n", "/etc/evil.csv": b"question,answer\nA?,B.\n"}
    records = collect(pack(tmp_path / name, FILES | outside))
    assert set(places(records)) == {"faq.csv:2", "sub/notes.md:1", "sub/deep/page.txt:1", "/etc/evil.csv:2"}
    assert not (tmp_path.parent / "evil.txt").exists()
    assert not Path("/etc/evil.csv").exists()
    assert not list(tmp_path.glob(".unpacked*"))


def test_a_bomb_is_not_unpacked(collect: Collect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(folders, "UNPACKED_BYTES", 1 << 20)
    with pytest.raises(SystemExit) as stopped:
        collect(zipped(tmp_path / "docs.zip", {"a.txt": bytes(8 << 20)}))
    assert stopped.value.code == 65
    assert "made to fill disks" in capsys.readouterr().err


def packed(pack: Callable[[Path, dict[str, bytes]], Path], suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return pack(Path(directory) / f"x{suffix}", {"a.txt": random.Random(1).randbytes(50_000)}).read_bytes()


CUT_ZIP = packed(zipped, ".zip").replace(random.Random(1).randbytes(50_000)[1000:1100], bytes(100))  # a checksum fails
CUT_TAR = packed(tarred, ".tar.gz")[:20_000]


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("docs.zip", b"no zip", 65, "docs.zip is damaged, or is no archive"),
        ("docs.tar.gz", b"no tar", 65, "docs.tar.gz is damaged, or is no archive"),
        ("cut.zip", CUT_ZIP, 65, "cut.zip is damaged, or is no archive"),
        ("cut.tar.gz", CUT_TAR, 65, "cut.tar.gz is damaged, or is no archive"),
        ("empty.zip", None, 64, "holds no file of a kind that is known"),
    ],
)
def test_no_archive(collect: Collect, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, code: int, words: str) -> None:
    path = tmp_path / name
    if content is None:
        zipped(path, {"a.jpg": b"x"})
    else:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        collect(path)
    assert stopped.value.code == code
    assert words in capsys.readouterr().err


def test_an_empty_directory(collect: Collect, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    with pytest.raises(SystemExit) as stopped:
        collect(tmp_path / "docs", "docs/*.pdf")
    assert stopped.value.code == 64
    assert "there is no file in docs that fits *.pdf" in capsys.readouterr().err


def test_mail(collect: Collect, tmp_path: Path) -> None:
    (tmp_path / "box.mbox").write_bytes(
        b"From ana Sun Nov 22 10:00:00 2026\n" + MAIL + b"\nFrom bob Sun Nov 22 10:00:00 2026\nSubject: nothing\n\n> only quoted\n"
    )
    (record,) = collect(tmp_path / "box.mbox")
    assert record["text"] == "F\u00e9rias\n\nHow many days?"
    assert (record["meta"]["subject_id"], record["meta"]["created_at"]) == ("ana@x.org", "2026-11-22T10:00:00-03:00")
    assert [row["reason"] for row in rows(tmp_path / "collect_source.dropped.parquet")] == ["mail without text"]


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: text/plain; charset=unknown-8",
        b"Content-Type: image/png",
        b"Date: yesterday",
        b"From: =?x?q?=FF?=",
        b"Content-Transfer-Encoding: base64",
    ],
)
def test_mail_that_is_broken(collect: Collect, tmp_path: Path, head: bytes) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "a.eml").write_bytes(b"Subject: A\n" + head + b"\n\nWords & \xff\xfe.\n")
    (tmp_path / "mail" / "b.eml").write_bytes(b"Subject: B\nContent-Type: text/html\n\n<html><body><p>Hello <b>you</b></p></body></html>")
    records = collect(tmp_path / "mail")
    assert records[-1]["text"].startswith("B\n\nHello")
    assert len(records) + len(rows(tmp_path / "collect_source.dropped.parquet")) == 2
