"""What the server answers, in the form of OpenAI's API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from omnitune.data.template import ChatRenderer
from omnitune.serving.scheduler import Job
from omnitune.serving.spelling import bytes_of


class Usage(BaseModel):
    """Tokens of a request, media included, and of its answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TokenChance(BaseModel):
    """A token with its logarithmic probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TokenChance):
    """A token of the answer with its likely rivals."""

    top_logprobs: list[TokenChance]


class Logprobs(BaseModel):
    """Of each token of an answer."""

    content: list[TokenLogprob]


class AnswerMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """Body of the answer of ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served, with the kinds of media that it reads."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "omnitune"
    media: list[str]
    context: int


class ModelList(BaseModel):
    """All models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class TranscriptUsage(BaseModel):
    """Tokens of a sound and of its transcript."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Transcript(BaseModel):
    """Body of the answer of ``/v1/audio/transcriptions``."""

    text: str
    usage: TranscriptUsage


class DurationUsage(BaseModel):
    """Length of a sound."""

    type: Literal["duration"] = "duration"
    seconds: float


class VerboseTranscript(BaseModel):
    """The same as ``verbose_json``: with the sound's length, and no times within it."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    usage: DurationUsage


class ErrorObject(BaseModel):
    """What went wrong, as a sentence that says what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Body of every answer to a request that failed."""

    error: ErrorObject


def new_id(kind: str) -> str:
    """A name for an answer."""
    return f"{kind}-{uuid.uuid4().hex[:24]}"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def usage_of(jobs: Sequence[Job]) -> Usage:
    """Tokens of some answers to one prompt."""
    prompt = len(jobs[0].item.rendered.tokens)
    answers = sum(len(job.told) for job in jobs)
    return Usage(prompt_tokens=prompt, completion_tokens=answers, total_tokens=prompt + answers)


def completion_of(renderer: ChatRenderer, name: str, jobs: Sequence[Job]) -> ChatCompletion:
    """Answers to one prompt that are complete.

    Args:
        renderer: of the model. name: by which clients know it.
    """
    return ChatCompletion(
        id=new_id("chatcmpl"),
        created=now(),
        model=name,
        choices=[_choice(renderer, n, job) for n, job in enumerate(jobs)],
        usage=usage_of(jobs),
    )


def _choice(renderer: ChatRenderer, index: int, job: Job) -> Choice:
    asked = job.sampling.top_logprobs is not None
    return Choice(
        index=index,
        message=AnswerMessage(content=job.text),
        logprobs=logprobs_of(renderer, job) if asked else None,
        finish_reason=job.finish,
    )


def logprobs_of(
    renderer: ChatRenderer, job: Job, first: int = 0, end: int | None = None
) -> Logprobs:
    """Of the tokens of an answer from one to another; together they are its text."""
    spelled = job.wording.spelling.parts if job.wording.spelling else []
    is_start = not any(part.text for part in spelled[:first])
    content = []
    for one, (text, own) in zip(job.told[first:end], spelled[first:end], strict=False):
        others = [
            _chance(text, own, value)
            if token == one.token
            else _chance(*_rival(renderer, token, is_start), value)
            for token, value in one.others
        ]
        chosen = _chance(text, own, one.logprob).model_dump()
        content.append(TokenLogprob(**chosen, top_logprobs=others))
        is_start = is_start and not text
    return Logprobs(content=content)


def _rival(renderer: ChatRenderer, token: int, is_start: bool) -> tuple[str, bytes | None]:
    """A token that was not taken; at the start of an answer its blank would be dropped, too."""
    text = renderer.tokenizer.decode([token], skip_special_tokens=False)
    content = bytes_of(renderer.tokenizer, token)
    return (text.lstrip(), content and content.lstrip()) if is_start else (text, content)


def _chance(text: str, content: bytes | None, logprob: float) -> TokenChance:
    told = None if content is None else list(content)
    return TokenChance(token=text, logprob=max(logprob, -9999.0), bytes=told)
