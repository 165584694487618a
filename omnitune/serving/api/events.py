"""Answers that are sent as they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode  # made once: it is used for each token


class EventStream(Response):
    """Server-sent events; when the client hangs up, what makes them is closed at once.

    Args:
        events: objects to send as JSON, and texts to send as they are.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[Any]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not sending.done():
                sending.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await sending

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async with aclosing(self.events) as events:  # type: ignore[type-var]
            async for event in events:
                text = event if isinstance(event, str) else _ENCODE(event)
                await send(_body(f"data: {text}\n\n".encode(), more=True))
        await send(_body(b"", more=False))


def _body(content: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def disconnected(receive: Receive) -> None:
    """Returns when the client has hung up; its request has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
