"""Batch files of OpenAI's API: a request a line in, an answer a line out, in the API's own form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from omnitune.containers.base import Unreadable
from omnitune.containers.registry import container_of
from omnitune.data.template import ChatRenderer
from omnitune.sample import UserError
from omnitune.serving.answer_file import Key, LineForm
from omnitune.serving.api.requests import ChatRequest, decoded, said_wrong, turns_of
from omnitune.serving.api.responses import completion_of
from omnitune.serving.prompts import Turn
from omnitune.serving.scheduler import Job

ID, BODY, URL = "custom_id", "body", "url"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class BatchRequest:
    """A line of a batch file.

    Attributes:
        path: of the file. number: of the record, from 0.
        values: of the line; empty where it is none. error: what is wrong with it then.
        content: hash of the line.
    """

    path: Path
    number: int
    values: Mapping[str, Any]
    content: str
    error: str = ""

    @property
    def place(self) -> str:
        """To be told."""
        return f"{self.path}: record {self.number + 1}"

    def chat(self) -> ChatRequest:
        """What is asked; raises a UserError if that is no chat that can be answered."""
        if self.error:
            raise UserError(self.error)
        if (url := self.values.get(URL, CHAT)) != CHAT:
            raise UserError(f'{self.place}: "{URL}" is {url!r}; only {CHAT} is answered')
        try:
            return ChatRequest.model_validate(self.values.get(BODY))
        except ValidationError as error:
            message, _ = said_wrong(error.errors())
            raise UserError(f"{self.place}: {message}") from None

    def turns(self, body: ChatRequest) -> list[Turn]:
        """The turns that a request means; raises UserError."""
        return turns_of(body.messages, self._read)

    def _read(self, text: str, place: str) -> bytes | Path:
        """What a medium's text stands for: data, or a file beside this one."""
        with suppress(OSError, ValueError):  # no path can be this
            address = urlsplit(text)
            path = self.path.parent / unquote(address.path)
            if address.scheme in ("", "file") and path.is_file():
                return path
        return decoded(text, place)

    def answered(self, renderer: ChatRenderer, model: str, jobs: Sequence[Job]) -> dict[str, Any]:
        """The line of an answer."""
        body = completion_of(renderer, model, jobs).model_dump()
        return self._line({"status_code": 200, "request_id": self.content, "body": body}, None)

    def failed(self, why: str) -> dict[str, Any]:
        """The line of a request that cannot be answered."""
        return self._line(None, {"code": "invalid_request_error", "message": why})

    def _line(self, response: Any, error: Any) -> dict[str, Any]:
        return BatchLines().about(self) | {"response": response, "error": error}


class BatchLines(LineForm[BatchRequest]):
    """The form of the lines that the batch API writes."""

    def about(self, one: BatchRequest) -> dict[str, Any]:
        """A name of the line, and what its asker calls it."""
        name = json.dumps([one.number, one.values.get(ID)])
        return {"id": f"batch_req_{_hash(name.encode())}", ID: one.values.get(ID)}

    def key(self, line: dict[str, Any]) -> Key:
        """The line's name."""
        return (line["id"],)

    def question(self, one: BatchRequest) -> str:
        """A hash of the request."""
        return one.content

    def answered(self, line: dict[str, Any]) -> str | None:
        """The same, where the request was answered."""
        return str(line["response"]["request_id"]) if line.get("response") else None

    def place(self, one: BatchRequest) -> tuple[str, int]:
        """Of the record."""
        return str(one.path), one.number


def is_batch(path: Path) -> bool:
    """Whether the first record of a file is a request of a batch."""
    if not path.is_file():
        return False
    try:
        values = next(iter(container_of(path).scan_stretch(path, lenient=True)))[2]
    except (OSError, UserError, StopIteration):
        return False
    return isinstance(values, dict) and ID in values and isinstance(values.get(BODY), dict)


def requests_in(path: Path) -> Iterator[BatchRequest]:
    """The requests of a batch file, those that are wrong among them.

    Raises:
        UserError: the file cannot be read.
    """
    seen: dict[str, int] = {}
    found = container_of(path).scan_stretch(path, lenient=True)
    for number, (_, _, values, content) in enumerate(found):
        error, name = "", values.get(ID) if isinstance(values, dict) else None
        where = f"{path}: record {number + 1}"
        if isinstance(values, Unreadable):
            error = str(values.error)
        elif not isinstance(values, dict):
            error = f"{where}: is no request; expected an object with {ID!r} and {BODY!r}"
        elif not isinstance(name, str) or not name:
            error = f"{where}: {ID!r} is {name!r}, expected a text of its own for each request"
        elif name in seen:
            error = f"{where}: {ID!r} is {name!r}, as in record {seen[name]}; each needs its own"
        else:
            seen[name] = number + 1
        known = values if isinstance(values, dict) else {}
        yield BatchRequest(path, number, known, f"req_{_hash(content)}", error)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]
