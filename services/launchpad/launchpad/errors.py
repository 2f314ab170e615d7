"""Errors in the Platform's shapes: 400 and 409 say why in `message`, 401 and 403 have no body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.exceptions import HTTPException


class ApiError(Exception):
    """What a client did wrong; errors has one line for each fault where there can be several."""

    def __init__(self, status: int, message: str, errors: Sequence[str] = (), headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.errors, self.headers = status, message, errors, headers


def bad_request(message: str, errors: Sequence[str] = ()) -> ApiError:
    return ApiError(400, message, errors)


def conflict(message: str) -> ApiError:
    return ApiError(409, message)


def forbidden() -> ApiError:
    """Also for what does not exist, so that nobody learns which ids do."""
    return ApiError(403, "")


def answer_errors_of(app: FastAPI) -> None:
    """Make the application answer every error in these shapes."""

    @app.exception_handler(ApiError)
    def api_error(_: Request, error: ApiError) -> Response:
        if not error.message:
            return Response(status_code=error.status, headers=error.headers)
        body = {"message": error.message} | ({"errors": [{"code": "invalid", "message": line} for line in error.errors]} if error.errors else {})
        return JSONResponse(body, error.status, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        lines = [_said(fault) for fault in error.errors()]
        return api_error(request, bad_request("; ".join(lines), lines))

    @app.exception_handler(HTTPException)
    def http_error(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"message": str(error.detail)}, error.status_code, headers=error.headers)

    @app.exception_handler(OSError)
    def no_disk(request: Request, error: OSError) -> Response:
        return api_error(request, ApiError(507, f"The launchpad cannot write its files: {error.strerror or error}. Ask its administrator to make room."))

    @app.exception_handler(OperationalError)
    def no_database(request: Request, error: OperationalError) -> Response:
        return api_error(request, ApiError(507, f"The launchpad cannot write its database: {error.orig}. Ask its administrator to make room."))

    @app.exception_handler(UnicodeEncodeError)
    def no_text(request: Request, _: UnicodeEncodeError) -> Response:
        return api_error(request, bad_request("The request holds characters that are none: lone surrogates, as \\ud800 in JSON."))

    @app.exception_handler(IntegrityError)
    def too_late(request: Request, _: IntegrityError) -> Response:
        return api_error(request, conflict("Another request was faster and made the same. Look what is there, then try again."))


def _said(fault: Any) -> str:
    """body.launch.runName without where in the request it is, and what is wrong with it."""
    if fault["type"] == "json_invalid":
        return f"The body is no JSON: {fault['ctx']['error']} at character {fault['loc'][-1]}"
    place = ".".join(str(part) for part in fault["loc"][1:]) or fault["loc"][0]
    return f"{place}: {fault['msg']}"
