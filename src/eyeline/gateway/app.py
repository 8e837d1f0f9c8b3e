"""The application: all routes over one state."""

from collections.abc import Sequence
from functools import cache, partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from eyeline import __version__
from eyeline.core.errors import EyelineError
from eyeline.core.telemetry import printable
from eyeline.gateway import (
    alerts,
    cameras,
    captures,
    cases,
    catalogue,
    comparisons,
    dead,
    docs,
    events,
    exports,
    holds,
    items,
    jobs,
    models,
    notices,
    operations,
    pages,
    replays,
    reports,
    results,
    review,
    rules,
    session,
    system,
    users,
)
from eyeline.gateway.front import Front
from eyeline.gateway.problem import Problem, problem_of
from eyeline.gateway.state import State
from eyeline.gateway.upload import PATH, Upload


def build_api(state: State) -> FastAPI:
    """The routes, without what stands before them."""
    app = FastAPI(
        title="Eyeline",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.eyeline = state
    app.router.routes.append(Route(PATH, Upload(state), methods=["POST"], name="upload"))
    watching = (alerts, cases, rules, notices, reports, review)
    engineering = (catalogue, models, dead, operations, system)
    for room in (
        jobs,
        results,
        exports,
        replays,
        comparisons,
        items,
        events,
        *watching,
        cameras,
        captures,
        holds,
        *engineering,
        session,
        users,
    ):
        app.router.routes.extend(room.routes(state).routes)
    app.router.routes.extend(docs.routes().routes)
    app.router.routes.extend(pages.routes(state))
    app.add_exception_handler(EyelineError, _error)
    app.add_exception_handler(Exception, _error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.openapi = cache(partial(docs.describe, app))  # type: ignore[method-assign]
    return app


def build_app(state: State) -> ASGIApp:
    """The ASGI application that a server runs. Background work (see server.py) is not started here."""
    return Front(build_api(state), state)


async def _error(_: Request, error: Exception) -> Response:
    return _response(problem_of(error))


async def _http(_: Request, error: Exception) -> Response:
    """What routing itself refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
    detail = f"{error.detail}; the API is described at /docs"
    return _response(Problem(error.status_code, code, detail, headers))


async def _invalid(_: Request, error: Exception) -> Response:
    """Parameters that do not fit: each with its value."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    problems = [
        f"{_place(each['loc'])}: {each['msg']} (got {printable(repr(each.get('input')), 80)})"
        for each in error.errors()
    ]
    return _response(Problem(422, "invalid", "; ".join(problems)))


def _place(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location[1:]) or str(location[0])


def _response(problem: Problem) -> Response:
    body = problem.body()
    answer = Response(body, problem.status)
    answer.raw_headers = problem.all_headers(body)
    return answer
