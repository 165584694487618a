"""What is checked of a request before anything reads it: its host, its key, its size."""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnitune.serving.api.errors import body_of

_PORT = re.compile(r":\d*$")
OPEN = frozenset({"/health"})  # what is told without a key


class Guard:
    """Refuses what is too large, has no key, or was meant for another host.

    Args:
        body_bytes: of a request, at most.
        api_key: that clients send as ``Authorization: Bearer KEY``; "" for none.
        hosts: names by which clients may call the server; None: any. A page on the web that
            points a name of its own at this machine is so kept out.
    """

    def __init__(
        self,
        app: ASGIApp,
        body_bytes: int,
        api_key: str = "",
        hosts: Collection[str] | None = None,
    ) -> None:
        self.app, self.body_bytes, self.api_key, self.hosts = app, body_bytes, api_key, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.body_bytes:  # a body that comes in pieces does not say its length
                raise HTTPException(413, self._too_large(read))
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
