"""Work on pieces by forked processes: whatever the function holds need not be sent to them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from omnitune.storage import usable_cores

T = TypeVar("T")
R = TypeVar("R")


def forked(function: Callable[[T], R], pieces: Sequence[T]) -> Iterator[R]:
    """The function of each piece, in order, by as many processes as this one has cores.

    The function and what it holds must not compute by torch. Where nothing can be forked, or there
    is one core, this process does it all.

    Raises:
        whatever the function does; RuntimeError where a process was killed.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # ranks have the same cores
    count = min(usable_cores() // beside, len(pieces))
    if count < 2 or sys.platform != "linux":
        yield from map(function, pieces)
        return
    context, ours, others = multiprocessing.get_context("fork"), list[Connection](), []
    try:
        for n in range(count):
            own, theirs = context.Pipe(duplex=False)
            ours.append(own)
            arguments = (function, pieces[n::count], theirs, list(ours))
            others.append(context.Process(target=_work, args=arguments, daemon=True))
            others[-1].start()
            theirs.close()
        for n in range(len(pieces)):
            found, problem = _received(ours[n % count])
            if problem is not None:
                raise problem
            yield found
    finally:
        for pipe, other in zip(ours, others, strict=False):
            pipe.close()
            other.terminate()
            other.join()


def _received(pipe: Connection) -> tuple[Any, Exception | None]:
    try:
        found, problem = pipe.recv()
    except EOFError:
        raise RuntimeError(
            "a process that was forked ended as if it had been killed (is there enough memory?)"
        ) from None
    return found, problem


def _work(
    function: Callable[[T], R], pieces: Sequence[T], pipe: Connection, others: list[Connection]
) -> None:
    """Sends what the function makes of each piece; ends where nobody listens any more."""
    for number in (signal.SIGINT, signal.SIGUSR1):  # the process that forked this one hears it
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:  # an open end here would keep others from hearing that nobody listens
        other.close()
    with suppress(OSError), pipe:
        for piece in pieces:
            try:
                answer: tuple[R | None, Exception | None] = function(piece), None
            except Exception as error:
                answer = None, error
            pipe.send(answer)
