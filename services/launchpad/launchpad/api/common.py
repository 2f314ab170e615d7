"""What several endpoints need: settings, pages, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from launchpad.auth import Caller
from launchpad.errors import bad_request
from launchpad.runner import Runner
from launchpad.settings import Settings
from launchpad.shapes import MOST, LabelShape
from launchpad.store import Label

NOTHING = Response(status_code=204)


async def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def get_runner(request: Request) -> Runner:
    runner: Runner = request.app.state.runner
    return runner


Config = Annotated[Settings, Depends(get_settings)]
Runs = Annotated[Runner, Depends(get_runner)]
Max = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0, le=MOST)]
Search = Annotated[str | None, Query(max_length=200)]


def count(session: Session, statement: Select[Any]) -> int:
    """How many rows there are; the database needs no more than an index for it."""
    return session.scalar(statement.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)) or 0


def contains(text: str) -> str:
    """A LIKE pattern, escaped with a backslash."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def labels_of(session: Session, ids: Sequence[int]) -> list[LabelShape]:
    return [LabelShape.model_validate(label) for label in session.scalars(select(Label).where(Label.id.in_(ids)))] if ids else []


def refuse_foreign_labels(session: Session, caller: Caller, ids: Sequence[int] | None) -> None:
    own = set(session.scalars(select(Label.id).where(Label.user_id == caller.user_id)))
    unknown = [str(number) for number in ids or [] if number not in own]
    if unknown:
        raise bad_request(f"You have no label {', '.join(unknown)}. Yours: GET /labels.")
