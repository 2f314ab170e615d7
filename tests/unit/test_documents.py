"""Documents become sections, pages and rows, and what is no document is refused with a remedy."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pytest

from llamaflow import documents
from llamaflow.errors import DataError
from llamaflow.formats import rows_of
from llamaflow.textfiles import Unusable

PAGE = """<html><head><title>Leave</title><script>var a = "menu";</script></head><body><nav><a href="/">Home</a> <a href="/x">Contact</a></nav>
<article><h1>Leave</h1><p>Every employee has thirty days of leave a year, which are granted by the head of the unit.</p>
<h2>Selling days</h2><p>Up to ten of these days can be sold with form F-2, which must be handed in before the end of March.</p>
<table><tr><th>Form</th><th>Purpose</th></tr><tr><td>F-2</td><td>Selling days</td></tr></table></article>
<footer>All rights reserved. Imprint. Cookies.</footer></body></html>"""


def write_pdf(path: Path, pages: list[list[str]], extra: str = "") -> Path:
    """PDF 1.4 with Helvetica, one line of text below the other."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"]
    kids = []
    for lines in pages:
        text = "".join(f"({line}) Tj T* " for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {text}ET" if lines else ""
        objects.append(f"<< /Length {len(stream.encode('cp1252'))} >>\nstream\n{stream}\nendstream")
        resources = "<< /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources {resources} /Contents {len(objects)} 0 R >>")
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode("cp1252")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {extra}>>\nstartxref\n{len(data)}\n%%EOF".encode()
    path.write_bytes(data)
    return path


def headings(path: Path, file_format: str) -> list[tuple[str, str]]:
    return [(str(row["title"]), str(row["heading"])) for _, row in rows_of(path, file_format) if isinstance(row, dict)]


def texts(path: Path, file_format: str) -> list[tuple[Any, str]]:
    return [(number, row["text"]) for number, row in rows_of(path, file_format) if isinstance(row, dict)]


def test_a_page_without_its_menus_under_its_headings(tmp_path: Path) -> None:
    path = tmp_path / "leave.html"
    path.write_text(PAGE, encoding="utf-8")
    (_, first), (_, second) = texts(path, "html")
    assert first.startswith("# Leave\n\nEvery employee has thirty days")
    assert second.startswith("# Leave\n\n## Selling days\n\nUp to ten of these days")
    assert "F-2" in second.rpartition("March.")[2], "the table"
    assert not any(word in first + second for word in ("Home", "Contact", "Cookies", "menu"))
    assert headings(path, "html") == [("Leave", "section without heading"), ("Leave", "Selling days")]


def test_a_page_in_an_older_encoding(tmp_path: Path) -> None:
    path = tmp_path / "old.html"
    path.write_bytes('<html><head><meta charset="windows-1252"></head><body><p>Férias são de trinta dias por ano.</p></body></html>'.encode("cp1252"))
    assert texts(path, "html") == [(1, "Férias são de trinta dias por ano.")]


def test_text_of_a_pdf_with_the_page_where_it_begins(tmp_path: Path) -> None:
    long = [f"Line {number} of the regulation on leave, which is rather long, so that two pages are needed." for number in range(50)]
    path = write_pdf(tmp_path / "a.pdf", [["Título: férias", "Thirty days."], long, long])
    (first, one), (second, _) = texts(path, "pdf")
    assert (first, second) == (1, 3)
    assert one.startswith("Título: férias\nThirty days.\nLine 0 of the regulation")
    assert headings(path, "pdf") == [("document without title", "section without heading")] * 2


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("", "has 1 pages and no text: it was scanned. Recognise its text first"),
        (
            f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'00' * 32}> /U <{'11' * 32}> >> /ID [<00> <00>] ",
            "Incorrect password error). Save it without one.",
        ),
    ],
)
def test_a_pdf_without_text_for_us(tmp_path: Path, extra: str, words: str) -> None:
    path = write_pdf(tmp_path / "a.pdf", [[]], extra)
    with pytest.raises(DataError) as refused:
        list(rows_of(path, "pdf"))
    assert words in str(refused.value)


