"""Templates to pages, and how times, sizes and numbers are written for people."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from launchpad.shapes import WorkflowShape
from launchpad.store import Workflow, now

NOTHING = "–"  # noqa: RUF001
environment = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def page(name: str, status: int = 200, **values: object) -> HTMLResponse:
    return HTMLResponse(environment.get_template(name).render(**values), status)


def ago(time: dt.datetime | None) -> str:
    if time is None:
        return NOTHING
    seconds = (now() - time).total_seconds()
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def lasted(run: Workflow | WorkflowShape) -> float | None:
    """Milliseconds from its start, to its end or now."""
    going = run.start and run.complete is None
    return (now() - run.start).total_seconds() * 1000 if going and run.start else run.duration


def clock(time: dt.datetime | None) -> str:
    return f"{time.day} {time:%b %Y, %H:%M:%S} UTC" if time else NOTHING


def span(milliseconds: float | None) -> str:
    if milliseconds is None:
        return NOTHING
    seconds = int(milliseconds / 1000)
    if milliseconds < 10_000:
        return f"{milliseconds / 1000:.1f} s"
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 60:
        return f"{minutes} min {seconds % 60:02} s"
    return f"{hours} h {minutes % 60:02} min" if hours < 48 else f"{days} d {hours % 24} h"


def size(count: object) -> str:
    """Bytes, in the unit that leaves at most three digits."""
    if not isinstance(count, int | float):  # what nf-tower sends may be anything
        return NOTHING
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def figure(text: str) -> str:
    """A number to four digits; anything else, and whole numbers, as they are."""
    try:
        number = float(text)
    except ValueError:
        return text
    return text if number.is_integer() and "." not in text else f"{number:.4g}"


environment.filters |= {"ago": ago, "clock": clock, "span": span, "lasted": lasted, "size": size, "figure": figure}
