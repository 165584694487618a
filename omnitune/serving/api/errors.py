"""Errors as OpenAI's API says them: a status, and a sentence that says what to do."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnitune.sample import UserError
from omnitune.serving.api.requests import said_wrong
from omnitune.serving.encoded_media import TooLargeError
from omnitune.serving.prompts import ContextError
from omnitune.serving.scheduler import BusyError

LOG = logging.getLogger("omnitune.serving")


class UnknownModelError(UserError):
    """The server has no model of this name."""


# Status, type and code of each kind of mistake; the first that fits counts.
KINDS: tuple[tuple[type[UserError], int, str, str | None], ...] = (
    (TooLargeError, 413, "invalid_request_error", "request_too_large"),
    (BusyError, 429, "rate_limit_error", "queue_full"),
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (ContextError, 400, "invalid_request_error", "context_length_exceeded"),
    (UserError, 400, "invalid_request_error", None),
)
UNPARSED = "There was an error parsing the body"  # as the library says it
OF_STATUS = {401: "authentication_error", 413: "invalid_request_error", 500: "server_error"}


def body_of(message: str, kind: str, code: str | None = None, param: str | None = None) -> Any:
    """The object that an error is told in."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_body(error: BaseException) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of what went wrong; a fault of ours goes to the log."""
    for kind, status, name, code in KINDS:
        if isinstance(error, kind):
            headers = {"Retry-After": str(error.seconds)} if isinstance(error, BusyError) else {}
            return status, body_of(str(error), name, code), headers
    LOG.error("a request failed", exc_info=error)
    message = (
        "something that omnitune did not expect; the server's log says what, and the other "
        "requests go on"
    )
    return 500, body_of(message, "server_error"), {}


def response_of(error: BaseException) -> JSONResponse:
    """The answer to a request that went wrong."""
    status, body, headers = error_body(error)
    return JSONResponse(body, status, headers)


def install(app: FastAPI) -> None:
    """Makes an application answer every error in this shape."""

    @app.exception_handler(UserError)
    async def _mistake(request: Request, error: UserError) -> JSONResponse:
        return response_of(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        message, param = said_wrong(error.errors())
        return JSONResponse(body_of(message, "invalid_request_error", None, param), 400)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = (
                f"{request.method} {request.url.path}: there is nothing of this kind here; there "
                f"is {', '.join(offered(request.app))}; /openapi.json tells of them"
            )
        if message == UNPARSED:  # nested too deep, not in UTF-8, or a number too long
            message = "the body is no JSON that can be read; send one plain object in UTF-8"
        kind = OF_STATUS.get(error.status_code, "invalid_request_error")
        return JSONResponse(body_of(message, kind), error.status_code, error.headers)


def offered(app: FastAPI) -> list[str]:
    """Method and path of what an application answers."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return [f"{method.upper()} {path}" for path, found in paths.items() for method in found]


class Faults:
    """Answers a request in which something unexpected happened.

    The library's own answer to that would also close the connection, before a client has read it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except BaseException as error:  # a panic of the tokenizer is no Exception
            passing = isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit)
            if passing or begun or scope["type"] != "http":
                raise
            await response_of(error)(scope, receive, send)
