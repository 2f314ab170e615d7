"""Files with what models will be evaluated on, of which nothing is to be trained on."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llamaflow.errors import DataError, UsageError
from llamaflow.formats import rows_of, text_lines
from llamaflow.overlap import COLUMNS, NONE, Questions, question_of
from llamaflow.sources import FORMATS, format_of
from llamaflow.templates import folded
from llamaflow.textfiles import Unusable


class Benchmarks:
    """The questions of all files, and by file how many there are and how many records contain one."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.counts = {file.name: {"questions": 0, "dropped": 0, "test": 0} for file in files}
        self._names = [file.name for file in files]
        self._file_of = array("i")  # by question
        self._questions = Questions(self._read(files))

    def _read(self, files: Sequence[Path]) -> Iterator[str]:
        for place, file in enumerate(files):
            for question in questions_of(file):
                self._file_of.append(place)
                self.counts[file.name]["questions"] += 1
                yield question

    def reasons(self, texts: Iterable[str], is_test: Iterable[bool]) -> list[str]:
        """Why each record is left out, or nothing. Those that will be test records are what one tests with: they are counted only."""
        if not self._names:
            return ["" for _ in is_test]
        result = []
        for number, stays in zip(self._questions.find(list(texts)), is_test, strict=True):
            name = None if number == NONE else self._names[self._file_of[number]]
            if name is not None:
                self.counts[name]["test" if stays else "dropped"] += 1
            result.append("" if name is None or stays else f"question of {name}")
        return result


def questions_of(file: Path) -> Iterator[str]:
    """The questions of a file: of plain text every line, else what question_of finds. Raises DataError for one that is not understood."""
    file_format = format_of(file.name)
    if file_format is None:
        raise UsageError(f"--decontaminate_against: the format of {file.name} cannot be told from its ending. Known are {' '.join(FORMATS)}.")
    found, columns = 0, set[str]()
    lines = ((number, {"text": line}) for number, line in text_lines(file)) if file_format == "txt" else rows_of(file, file_format)
    for number, row in lines:
        if isinstance(row, Unusable):
            raise DataError(f"--decontaminate_against: {file.name}:{number}: {row.reason}. Mend the row, or take it out.")
        named = {folded(name): value for name, value in row.items()}
        columns.update(named)
        if question := question_of(named):
            found += 1
            yield question
    if not found:
        raise DataError(
            f"--decontaminate_against: {file.name} has no questions. Found columns: {', '.join(sorted(columns)) or 'none'}. "
            f"Expected one of: {', '.join(COLUMNS)}. Rename the column that holds them."
        )
