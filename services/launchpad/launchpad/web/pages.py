"""All pages: signing in here, launching and runs in files of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from launchpad.auth import COOKIE, Store, caller_of
from launchpad.folders import below
from launchpad.web import launch, runs
from launchpad.web.guard import Form, Page
from launchpad.web.render import page

STATIC = Path(__file__).with_name("static")
SIGNED_IN = 30 * 86400  # seconds
HERE = re.compile(r"/(?![/\\])[^\x00-\x1f\x7f]*")  # an address of this site; browsers leave out tabs and ends of lines, so that /<tab>/host is another's
router = APIRouter(route_class=Page, include_in_schema=False)
router.include_router(runs.router)
router.include_router(launch.router)


@router.get("/static/{name}")
def static(name: str) -> Response:
    return FileResponse(below(STATIC, name), headers={"Cache-Control": "max-age=600"})


@router.get("/login")
def show_login(target: Annotated[str, Query(alias="next")] = "/") -> Response:
    return page("login.html", caller=None, target=_here(target), message=None)


@router.post("/login")
def login(request: Request, session: Store, form: Form) -> Response:
    request.app.state.limiter.count(("login", request.client.host if request.client else None))
    secret, target = str(form.get("token", "")).strip(), _here(str(form.get("next", "/")))
    if not secret or caller_of(session, secret) is None:
        return page("login.html", 401, caller=None, target=target, message="This is no token, or it has expired. A token begins with lfp_.")
    response = RedirectResponse(target, 303)
    response.set_cookie(COOKIE, secret, max_age=SIGNED_IN, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return response


@router.post("/logout")
def logout() -> Response:
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def _here(target: str) -> str:
    return target if HERE.fullmatch(target) else "/"
