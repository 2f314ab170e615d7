"""Documents as rows: HTML, PDF, DOCX, XLSX and EPUB.

All but spreadsheets become Markdown first, so that one rule cuts sections under their headings. What is packed as ZIP is measured before it is
unpacked, since a few bytes can become gigabytes.
"""

from __future__ import annotations

import logging
import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from llamaflow.errors import DataError
from llamaflow.sections import paragraphs, sections
from llamaflow.textfiles import Unusable, open_bytes

Row = tuple[int | str, dict[str, Any] | Unusable]
UNPACKED_BYTES = 1 << 30
HTML_BYTES = 64 << 20
# what readers of ZIP and XML raise: parts that are missing, cut off, not well formed (SyntaxError, in lxml and in the standard library), or not what they should be
DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, SyntaxError, RuntimeError, AttributeError, TypeError)
EDGE_LINES, RUNNING_PAGES = 2, 3  # a line among the first or last ones of so many pages is a running head
NAMESPACES = {"container": "urn:oasis:names:tc:opendocument:xmlns:container", "opf": "http://www.idpf.org/2007/opf", "dc": "http://purl.org/dc/elements/1.1/"}


def html(path: Path) -> Iterator[Row]:
    """The main text of a page, without menus and footers, one row a section."""
    with open_bytes(path) as file:
        page = file.read(HTML_BYTES + 1)
    if len(page) > HTML_BYTES:
        raise DataError(f"{path.name} is larger than {HTML_BYTES >> 20} MiB: that is no page for people. Split it, or make it JSONL.")
    text = _main_text(page)
    if not text:
        raise DataError(f"{path.name} has no text that could be told from menus and frames. Is it HTML, and does it need JavaScript to show its text?")
    yield from sections(enumerate(text.split("\n"), 1), _title_of(page))


def _main_text(page: bytes) -> str:
    """trafilatura, Barbaresi 2021, https://aclanthology.org/2021.acl-demo.15; where it finds no article (an index, a form), all visible text."""
    import trafilatura
    from trafilatura.settings import use_config

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # what matters is said in our words
    config = use_config()
    config["DEFAULT"].update({"MIN_EXTRACTED_SIZE": "1", "MIN_OUTPUT_SIZE": "1"})  # short pages are pages too
    options: dict[str, Any] = {"output_format": "markdown", "include_comments": False, "include_tables": True, "favor_recall": True}
    return trafilatura.extract(page, config=config, **options) or trafilatura.html2txt(page) or ""


def _title_of(page: bytes) -> str:
    import trafilatura

    tree = trafilatura.load_html(page)
    return _plain("" if tree is None else tree.findtext(".//title"))


def _plain(title: str | None) -> str:
    return " ".join((title or "").split())


def pdf(path: Path) -> Iterator[Row]:
    """Paragraphs put together as in text files; a row's number is the page where it begins."""
    import pypdfium2

    with open_bytes(path) as file:
        data = file.read()
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        remedy = "Save it without one" if "password" in str(error).lower() else "Open it in a viewer and save it again"
        raise DataError(f"{path.name} cannot be read as PDF: {str(error).rstrip('.')}. {remedy}.") from error
    with document:
        pages = len(document)
        rows = list(paragraphs(_lines_of_pages(document), _plain(document.get_metadata_value("Title"))))
    if not rows:
        raise DataError(f"{path.name} has {pages} pages and no text: it was scanned. Recognise its text first, with ocrmypdf for example.")
    yield from rows


def _lines_of_pages(document: Any) -> Iterator[tuple[int, str]]:
    """Without what stands at the edges of several pages, but for its numbers: running heads and page numbers."""
    running = {line for line, pages in Counter(edge for lines in _pages(document) for edge in _edges(lines)).items() if pages >= RUNNING_PAGES}
    for number, lines in enumerate(_pages(document), 1):
        inner = range(EDGE_LINES, len(lines) - EDGE_LINES)
        yield from ((number, line) for place, line in enumerate(lines) if place in inner or _without_numbers(line) not in running)


def _pages(document: Any) -> Iterator[list[str]]:
    for page in document:
        text = page.get_textpage()
        yield text.get_text_bounded().splitlines()
        text.close()
        page.close()


def _edges(lines: list[str]) -> set[str]:
    return {_without_numbers(line) for line in (*lines[:EDGE_LINES], *lines[-EDGE_LINES:])}


