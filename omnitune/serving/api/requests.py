"""What clients ask, in the form of OpenAI's API, and the turns that it means."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from omnitune.media.base import Medium
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError, join_texts
from omnitune.serving.decoding import Sampling
from omnitune.serving.encoded_media import GivenMedium
from omnitune.serving.options import MAX_NEW_TOKENS
from omnitune.serving.prompts import Turn

_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_ROLES = {"developer": "system"}
LARGEST = 2**31 - 1
JSON_TYPE = "Content-Type: application/json"

# From a medium's text and its place in the request to its content: bytes, or a path.
ReadMedium = Callable[[str, str], bytes | Path]
Stop = Annotated[str, Field(max_length=200)]


class ContentPart(BaseModel):
    """A part of a message: ``text``, or a medium such as ``image_url`` or ``input_audio``.

    A medium stands under the key that its type names, as an object with a data URI under ``url``
    or base64 under ``data``.
    """

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """Body of ``POST /v1/chat/completions``; keys that are not listed change nothing."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=LARGEST)
    max_completion_tokens: int | None = Field(None, ge=1, le=LARGEST)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    functions: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None

    @field_validator("tool_choice")
    @classmethod
    def _no_tool(cls, value: Any) -> Any:
        if value not in (None, "none", "auto"):
            raise ValueError('no tools are called by this server; give "none" or leave it out')
        return value

    @field_validator("presence_penalty", "frequency_penalty", "logit_bias", "tools", "functions")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        """What would change the answer, and is not done, is refused and not passed over."""
        if value:
            raise ValueError("is not done by this server; leave it out")
        return value

    @field_validator("response_format")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if value and value.get("type") != "text":
            raise ValueError('only {"type": "text"} is given by this server; leave it out')
        return value

    @field_validator("modalities")
    @classmethod
    def _text_only(cls, value: Any) -> Any:
        if value and value != ["text"]:
            raise ValueError('answers are text; give ["text"] or leave it out')
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def stops(self) -> list[str]:
        """Texts that end an answer; an empty one is none."""
        stops = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        return [stop for stop in stops if stop]

    def sampling(self, longest: int = MAX_NEW_TOKENS) -> Sampling:
        """How answers are chosen; greedily unless a temperature is given.

        Args:
            longest: tokens of an answer where the request has no limit.
        """
        limits = [n for n in (self.max_tokens, self.max_completion_tokens) if n is not None]
        return Sampling(
            min(limits, default=longest),
            self.temperature or 0.0,
            1.0 if self.top_p is None else self.top_p,
            self.seed,
            (self.top_logprobs or 0) if self.logprobs else None,
        )


def turns_of(messages: Sequence[ChatMessage], read: ReadMedium | None = None) -> list[Turn]:
    """The turns that messages mean.

    Args:
        read: what a medium's text stands for; only ``decoded`` of it without.

    Raises:
        UserError: a part is no text and no medium, or names something that would have to be
            fetched or opened.
    """
    reads = read or decoded
    return [_turn(message, f"messages.{n}", reads) for n, message in enumerate(messages)]


def _turn(message: ChatMessage, where: str, read: ReadMedium) -> Turn:
    role = _ROLES.get(message.role, message.role)
    if not isinstance(message.content, list):
        return Turn(role, message.content or "")
    texts, media = [], []
    for n, part in enumerate(message.content):
        place = f"{where}.content.{n}"
        if part.type == "text":
            if part.text is None:
                raise UserError(f'{place}: a part of the type "text" needs the key "text"')
            texts.append(part.text)
        else:
            media.append(_medium(part, place, read))
    if media and role != "user":
        raise UserError(f"{where}: media stand in the user's messages, not in the {role}'s")
    return Turn(role, join_texts(texts), tuple(media))


def _medium(part: ContentPart, place: str, read: ReadMedium) -> GivenMedium:
    known: dict[str, Medium] = {name: m for m in MEDIA.values() for name in (*m.aliases, m.name)}
    if part.type not in known:
        raise UserError(
            f"{place}: there is no type {part.type!r}; there are text, image_url, input_audio"
        )
    value = (part.model_extra or {}).get(part.type)
    given = value.get("url", value.get("data")) if isinstance(value, dict) else value
    if not isinstance(given, str):
        raise UserError(
            f'{place}: "{part.type}" holds no data; expected an object with a data URI under '
            '"url" or base64 under "data"'
        )
    content = read(given, place)
    label = str(content) if isinstance(content, Path) else place
    return GivenMedium(known[part.type].name, content, label)


def decoded(text: str, place: str) -> bytes:
    """The bytes of a data URI, or of base64 alone.

    Raises:
        UserError: it is neither. Nothing is ever fetched or opened for a client.
    """
    found = _DATA_URI.match(text)
    bare = "".join(text[found.end() if found else 0 :].split())
    try:
        content = base64.b64decode(bare, validate=True)
    except (binascii.Error, ValueError) as error:
        if found:
            raise UserError(f"{place}: its base64 is damaged ({error}); send it again") from None
        raise UserError(
            f"{place}: {text[:60]!r} is neither a data URI nor base64, and this server fetches "
            "and opens nothing for a client; send the content as data:TYPE;base64,..."
        ) from None
    if not content:
        raise UserError(f"{place}: is empty; send data:TYPE;base64,...")
    return content


def said_wrong(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """The first thing that is wrong with a request, and where."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return "the body is no JSON that can be read; send one object in UTF-8", None
    if tuple(first["loc"]) == ("body",) and first["type"] != "value_error":
        return f"the body is no JSON object; send one, with the header {JSON_TYPE}", None
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    where = ".".join(place)
    message = str(first["msg"])
    reason = message.removeprefix("Value error, ")
    given = first.get("input")
    found = f" (found {given!r})"[:200] if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {reason}{found}" if where else reason, where or None
