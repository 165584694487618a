"""What is checked of a request before anything reads it: its host, its key, its size."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Collection
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnitune.serving.api.errors import body_of
from omnitune.serving.served import Limits

_PORT = re.compile(r":\d*$")
CLOSE = {"Connection": "close"}  # the rest of the request is not waited for
OPEN = frozenset({"/health"})  # what is told without a key


class Guard:
    """Refuses what is too large, has no key, or was meant for another host.

    Args:
        limits: of these, bytes of a request and the time that it may take to arrive.
        api_key: that clients send as ``Authorization: Bearer KEY``; "" for none.
        hosts: names by which clients may call the server; None: any. A page on the web that
            points a name of its own at this machine is so kept out.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        api_key: str = "",
        hosts: Collection[str] | None = None,
    ) -> None:
        self.app, self.api_key, self.hosts = app, api_key, hosts
        self.body_bytes, self.body_seconds = limits.body_bytes, limits.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        read = 0
        # A client that sends a byte now and then would hold its connection for ever.
        end: float | None = asyncio.get_running_loop().time() + self.body_seconds

        async def counted() -> Message:
            nonlocal read, end
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, self._too_slow(), CLOSE) from None
            if not message.get("more_body"):
                end = None  # what follows is that the client hangs up, whenever it does
            read += len(message.get("body", b""))
            if read > self.body_bytes:  # a body that comes in pieces does not say its length
                raise HTTPException(413, self._too_large(read), CLOSE)
            return message

        await self.app(scope, counted, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        name = _PORT.sub("", headers.get("host", "")).lower()
        if self.hosts is not None and name not in self.hosts:
            return _refuse(
                403,
                f"this server answers to {', '.join(self.hosts)} only, not to {name!r}; "
                "start it with --host to offer it to others",
            )
        if self.api_key and scope["path"] not in OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), self.api_key.encode()):
                return _refuse(
                    401,
                    "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                    {"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.body_bytes:
            return _refuse(413, self._too_large(int(length)))
        return None

    def _too_slow(self) -> str:
        return (
            f"the request has not arrived within {self.body_seconds:g} seconds; send it again, "
            "or start the server with a larger --max-upload-seconds"
        )

    def _too_large(self, found: int) -> str:
        return (
            f"the request has {found:,} bytes or more, the limit of this server is "
            f"{self.body_bytes:,}; send smaller media"
        )


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    kinds: dict[int, Any] = {401: ("authentication_error", "invalid_api_key")}
    kind, code = kinds.get(status, ("invalid_request_error", None))
    code = "request_too_large" if status == 413 else code
    return JSONResponse(body_of(message, kind, code), status, headers)
