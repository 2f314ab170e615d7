"""A user's labels and tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field
from sqlalchemy import select

from launchpad import auth, shapes
from launchpad.api.common import NOTHING, Max, Offset, Search, contains, count
from launchpad.auth import SCOPES, Launcher, Reader, Store
from launchpad.errors import conflict, forbidden
from launchpad.shapes import MOST, LabelShape, Shape, Time
from launchpad.store import Label, Token

router = APIRouter(tags=["account"])


class LabelAnswer(LabelShape):
    pass


class LabelRequest(Shape):
    name: str = Field(min_length=1, max_length=39)
    value: str | None = Field(None, max_length=39)
    resource: bool = False
    is_default: bool = False


class Labels(Shape):
    labels: list[LabelShape]
    total_size: int


class TokenShape(Shape):
    id: int
    name: str
    scope: str
    last_used: Time | None
    expires: Time | None
    date_created: Time


class Tokens(Shape):
    tokens: list[TokenShape]


class TokenRequest(Shape):
    name: str = Field(min_length=1, max_length=50)
    scope: str | None = Field(None, pattern="^(read|launch|admin)$")
    days: int | None = Field(None, ge=1, le=3650)


class TokenCreated(Shape):
    access_key: str
    token: TokenShape


@router.get("/labels")
def list_labels(caller: Reader, session: Store, max: Max = 50, offset: Offset = 0, search: Search = None) -> Labels:  # noqa: A002 - the Platform's name
    found = select(Label).where(Label.user_id == caller.user_id).order_by(Label.id)
    if search:
        found = found.where(Label.name.like(contains(search), escape="\\"))
    page = session.scalars(found.limit(max).offset(offset))
    return Labels(labels=[shapes.LabelShape.model_validate(row) for row in page], total_size=count(session, found))


@router.post("/labels")
def create_label(caller: Launcher, session: Store, body: LabelRequest) -> LabelAnswer:
    same = select(Label.id).where(Label.user_id == caller.user_id, Label.name == body.name, Label.value.is_not_distinct_from(body.value))
    if session.scalar(same) is not None:
        raise conflict(f"You have a label {body.name} already.")
    label = Label(user_id=caller.user_id, name=body.name, value=body.value, resource=body.resource)
    session.add(label)
    session.commit()
    return LabelAnswer.model_validate(label)


@router.delete("/labels/{labelId}", status_code=204)
def delete_label(caller: Launcher, session: Store, label_id: Annotated[int, Path(alias="labelId", ge=0, le=MOST)]) -> Response:
    label = session.get(Label, label_id)
    if label is None or label.user_id != caller.user_id:
        raise forbidden()
    session.delete(label)
    session.commit()
    return NOTHING


@router.get("/tokens")
def list_tokens(caller: Reader, session: Store) -> Tokens:
    found = session.scalars(select(Token).where(Token.user_id == caller.user_id).order_by(Token.id))
    return Tokens(tokens=[TokenShape.model_validate(row) for row in found])


@router.post("/tokens")
def create_token(caller: Reader, session: Store, body: TokenRequest) -> TokenCreated:
    """A token of this user, which may do what the caller's may, or less, and not for longer."""
    scope = next((scope for scope in SCOPES if scope == (body.scope or caller.scope)), caller.scope)
    if not caller.may(scope):
        raise forbidden()
    token, secret = auth.create_token(session, caller.user_name, body.name, scope, body.days, caller.expires)
    return TokenCreated(access_key=secret, token=TokenShape.model_validate(token))


@router.delete("/tokens/{tokenId}", status_code=204)
def delete_token(caller: Reader, session: Store, token_id: Annotated[int, Path(alias="tokenId", ge=0, le=MOST)]) -> Response:
    token = session.get(Token, token_id)
    if token is None or token.user_id != caller.user_id or not any(caller.may(scope) for scope in SCOPES if scope == token.scope):
        raise forbidden()
    session.delete(token)
    session.commit()
    return NOTHING