def test_a_word_document_under_its_headings(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("Leave", 1)
    document.add_paragraph("Thirty days.")
    document.add_heading("Selling days", 2)
    table = document.add_table(1, 2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "F-2", "Selling\ndays"
    document.save(str(tmp_path / "a.docx"))
    assert texts(tmp_path / "a.docx", "docx") == [(1, "# Leave\n\nThirty days."), (3, "# Leave\n\n## Selling days\n\nF-2 | Selling days")]
    document.core_properties.title = "Handbook"
    document.save(str(tmp_path / "a.docx"))
    assert headings(tmp_path / "a.docx", "docx") == [("Handbook", "Leave"), ("Handbook", "Leave > Selling days")]


def test_sheets_of_a_spreadsheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["question", "answer", None], ["A?", 1.5], [None, None], ["B?", "yes"]):
        book.active.append(row)
    merged = book.create_sheet("Merged")
    for row in (["question", None, "answer"], ["A?", "x", "B"]):
        merged.append(row)
    book.save(tmp_path / "a.xlsx")
    found = list(rows_of(tmp_path / "a.xlsx", "xlsx"))
    assert found[:2] == [("Sheet:2", {"question": "A?", "answer": 1.5}), ("Sheet:4", {"question": "B?", "answer": "yes"})]
    ((place, fault),) = found[2:]
    assert (place, isinstance(fault, Unusable) and fault.reason) == ("Merged:1", "header of a sheet with merged, empty or equal cells")


def test_chapters_of_an_e_book_in_their_order(tmp_path: Path) -> None:
    parts = {
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/a.opf"/></rootfiles></container>',
        "OEBPS/a.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title> On\nleave</dc:title></metadata>'
        '<manifest><item id="2" href="b.xhtml"/><item id="1" href="text/a.xhtml"/></manifest>'
        '<spine><itemref idref="1"/><itemref idref="2"/></spine></package>',
        "OEBPS/b.xhtml": "<html><body><h1>Two</h1><p>The second chapter is about how leave can be sold to the company.</p></body></html>",
        "OEBPS/text/a.xhtml": "<html><body><h1>One</h1><p>The first chapter is about how leave is granted by the company.</p></body></html>",
    }
    with zipfile.ZipFile(tmp_path / "a.epub", "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    (first, one), (second, two) = texts(tmp_path / "a.epub", "epub")
    assert (first, one.partition(" is about")[0]) == ("1:1", "# One\n\nThe first chapter")
    assert (second, two.partition(" is about")[0]) == ("2:1", "# Two\n\nThe second chapter")
    assert headings(tmp_path / "a.epub", "epub") == [("On leave", "One"), ("On leave", "Two")]


@pytest.mark.parametrize("file_format", ["pdf", "docx", "xlsx", "epub"])
def test_what_is_no_document(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"a.{file_format}"
    path.write_text("question,answer\n")
    with pytest.raises(DataError, match=rf"a\.{file_format} "):
        list(rows_of(path, file_format))


@pytest.mark.parametrize("file_format", ["docx", "xlsx", "epub"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    monkeypatch.setattr(documents, "UNPACKED_BYTES", 1 << 20)
    path = tmp_path / f"a.{file_format}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(2 << 20))
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match="would unpack to 2 MiB, more than 1"):
        list(rows_of(path, file_format))


@pytest.mark.parametrize(("file_format", "part"), [*((kind, part) for kind in ("docx", "xlsx", "epub") for part in (b"<cut", None)), ("docx", b"<a/>")])
def test_a_document_with_a_broken_part(tmp_path: Path, file_format: str, part: bytes | None) -> None:
    """Each part but one is as it should be."""
    whole = tmp_path / "whole"
    if file_format == "epub":
        with zipfile.ZipFile(whole, "w") as book:
            book.writestr("META-INF/container.xml", '<c xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfile full-path="a.opf"/></c>')
            opf = '<p xmlns="http://www.idpf.org/2007/opf"><manifest><item id="1" href="my%20a.xhtml"/></manifest><spine><itemref idref="1"/></spine></p>'
            book.writestr("a.opf", opf)
            book.writestr("my a.xhtml", PAGE)
    else:
        (docx.Document() if file_format == "docx" else openpyxl.Workbook()).save(str(whole))
    broken = {"docx": "word/document.xml", "xlsx": "xl/workbook.xml", "epub": "a.opf"}[file_format]
    path = tmp_path / f"a.{file_format}"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name != broken:
                new.writestr(name, old.read(name))
            elif part is not None:
                new.writestr(name, part)
    with pytest.raises(DataError, match="is damaged, needs a password, or is not what its ending says"):
        list(rows_of(path, file_format))
