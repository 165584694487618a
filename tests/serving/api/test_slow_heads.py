"""The head of a request has a limit of time, on sockets of their own."""

import importlib
import importlib.util
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from omnitune.serving.api.slow_heads import bounded_heads

LIMIT = 0.4
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without a look at the body."""
    if scope["type"] == "lifespan":
        return
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture(scope="module", params=["h11", "httptools"])
def port(request: pytest.FixtureRequest, serving_app: Callable[..., Any]) -> Iterator[int]:
    if not importlib.util.find_spec(request.param):
        pytest.skip(f"{request.param} is not installed")
    protocol = f"uvicorn.protocols.http.{request.param}_impl"
    name = {"h11": "H11Protocol", "httptools": "HttpToolsProtocol"}[request.param]
    base = getattr(importlib.import_module(protocol), name)
    with serving_app(hello, http=bounded_heads(LIMIT, base)) as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture
def line(port: int) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as found:
        yield found


def drip(line: socket.socket, content: bytes, pause: float = LIMIT / 8) -> bytes:
    """Sends a byte now and then, for longer than the limit; what the server says to that."""
    line.settimeout(pause)
    said, until = b"", time.monotonic() + 10 * LIMIT
    while time.monotonic() < until:
        try:
            if content:
                line.sendall(content[:1])
                content = content[1:]
            piece = line.recv(4096)
        except TimeoutError:
            continue
        except OSError:
            return said
        if not piece:
            return said
        said += piece
    raise AssertionError(f"the connection is still open; the server said {said!r}")


def answer(line: socket.socket) -> bytes:
    """An answer as a whole."""
    said = b""
    while not said.endswith(b"hello"):
        said += line.recv(4096)
    return said


def test_a_head_that_drips_is_told_so(line: socket.socket) -> None:
    said = drip(line, HEAD + b"X-Long: " + b"a" * 200)
    assert said.startswith(b"HTTP/1.1 408 ")
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    error = json.loads(body)["error"]
    assert "has not arrived within 0.4 seconds" in error["message"]
    assert error["type"] == "invalid_request_error"


def test_who_says_nothing_is_left_without_a_word(line: socket.socket) -> None:
    """Browsers open connections ahead; an answer without a request would confuse them."""
    assert drip(line, b"") == b""


def test_a_second_head_has_the_limit_too(line: socket.socket) -> None:
    line.sendall(HEAD + b"\r\n")
    assert answer(line).startswith(b"HTTP/1.1 200 ")
    assert drip(line, HEAD).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_nobody_reads_does_not_hold_the_connection(line: socket.socket) -> None:
    """It was answered already: a second answer would be taken for that to the next request."""
    line.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9000\r\n\r\n")
    assert answer(line).startswith(b"HTTP/1.1 200 ")
    assert drip(line, b"a" * 200) == b""


def test_who_is_quick_enough_is_answered_each_time(line: socket.socket) -> None:
    begun = time.monotonic()
    while time.monotonic() < begun + 2 * LIMIT:
        line.sendall(HEAD)
        time.sleep(LIMIT / 4)
        line.sendall(b"\r\n")
        assert answer(line).startswith(b"HTTP/1.1 200 ")
