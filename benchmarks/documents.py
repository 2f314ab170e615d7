#!/usr/bin/env python3
"""How much of a manual's text is found in its PDF, HTML and EPUB: the words of its plain text as the truth. See README.md.

documents.py FOLDER   (usr/share/doc/debian-policy of Debian's package debian-policy, unpacked with dpkg-deb -x)
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import common

from llamaflow.formats import rows_of

WORD = re.compile(r"[^\W\d_]{2,}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, default=common.RESULTS / "documents.json")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    truth = words([gzip.decompress((args.folder / "policy.txt.gz").read_bytes()).decode()])
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        pdf = Path(scratch) / "policy.pdf"
        with gzip.open(args.folder / "policy.pdf.gz") as packed, pdf.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        pages = [file for file in sorted((args.folder / "policy.html").glob("*.html")) if file.stem not in ("index", "genindex", "search")]
        for kind, files in {"pdf": [pdf], "html": pages, "epub": [args.folder / "policy.epub"]}.items():
            start = time.perf_counter()
            found = words(text for file in files for text in texts(file, kind))
            figures[kind] = {"seconds": round(time.perf_counter() - start, 2), "words": found.total()} | recall(truth, found)
            print(kind, figures[kind])
    common.keep(args.results, {"truth": {"words": truth.total(), "vocabulary": len(truth)}, **figures})


def texts(file: Path, kind: str) -> Iterator[str]:
    yield from (row["text"] for _, row in rows_of(file, kind) if isinstance(row, dict))


def words(given: Iterator[str] | list[str]) -> Counter[str]:
    return Counter(word for text in given for word in WORD.findall(text.casefold()))


def recall(truth: Counter[str], found: Counter[str]) -> dict[str, float]:
    """Of the different words, and of all words each as often as it stands there."""
    return {"vocabulary": round(len(truth.keys() & found.keys()) / len(truth), 4), "all_words": round((truth & found).total() / truth.total(), 4)}


if __name__ == "__main__":
    main()
