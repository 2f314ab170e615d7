"""How the losses of trials went: of finished ones from history.jsonl, of those that train now from TensorBoard's events, which grow with every few steps."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from launchpad import results
from launchpad.store import Task, Workflow

TRAINING = "TRAIN_TRIALS"
PART = ".part"  # at the end of a trial's directory until it has ended
HELPER = re.compile(r"\.part\d+$")  # that of a process which trains it together with the first, and says nothing
LARGEST = 20_000_000  # bytes of a file that are looked at
# an event of TensorBoard, as a protocol buffer: 1 the time, 2 the step, 5 its values, of which each has 1 its name and 2 its number
STEP = re.compile(rb"\x09.{8}\x10([\x80-\xff]{0,8}[\x00-\x7f])", re.DOTALL)
VALUE = re.compile(rb"\x0a(?:\x04(loss)|\x0f(validation_loss))\x15(.{4})", re.DOTALL)
FLOAT = struct.Struct("<f")
Row = dict[str, float]  # step, loss and, where measured, validation_loss
Point = tuple[float, float]


@dataclass(frozen=True)
class Trial:
    """Points are (step, loss)."""

    name: str
    loss: list[Point]
    validation: list[Point]


def trials_of(session: Session, workflow: Workflow) -> list[Trial]:
    """Of LlamaFlow's runs, those whose training has begun, by name."""
    tasks = session.scalars(select(Task.workdir).where(Task.workflow_id == workflow.id, Task.process.like(f"%{TRAINING}"), Task.workdir.is_not(None)))
    places = [Path(workdir or "") for workdir in tasks] + [root for root in [results.root(workflow)] if root]
    directories = [directory for place in places for directory in place.glob("trials/*") if not HELPER.search(directory.name)]
    found = {directory.name.removesuffix(PART): directory for directory in directories}
    trials = [_trial(name, directory) for name, directory in sorted(found.items())]
    return [trial for trial in trials if trial.loss]


def _trial(name: str, directory: Path) -> Trial:
    for file in (directory / "history.jsonl", directory / "events.tfevents"):
        try:
            if file.is_file():
                there = file.stat()
                return Trial(name, *_points(file, there.st_size, there.st_mtime_ns))
        except OSError:  # the trial has just ended, and its directory has another name
            break
    return Trial(name, [], [])


@lru_cache(maxsize=256)
def _points(file: Path, size: int, _: int) -> tuple[list[Point], list[Point]]:
    """Read again only when the file has changed."""
    if size > LARGEST:
        return [], []
    rows = list(_history(file) if file.suffix == ".jsonl" else _events(file.read_bytes()))
    loss, validation = ([(row["step"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))] for name in ("loss", "validation_loss"))
    return loss, validation


def _history(file: Path) -> Iterator[Row]:
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # a line that is being written
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield {name: value for name, value in row.items() if isinstance(value, int | float)}


def _events(data: bytes) -> Iterator[Row]:
    """TFRecords (length, its checksum, event, its checksum), up to the last whole one."""
    at = 0
    while at + 12 <= len(data):
        begin, end = at + 12, at + 12 + int.from_bytes(data[at : at + 8], "little")
        if end + 4 > len(data):
            return
        step = STEP.match(data, begin, end)
        values = {(loss or validation).decode(): FLOAT.unpack(number)[0] for loss, validation, number in VALUE.findall(data, begin, end)}
        if step and values:
            yield {"step": float(_varint(step[1])), **values}
        at = end + 4


def _varint(data: bytes) -> int:
    return sum((byte & 127) << 7 * place for place, byte in enumerate(data))
