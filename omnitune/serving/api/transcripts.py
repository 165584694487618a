"""Transcripts of sounds that are uploaded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from omnitune.sample import UserError
from omnitune.serving.api.chat import HUNG_UP, Note, finished
from omnitune.serving.api.errors import error_body
from omnitune.serving.api.responses import (
    EventStream,
    Transcript,
    TranscriptUsage,
    usage_of,
)
from omnitune.serving.decoding import Sampling
from omnitune.serving.encoded_media import GivenMedium
from omnitune.serving.options import MAX_NEW_TOKENS
from omnitune.serving.prompts import Turn
from omnitune.serving.python import TRANSCRIPTION, task_of_model
from omnitune.serving.scheduler import Job
from omnitune.serving.served import Served

Format = Literal["json", "text", "verbose_json", "srt", "vtt"]
WRITTEN = ("json", "text")


async def transcribe(
    served: Served,
    request: Request,
    content: bytes,
    name: str,
    form: Format,
    temperature: float,
    stream: bool,
    note: Note,
) -> Response:
    """Writes down what is said in a file.

    Args:
        name: of the file, for errors.
    """
    if form not in WRITTEN:
        raise UserError(
            f"response_format: {form} has times, which this model does not tell; take "
            f"{' or '.join(WRITTEN)}"
        )
    if not content:
        raise UserError(f"file: {name} is empty")
    kind = min(task_of_model(TRANSCRIPTION, served.model.media).media or ())
    medium = GivenMedium(kind, content, name)
    turn = Turn("user", served.model.transcription_prompt, (medium,))
    item = await run_in_threadpool(lambda: served.prompt([turn]))
    jobs = served.jobs(item, Sampling(MAX_NEW_TOKENS, temperature), streams=stream)
    served.engine.submit(jobs)
    if stream:
        return EventStream(_events(served, jobs[0], note))
    if not await finished(served, request, jobs):
        return Response(status_code=HUNG_UP)
    note(served.name, jobs)
    if form == "text":
        return PlainTextResponse(jobs[0].text + "\n")
    return JSONResponse(Transcript(text=jobs[0].text, usage=_usage(jobs[0])).model_dump())


def _usage(job: Job) -> TranscriptUsage:
    usage = usage_of([job])
    return TranscriptUsage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )


async def _events(served: Served, job: Job, note: Note) -> AsyncIterator[Any]:
    async with aclosing(served.engine.answers([job])) as changes:  # type: ignore[type-var]
        async for change in changes:
            if job.error is not None:
                yield error_body(job.error)[1]
                return
            if change.piece:
                yield {"type": "transcript.text.delta", "delta": change.piece}
    note(served.name, [job])
    yield {"type": "transcript.text.done", "text": job.text, "usage": _usage(job).model_dump()}