def _without_numbers(line: str) -> str:
    return re.sub(r"\d+", "0", line.strip())


def docx(path: Path) -> Iterator[Row]:
    """Paragraphs and tables in order, headings as in the document's outline; a row's number is that of its first paragraph."""
    import docx as python_docx

    with _unpackable(path) as file:
        document = python_docx.Document(file)
        yield from sections(_lines_of_document(document), _plain(document.core_properties.title))


def _lines_of_document(document: Any) -> Iterator[tuple[int, str]]:
    for number, part in enumerate(document.iter_inner_content(), 1):
        if hasattr(part, "rows"):
            yield from ((number, " | ".join(cell.text.replace("\n", " ") for cell in row.cells)) for row in part.rows)
        else:
            kind, _, level = (part.style.name or "").partition(" ")
            mark = "#" * min(6, int(level)) + " " if kind == "Heading" and level.isdigit() else "# " if kind == "Title" else ""
            yield number, mark + part.text
        yield number, ""


def xlsx(path: Path) -> Iterator[Row]:
    """The rows of every sheet under the sheet's first row; a row's number is Sheet:row."""
    import openpyxl

    with _unpackable(path) as file:
        for sheet in openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets:
            yield from _rows_of_sheet(sheet)


def _rows_of_sheet(sheet: Any) -> Iterator[Row]:
    header: list[str] | None = None
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        values = ["" if cell is None else cell for cell in cells]
        place = f"{sheet.title}:{number}"
        if not any(value != "" for value in values):
            continue
        if header is None:
            header = [str(value).strip() for value in values]
            while header and not header[-1]:
                header.pop()
            if "" in header or len(set(header)) < len(header):
                yield place, Unusable("header of a sheet with merged, empty or equal cells", "one name a column is needed", header)
                return
        else:
            yield place, {name: value if isinstance(value, str | int | float) else str(value) for name, value in zip(header, values, strict=False)}


def epub(path: Path) -> Iterator[Row]:
    """The chapters in reading order (EPUB 3.3, package document), one row a section; a row's number is chapter:line."""
    with _unpackable(path) as file, zipfile.ZipFile(file) as book:
        package, folder = _package(book)
        title = _plain(package.findtext(".//dc:title", namespaces=NAMESPACES))
        for number, name in enumerate(_chapters(package, folder), 1):
            whole = re.sub(rb"<(/?)body\b", rb"<\1article", book.read(name))  # all of a chapter is its main text
            lines = enumerate(_main_text(whole).split("\n"), 1)
            yield from ((f"{number}:{line}", row) for line, row in sections(lines, title))


def _package(book: zipfile.ZipFile) -> tuple[ElementTree.Element, str]:
    """The package document, and the folder that its names are relative to."""
    root = ElementTree.fromstring(book.read("META-INF/container.xml"))  # noqa: S314 - expat of Python 3.11 limits entities
    package = root.find(".//container:rootfile", NAMESPACES)
    if package is None:
        raise KeyError("no package document")
    opf = package.attrib["full-path"]
    return ElementTree.fromstring(book.read(opf)), posixpath.dirname(opf)  # noqa: S314


def _chapters(package: ElementTree.Element, folder: str) -> Iterator[str]:
    files = {item.attrib["id"]: unquote(item.attrib["href"]) for item in package.iterfind(".//opf:manifest/opf:item", NAMESPACES)}
    for reference in package.iterfind(".//opf:spine/opf:itemref", NAMESPACES):
        yield posixpath.normpath(posixpath.join(folder, files[reference.attrib["idref"]]))


@contextmanager
def _unpackable(path: Path) -> Iterator[Any]:
    """The file, once it is known to be a ZIP whose parts are of bearable size; whatever its reader finds wrong with it is a DataError."""
    try:
        with path.open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                size = sum(part.file_size for part in archive.infolist())
            if size > UNPACKED_BYTES:
                raise DataError(
                    f"{path.name} would unpack to {size >> 20} MiB, more than {UNPACKED_BYTES >> 20}: it was made to fill disks, or should be split."
                )
            file.seek(0)
            yield file
    except DAMAGES as error:
        raise DataError(f"{path.name} is damaged, needs a password, or is not what its ending says: {error}. Save or download it again.") from error
