"""The samplesheet, and what a file's name tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamaflow.errors import UsageError
from llamaflow.sources import format_of, is_object, is_samplesheet, read_samplesheet


def sheet(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "sheet.csv"
    path.write_bytes(text.encode(encoding))
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(UsageError) as refused:
        read_samplesheet(path)
    first, *lines = str(refused.value).splitlines()
    assert first == "the samplesheet sheet.csv cannot be used:"
    return [line.strip() for line in lines]


def test_rows(tmp_path: Path) -> None:
    text = "\ufeffid, path ,language,split\nfaq,faq.csv,pt,\n\n manual , 'docs, all'.jsonl,,test\n".replace("'docs, all'.jsonl", '"docs, all.jsonl"')
    faq, manual = read_samplesheet(sheet(tmp_path, text))
    assert (faq.id, faq.path, faq.language, faq.split) == ("faq", "faq.csv", "pt", None)
    assert (manual.id, manual.path, manual.language, manual.split) == ("manual", "docs, all.jsonl", None, "test")


def test_every_fault_by_line(tmp_path: Path) -> None:
    found = faults(sheet(tmp_path, "id,path,split,type\nfaq,a.csv,,\nfaq,b.csv,,\nx,,,\n../x,c.csv,,\nd,d.csv,tset,\ne,e.csv,,poem\n"))
    assert [fault.split(":")[0] for fault in found] == ["line 3", "line 4", "line 5", "line 6", "line 7"]
    assert found[0] == "line 3: id 'faq' is there twice; every source needs its own"
    assert found[1] == "line 4: path: is required"
    assert found[2].startswith("line 5: id: '../x' is not accepted")
    assert found[3].endswith("(did you mean test?)")
    assert found[4].startswith("line 7: type: 'poem' is not accepted")


@pytest.mark.parametrize("pages", ["link", "page", "page:p", "offset:skip", "next:data.next", "next:@odata.nextLink", "cursor:after:a.b", "sitemap", "links:2"])
def test_ways_to_go_on(tmp_path: Path, pages: str) -> None:
    (source,) = read_samplesheet(sheet(tmp_path, f"id,path,pages\nfaq,https://api.example.org/faq,{pages}\n"))
    assert (source.is_api, source.is_website) == (not pages.startswith(("sitemap", "links")), pages.startswith(("sitemap", "links")))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("https://example.org/a,,pagse,", "pages: 'pagse' is not accepted: expected link, page"),
        ("https://example.org/a,,cursor:after,", "pages: 'cursor:after' is not accepted"),
        ("https://example.org/a,,links:0,", "pages: 'links:0' is not accepted"),
        ("faq.json,items,,", "rows and pages are for http(s) addresses"),
        ("s3://bucket/faq.json,,page,", "rows and pages are for http(s) addresses"),
        ("https://example.org/a,items,links,", "rows is for the answers of an API"),
        ("https://example.org/a,items,,csv", "there is no format csv"),
        ("https://example.org/a,,sitemap,html", "there is no format html"),
        ("https://me:pass@example.org/a.csv,,,", "a path with a password would stand in reports"),
    ],
)
def test_ways_to_go_on_that_do_not_fit(tmp_path: Path, row: str, words: str) -> None:
    (fault,) = faults(sheet(tmp_path, f"id,path,rows,pages,format\nfaq,{row}\n"))
    assert words in fault
    assert "pass@" not in fault


def test_unknown_column(tmp_path: Path) -> None:
    assert faults(sheet(tmp_path, "id,path,licence\nfaq,a.csv,MIT\n")) == ["there is no column 'licence' in a samplesheet (did you mean license?)"]


def test_weights_are_for_all_sources_or_none(tmp_path: Path) -> None:
    assert [source.weight for source in read_samplesheet(sheet(tmp_path, "id,path,weight\nfaq,a.csv,0.5\nb,b.csv,2\n"))] == [0.5, 2]
    assert faults(sheet(tmp_path, "id,path,weight\nfaq,a.csv,0.5\nb,b.csv,\n")) == ["weight: b has none; give every source one, or none at all"]
    assert faults(sheet(tmp_path, "id,path,weight\nfaq,a.csv,0\n")) == ["weight: all are 0, so nothing would be trained on"]


def test_a_comma_without_quotes(tmp_path: Path) -> None:
    assert faults(sheet(tmp_path, "id,path\nfaq,a.csv\nb,docs, all.csv\n")) == ["line 3: it has more fields than the header; a field with a comma needs quotes"]


def test_empty(tmp_path: Path) -> None:
    assert faults(sheet(tmp_path, "id,path\n")) == ["it has no rows"]


def test_another_encoding(tmp_path: Path) -> None:
    assert "save it as 'CSV UTF-8'" in faults(sheet(tmp_path, "id,path\nfaq,informações.csv\n", "cp1252"))[0]


def test_a_table_of_data_is_no_samplesheet(tmp_path: Path) -> None:
    assert is_samplesheet(sheet(tmp_path, "\ufeffpath, id\n"))
    assert not is_samplesheet(sheet(tmp_path, "question,answer\n"))
    assert not is_samplesheet(sheet(tmp_path, ""))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.JSONL", "jsonl"),
        ("dir.v1/a.csv.gz", "csv"),
        ("a.md.zst", "markdown"),
        ("https://host/data/a.parquet?version=2", "parquet"),
        ("https://host/download?file=a.csv", None),
        ("a.gz", None),
        ("a.odt", None),
        ("csv", None),
    ],
)
def test_format_of(path: str, expected: str | None) -> None:
    assert format_of(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/a.csv.gz", True),
        ("gs://bucket/a.tar.gz", True),
        ("s3://bucket/a/", False),
        ("s3://bucket/*.csv", False),
        ("hf://datasets/o/n/a.csv", False),
    ],
)
def test_one_object_is_known_by_its_ending(path: str, expected: bool) -> None:
    assert is_object(path) == expected
