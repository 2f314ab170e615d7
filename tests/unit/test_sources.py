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


def test_unknown_column(tmp_path: Path) -> None:
    assert faults(sheet(tmp_path, "id,path,licence\nfaq,a.csv,MIT\n")) == ["there is no column 'licence' in a samplesheet (did you mean license?)"]


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
