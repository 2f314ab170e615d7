"""Who calls, and what they may do.

A token goes as `Authorization: Bearer TOKEN`, or as nf-tower sends what is no JWT: Basic, user `@token`. Pages in a browser send it as a cookie.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Query, Request
from fastapi.security import HTTPBearer
from sqlalchemy import select
from sqlalchemy.orm import Session

from launchpad.errors import ApiError, forbidden
from launchpad.store import Sessions, Token, User, now

Scope = Literal["read", "launch", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "launch", "admin")  # each may do what those before it may
COOKIE = "launchpad_token"
USED_EVERY = dt.timedelta(minutes=1)  # how exact last_used is: reading should not write each time


@dataclass(frozen=True)
class Caller:
    """The user behind a token. Everyone has one workspace, which is their own."""

    user_id: int
    user_name: str
    scope: Scope
    expires: dt.datetime | None = None  # of the token

    def may(self, scope: Scope) -> bool:
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    @property
    def workspace_id(self) -> int:
        return self.user_id


def create_token(session: Session, user_name: str, name: str, scope: Scope, days: int | None = None, latest: dt.datetime | None = None) -> tuple[Token, str]:
    """Returns the token's row and the token itself, which cannot be had again; it expires after `days`, and not later than `latest`.

    The user is made if there is none of that name.
    """
    user = session.scalar(select(User).where(User.user_name == user_name))
    if user is None:
        user = User(user_name=user_name)
        session.add(user)
        session.flush()
    secret = f"lfp_{secrets.token_urlsafe(32)}"
    ends = [*([now() + dt.timedelta(days=days)] if days else []), *([latest] if latest else [])]
    token = Token(user_id=user.id, name=name, hash=hashed(secret), scope=scope, expires=min(ends, default=None))
    session.add(token)
    session.commit()
    return token, secret


def hashed(secret: str) -> str:
    """A token has 256 random bits: nothing is won by a slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def caller_of(session: Session, secret: str) -> Caller | None:
    """None if the token is unknown or has expired."""
    found = session.execute(select(Token, User).join(User, User.id == Token.user_id).where(Token.hash == hashed(secret))).one_or_none()
    if found is None:
        return None
    token, user = found
    time = now()
    if token.expires is not None and token.expires < time:
        return None
    if token.last_used is None or time - token.last_used > USED_EVERY:
        token.last_used = time
        session.commit()
    return Caller(user.id, user.user_name, next(scope for scope in SCOPES if scope == token.scope), token.expires)


def is_own_page(request: Request) -> bool:
    """Whether a browser sends this from no other site: a SameSite cookie also goes with requests from other ports of this machine, such as n8n's."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def secret_in(request: Request) -> str | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:  # not base64, or no text
            return None
        return password if user == "@token" else None
    return request.cookies.get(COOKIE) if is_own_page(request) else None


def may_upload(sessions: Sessions, request: Request) -> bool:
    """Whether a request has the token of someone who may launch."""
    secret = secret_in(request)
    with sessions() as session:
        caller = caller_of(session, secret) if secret else None
    return caller is not None and caller.may("launch")


# dependencies that wait for nothing are async: each other one takes its turn in a thread
async def get_session(request: Request) -> AsyncIterator[Session]:
    with request.app.state.sessions() as session:
        yield session


Store = Annotated[Session, Depends(get_session)]


in_header = HTTPBearer(auto_error=False, description="A token, as `llamaflow-launchpad token create` prints it.")


def get_caller(request: Request, session: Store, _: Annotated[object, Depends(in_header)]) -> Caller:
    """Whoever the request's token belongs to. Raises ApiError 401, and 429 if they ask too often."""
    secret = secret_in(request)
    caller = caller_of(session, secret) if secret else None
    if caller is None:
        raise ApiError(401, "")
    request.app.state.limiter.count(caller.user_id)  # not of the token: anyone can make themselves more of them
    return caller


def needs(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    async def check(caller: Annotated[Caller, Depends(get_caller)], workspace: Annotated[int | None, Query(alias="workspaceId")] = None) -> Caller:
        if not caller.may(scope) or workspace not in (None, caller.workspace_id):
            raise forbidden()
        return caller

    return check


Reader = Annotated[Caller, Depends(needs("read"))]
Launcher = Annotated[Caller, Depends(needs("launch"))]
Admin = Annotated[Caller, Depends(needs("admin"))]
