"""Conversations: answers as a whole, or as a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from omnitune.serving.api.errors import error_body
from omnitune.serving.api.events import EventStream, disconnected
from omnitune.serving.api.requests import ChatRequest, turns_of
from omnitune.serving.api.responses import completion_of, logprobs_of, new_id, now, usage_of
from omnitune.serving.engine import Change
from omnitune.serving.scheduler import Job
from omnitune.serving.served import Served

DONE = "[DONE]"
HUNG_UP = 499  # nobody reads it; for the metrics

Note = Callable[[str, Sequence[Job]], None]


async def answer(served: Served, request: Request, body: ChatRequest, note: Note) -> Response:
    """Answers a conversation.

    Args:
        note: told of the answers when they are written.
    """
    item = await run_in_threadpool(lambda: served.prompt(turns_of(body.messages)))
    jobs = served.jobs(item, body.sampling(), body.n or 1, body.stops, bool(body.stream))
    served.engine.submit(jobs)
    if body.stream:
        return EventStream(_events(served, body, jobs, note))
    if not await finished(served, request, jobs):
        return Response(status_code=HUNG_UP)
    note(served.name, jobs)
    answered = completion_of(served.model.renderer, served.name, jobs)
    return JSONResponse(answered.model_dump())


async def finished(served: Served, request: Request, jobs: Sequence[Job]) -> bool:
    """Waits for submitted answers; false where the client hangs up, which frees their places.

    Raises:
        Exception: what went wrong with one of them.
    """
    waiting = asyncio.ensure_future(_collect(served, jobs))
    leaving = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            return False
        await waiting
    finally:
        leaving.cancel()
        waiting.cancel()
    for job in jobs:
        if job.error is not None:
            raise job.error
    return True


async def _collect(served: Served, jobs: Sequence[Job]) -> None:
    async for _ in served.engine.answers(jobs):
        pass


async def _events(
    served: Served,
    body: ChatRequest,
    jobs: Sequence[Job],
    note: Note,
) -> AsyncIterator[Any]:
    """The chunks of a stream."""
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    shared = {
        "id": new_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": now(),
        "model": served.name,
        **({"usage": None} if with_usage else {}),
    }
    async with aclosing(served.engine.answers(jobs)) as changes:  # type: ignore[type-var]
        for index in range(len(jobs)):
            yield shared | {"choices": [_part(index, {"role": "assistant", "content": ""})]}
        told = dict.fromkeys(jobs, 0)
        async for change in changes:
            if change.job.error is not None:
                yield error_body(change.job.error)[1]
                return
            for choice in _choices(served, jobs, change, told):
                yield shared | {"choices": [choice]}
    note(served.name, jobs)
    if with_usage:
        yield shared | {"choices": [], "usage": usage_of(jobs).model_dump()}
    yield DONE


def _choices(
    served: Served, jobs: Sequence[Job], change: Change, told: dict[Job, int]
) -> list[dict[str, Any]]:
    """What a change is told as: its text, then the end."""
    job, index = change.job, jobs.index(change.job)
    parts = []
    since, told[job] = told[job], change.spelled
    if change.piece or change.spelled > since:
        logprobs = None
        if job.sampling.top_logprobs is not None:
            found = logprobs_of(served.model.renderer, job, since, change.spelled)
            logprobs = found.model_dump()
        parts.append(_part(index, {"content": change.piece}, logprobs))
    if change.done:
        parts.append(_part(index, {}, None, job.finish))
    return parts


def _part(index: int, delta: Any, logprobs: Any = None, finish: str | None = None) -> Any:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
