"""A user's labels and tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from sqlalchemy import select

from launchpad import auth, shapes
from launchpad.api.common import NOTHING, Max, Offset, Search, contains, count
from launchpad.auth import SCOPES, Launcher, Reader, Store
from launchpad.errors import conflict, forbidden
from launchpad.shapes import MOST
from launchpad.store import Label, Token

router = APIRouter(tags=["account"])


@router.get("/labels")
def list_labels(caller: Reader, session: Store, max: Max = 50, offset: Offset = 0, search: Search = None) -> shapes.Labels:  # noqa: A002 - the Platform's name
    found = select(Label).where(Label.user_id == caller.user_id).order_by(Label.id)
    if search:
        found = found.where(Label.name.like(contains(search), escape="\\"))
    page = session.scalars(found.limit(max).offset(offset))
    return shapes.Labels(labels=[shapes.LabelShape.model_validate(row) for row in page], total_size=count(session, found))


@router.post("/labels")
def create_label(caller: Launcher, session: Store, body: shapes.LabelRequest) -> shapes.LabelAnswer:
    same = select(Label.id).where(Label.user_id == caller.user_id, Label.name == body.name, Label.value.is_not_distinct_from(body.value))
    if session.scalar(same) is not None:
        raise conflict(f"You have a label {body.name} already.")
    label = Label(user_id=caller.user_id, name=body.name, value=body.value, resource=body.resource)
    session.add(label)
    session.commit()
    return shapes.LabelAnswer.model_validate(label)


@router.delete("/labels/{labelId}", status_code=204)
def delete_label(caller: Launcher, session: Store, label_id: Annotated[int, Path(alias="labelId", ge=0, le=MOST)]) -> Response:
    label = session.get(Label, label_id)
    if label is None or label.user_id != caller.user_id:
        raise forbidden()
    session.delete(label)
    session.commit()
    return NOTHING


@router.get("/tokens")
def list_tokens(caller: Reader, session: Store) -> shapes.Tokens:
    found = session.scalars(select(Token).where(Token.user_id == caller.user_id).order_by(Token.id))
    return shapes.Tokens(tokens=[shapes.TokenShape.model_validate(row) for row in found])


@router.post("/tokens")
def create_token(caller: Reader, session: Store, body: shapes.TokenRequest) -> shapes.TokenCreated:
    """A token of this user, which may do what the caller's may, or less, and not for longer."""
    scope = next((scope for scope in SCOPES if scope == (body.scope or caller.scope)), caller.scope)
    if not caller.may(scope):
        raise forbidden()
    token, secret = auth.create_token(session, caller.user_name, body.name, scope, body.days, caller.expires)
    return shapes.TokenCreated(access_key=secret, token=shapes.TokenShape.model_validate(token))


@router.delete("/tokens/{tokenId}", status_code=204)
def delete_token(caller: Reader, session: Store, token_id: Annotated[int, Path(alias="tokenId", ge=0, le=MOST)]) -> Response:
    token = session.get(Token, token_id)
    if token is None or token.user_id != caller.user_id or not any(caller.may(scope) for scope in SCOPES if scope == token.scope):
        raise forbidden()
    session.delete(token)
    session.commit()
    return NOTHING
