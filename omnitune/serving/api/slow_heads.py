"""A limit on how long the head of a request may take: uvicorn has none.

Its ``timeout_keep_alive`` ends with the first byte. A client that sends one now and then would hold
its connection for ever, and many such clients would hold all that the system has.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from omnitune.serving.api.errors import body_of


def bounded_heads(
    seconds: float, base: type[asyncio.Protocol] = AutoHTTPProtocol
) -> type[asyncio.Protocol]:
    """A protocol of uvicorn's with a limit from the connection, or an answer, to the next request.

    Args:
        seconds: until the request's head is complete.
        base: uvicorn's own protocol, over h11 or httptools.
    """
    return type(f"Bounded{base.__name__}", (_BoundedHead, base), {"head_seconds": seconds})


class _BoundedHead(asyncio.Protocol):
    """What is added to a protocol of uvicorn's.

    Its ``cycle`` is the latest request: None before the first head is complete.
    """

    head_seconds: float
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    cycle: Any
    _waits: asyncio.TimerHandle | None = None
    _begun = False  # a part of the next request has come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._begun = True
        super().data_received(data)
        if self._is_answering:
            self._wait_no_more()
        elif self._waits is None and not self.transport.is_closing():
            self._wait()  # the first bytes after an answer

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._waits = self.loop.call_later(self.head_seconds, self._end)

    def _wait_no_more(self) -> None:
        self._begun = False
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None

    def _end(self) -> None:
        self._waits = None
        if self.transport.is_closing() or self._is_answering:
            return
        # What follows an answer may be the rest of a body that nobody reads.
        is_head = self.cycle is None or not self.cycle.more_body
        if self._begun and is_head:
            self.transport.write(_too_slow(self.head_seconds))
        self.transport.close()


def _too_slow(seconds: float) -> bytes:
    message = (
        f"the head of the request has not arrived within {seconds:g} seconds; send it again, as a "
        "whole"
    )
    body = json.dumps(body_of(message, "invalid_request_error")).encode()
    head = "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
