"""Whom records are about, and the people who asked to be erased."""

from __future__ import annotations

from pathlib import Path

from llamaflow.errors import UsageError


def people_of(subject_id: str | None) -> list[str]:
    """Whom a record is about: nobody, somebody, or, of a conversation, all who speak in it, in order, one a line."""
    return subject_id.split("\n") if subject_id else []


def read_subjects(file: Path | None) -> frozenset[str]:
    """A subject_id a line; nobody without a file. Raises UsageError if a file names nobody, which is never meant."""
    if file is None:
        return frozenset()
    subjects = frozenset(filter(None, map(str.strip, file.read_text(encoding="utf-8-sig").splitlines())))
    if not subjects:
        raise UsageError(f"--erase_subjects: {file.name} is empty. It holds one subject_id a line, as in the column subject_id of the data.")
    return subjects
