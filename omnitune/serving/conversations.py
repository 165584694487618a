"""Conversations as files, in the form that the page's *Save* writes and its *Open* reads.

A turn is ``{"text", "media", "answers"}``. A medium is ``{"kind", "name", "type", "uri"}``, where
``uri`` holds its content (RFC 2397) and may be missing. An answer is ``{"model", "title", "text",
"tokens", "first", "seconds", "rate", "finish", "state"}``. Whatever else stands there is kept.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from omnitune.config.settings import read_json_object
from omnitune.sample import UserError
from omnitune.storage import replacing

FORMAT = "omnitune conversation 1"
Turn = dict[str, Any]


def medium_entry(kind: str, name: str, type_: str, content: bytes) -> dict[str, str]:
    """A medium as a turn holds it."""
    uri = f"data:{type_};base64,{base64.b64encode(content).decode()}"
    return {"kind": kind, "name": name, "type": type_, "uri": uri}


def content_of(medium: dict[str, str]) -> bytes:
    """The file that a turn's medium holds; raises ValueError if its URI is none."""
    head, comma, data = medium["uri"].partition(",")
    if not comma or not head.startswith("data:"):
        raise ValueError("no data URI")
    if not head.endswith(";base64"):
        return unquote_to_bytes(data)
    return base64.b64decode(data, validate=True)


def write_conversation(path: Path, turns: Sequence[Turn], system: str = "") -> None:
    """Writes a conversation.

    Raises:
        UserError: the file is there and holds anything else than a conversation, or it cannot be
            written.
    """
    if path.exists() and not _is_conversation(path):
        raise UserError(f"{path}: is there already and holds no conversation; give another name")
    saved = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = {"format": FORMAT, "saved": saved, "settings": {"system": system}, "turns": turns}
    if not path.parent.is_dir():  # rather a slip than a wish for a new one
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or name another")
    try:
        with replacing(path) as file:
            text = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
            file.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None


def read_conversation(path: Path) -> tuple[list[Turn], str]:
    """The turns of a file and its system text.

    Raises:
        UserError: it is no conversation, or one of its turns is damaged.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; expected a conversation that was saved")
    # JSON can escape halves of characters, which no tokenizer takes.
    text = json.dumps(read_json_object(path), ensure_ascii=False)
    values = json.loads(text.encode("utf-8", "replace"))
    turns = values.get("turns")
    if values.get("format") != FORMAT or not isinstance(turns, list):
        raise UserError(f"{path}: is no conversation that /save or the page's Save wrote")
    for number, turn in enumerate(turns, 1):
        if problem := _problem(turn):
            raise UserError(f"{path}: turn {number}: {problem}")
    settings = values.get("settings")
    system = settings.get("system") if isinstance(settings, dict) else ""
    return turns, system if isinstance(system, str) else ""


def answer_of(turn: Turn, model: str) -> str:
    """What a model answered in a turn, or else the first of those that did; "" for none."""
    answers = turn.get("answers") or []
    own = [one for one in answers if one.get("model") == model]
    texts = [one.get("text") for one in [*own, *answers]]
    return next((text for text in texts if isinstance(text, str) and text), "")


def _is_conversation(path: Path) -> bool:
    try:
        read_conversation(path)
    except UserError:
        return False
    return True


def _problem(turn: Any) -> str:
    """What is wrong with a turn; "" for nothing."""
    if not isinstance(turn, dict):
        return "is no object {...}"
    if not isinstance(turn.get("text", ""), str):
        return '"text" is no text'
    media, answers = turn.get("media") or [], turn.get("answers") or []
    for key, entries in (("media", media), ("answers", answers)):
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            return f'"{key}" is no list of objects'
    for medium in media:
        name = medium.get("name")
        if not all(isinstance(medium.get(key), str) for key in ("kind", "name")):
            return 'a medium lacks "kind" or "name"'
        if not isinstance(medium.get("uri", ""), str):
            return f'the "uri" of {name} is no text'
        try:
            if "uri" in medium:
                content_of(medium)
        except (ValueError, binascii.Error):
            return f'the "uri" of {name} holds no content (expected data:TYPE;base64,...)'
    return ""
