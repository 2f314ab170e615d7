"""The service: the API under /api, pages for people beside it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from sqlalchemy import select

from launchpad.api import account, actions, datasets, pipelines, service, tower, workflows
from launchpad.auth import may_upload
from launchpad.errors import answer_errors_of
from launchpad.limits import BodyLimit, RateLimit, Unkept
from launchpad.runner import Runner
from launchpad.settings import Settings
from launchpad.shapes import Failure
from launchpad.store import Pipeline, Sessions, open_store
from launchpad.web import pages

FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "What was asked for cannot be done, and why."},
    401: {"description": "No token, or none that is known and has not expired."},
    403: {"description": "Not allowed, or not there."},
    409: {"model": Failure, "description": "In conflict with what there is."},
    413: {"model": Failure, "description": "Too large."},
    429: {"model": Failure, "description": "Too many requests."},
    507: {"model": Failure, "description": "The disk is full."},
}
LLAMAFLOW = "llamaflow"


def create_app(settings: Settings) -> FastAPI:
    """Raises ApiError 409 at start if another launchpad works in the same directory."""
    sessions = open_store(settings.database)
    runner = Runner(settings, sessions)
    register_llamaflow(settings, sessions)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        runner.stop()

    app = FastAPIOffline(
        title="LlamaFlow launchpad",
        version="0.1.0",
        description="Launches and follows pipelines, as the Seqera Platform does.",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url="/api/docs",
        redoc_url=None,
        static_url="/api/docs/static",
    )
    app.state.settings, app.state.sessions, app.state.runner = settings, sessions, runner
    app.state.limiter = RateLimit(settings.requests_per_minute)
    for part in (service, pipelines, workflows, tower, datasets, actions, account):
        app.include_router(part.router, prefix="/api", responses=FAILURES)
    app.include_router(pages.router)
    answer_errors_of(app)
    describe_no_422(app)
    app.add_middleware(BodyLimit, settings.max_body, settings.max_upload, lambda request: may_upload(sessions, request))
    app.add_middleware(Unkept)
    return app


def describe_no_422(app: FastAPI) -> None:
    """FastAPI describes 422 for what does not fit, which is answered with 400, as the Platform does."""
    describe = app.openapi  # takes a part of a second, so it is called when somebody asks

    def openapi() -> dict[str, Any]:
        spec = describe()
        for methods in spec["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            spec["components"]["schemas"].pop(name, None)
        return spec

    app.openapi = openapi  # type: ignore[method-assign]


def register_llamaflow(settings: Settings, sessions: Sessions) -> None:
    """LlamaFlow itself is there from the start; where it is may have changed since the last."""
    with sessions() as session:
        known = session.scalar(select(Pipeline).where(Pipeline.name == LLAMAFLOW))
        if known is None:
            known = Pipeline(name=LLAMAFLOW, repository="", description="Fine-tunes large language models end to end")
            session.add(known)
        known.repository = str(settings.pipeline)
        session.commit()


def configure_logging() -> None:
    """Requests are not logged: their addresses may hold what is not for a log."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
