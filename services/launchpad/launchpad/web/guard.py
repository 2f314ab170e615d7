"""What all pages have in common: errors that people can read, and headers and a check that keep other sites out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.datastructures import FormData

from launchpad.auth import is_own_page
from launchpad.errors import ApiError, forbidden
from launchpad.web.render import page

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}
SAID = {
    403: "There is no such page, or your token does not allow it.",
    429: "That was a lot of requests. Wait a moment, then load the page again.",
}


class Page(APIRoute):
    """A route whose answers, errors too, are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            response = await _answer(request, handle)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer


async def _answer(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
    try:
        _refuse_other_sites(request)
        return await handle(request)
    except ApiError as error:
        return _error_page(request, error)
    except RequestValidationError:
        return _error_page(request, forbidden())


def _refuse_other_sites(request: Request) -> None:
    if request.method == "POST" and not is_own_page(request):
        raise ApiError(403, "This request came from another site, so nothing was done.")


def _error_page(request: Request, error: ApiError) -> Response:
    if error.status == 401:
        here = f"{request.url.path}?{request.url.query}".rstrip("?") if request.method == "GET" else "/"
        return RedirectResponse(f"/login?next={quote(here, safe='/')}", 303)
    response = page("error.html", error.status, caller=None, message=error.message or SAID.get(error.status, "That cannot be done."))
    response.headers.update(error.headers or {})
    return response


async def read_form(request: Request) -> Any:
    """Where callers are checked, they must be so before: it reads all that is sent."""
    async with request.form() as form:
        yield form


Form = Annotated[FormData, Depends(read_form)]
