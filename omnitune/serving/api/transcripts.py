"""Transcripts of sounds that are uploaded."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from omnitune.media.registry import MEDIA
from omnitune.sample import UserError
from omnitune.serving.api.chat import HUNG_UP, Note, finished
from omnitune.serving.api.errors import error_body
from omnitune.serving.api.events import EventStream
from omnitune.serving.api.responses import (
    DurationUsage,
    Transcript,
    TranscriptUsage,
    VerboseTranscript,
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
TIMED = ("verbose_json", "srt", "vtt")
DURATION = "duration"  # as the header of a sound tells it, in seconds
_VTT = "text/vtt; charset=utf-8"


@dataclass(frozen=True)
class Wish:
    """How a transcript is wanted.

    Attributes:
        form: of the answer. temperature: as of a chat. stream: in pieces.
        language: of the sound, as the client says; it changes nothing.
        granularities: whose times are asked for.
    """

    form: Format = "json"
    temperature: float = 0.0
    stream: bool = False
    language: str = ""
    granularities: Sequence[str] = ()


async def transcribe(
    served: Served, request: Request, content: bytes, name: str, wish: Wish, note: Note
) -> Response:
    """Writes down what is said in a file.

    Args:
        name: of the file, for errors.
    """
    if "word" in wish.granularities and wish.form == "verbose_json":
        raise UserError(
            "timestamp_granularities: this model does not tell when a word is said; leave it out"
        )
    if not content:
        raise UserError(f"file: {name} is empty")
    kind = min(task_of_model(TRANSCRIPTION, served.model.media).media or ())
    medium = GivenMedium(kind, content, name)
    turn = Turn("user", served.model.transcription_prompt, (medium,))
    item = await run_in_threadpool(lambda: served.prompt([turn]))
    jobs = served.jobs(item, Sampling(MAX_NEW_TOKENS, wish.temperature), streams=wish.stream)
    timed = wish.form in TIMED and not wish.stream
    seconds = await run_in_threadpool(_seconds, medium) if timed else 0.0
    served.engine.submit(jobs)
    if wish.stream:
        return EventStream(_events(served, jobs[0], note))
    if not await finished(served, request, jobs):
        return Response(status_code=HUNG_UP)
    note(served.name, jobs)
    return _written(jobs[0], wish, seconds)


def _written(job: Job, wish: Wish, seconds: float) -> Response:
    """A transcript as it is wanted; one with times has one piece, which is the whole sound."""
    text = job.text
    if wish.form == "text":
        return PlainTextResponse(text + "\n")
    if wish.form == "srt":
        return PlainTextResponse(f"1\n{_clock(0, ',')} --> {_clock(seconds, ',')}\n{text}\n\n")
    if wish.form == "vtt":
        cue = f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(seconds, '.')}\n{text}\n\n"
        return Response(cue, media_type=_VTT)
    if wish.form == "verbose_json":
        usage = DurationUsage(seconds=seconds)
        told = VerboseTranscript(text=text, language=wish.language, duration=seconds, usage=usage)
        return JSONResponse(told.model_dump())
    return JSONResponse(Transcript(text=text, usage=_usage(job)).model_dump())


def _clock(seconds: float, point: str) -> str:
    """Such as 00:01:02,500."""
    rest = round(seconds * 1000)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _seconds(medium: GivenMedium) -> float:
    with tempfile.TemporaryDirectory(prefix="omnitune-") as folder:
        path = Path(folder) / "medium"
        path.write_bytes(medium.content)
        return MEDIA[medium.modality].header(path).get(DURATION, 0.0)


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
