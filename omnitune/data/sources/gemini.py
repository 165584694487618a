"""Gemini's records: ``contents`` of ``role`` and ``parts``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import as_found, quoted
from omnitune.data.sources.base import Origin, Values
from omnitune.data.sources.conversation import SYSTEM, Reader
from omnitune.data.sources.parts import ForeignDialect, first_filled, kept, one_of
from omnitune.media.registry import MEDIA

CONTENTS, PARTS = "contents", "parts"
SYSTEMS = ("systemInstruction", "system_instruction")
_DATA, _FILE = ("inlineData", "inline_data"), ("fileData", "file_data")
_TYPES, _ADDRESSES = ("mimeType", "mime_type"), ("fileUri", "file_uri")


class GeminiDialect(ForeignDialect):
    """Turns of parts: a text, data in base64, or the address of a file."""

    name = "gemini"
    title = "Gemini contents"
    reads = (CONTENTS, *SYSTEMS)

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have contents of parts."""
        return all(map(_has_contents, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """The conversation; the model is the assistant."""
        reader = Reader(record, origin)
        if key := first_filled(record, SYSTEMS):
            given = record[key]
            reader.add(
                SYSTEM, _parts(given, [key], origin) if isinstance(given, dict) else given, [key]
            )
        given = record.get(CONTENTS)
        if not isinstance(given, list):
            raise origin.wrong(f'"{CONTENTS}" is {as_found(given)}, expected a list')
        for n, turn in enumerate(given):
            keys = [CONTENTS, str(n)]
            if not isinstance(turn, dict):
                raise origin.wrong(f"{'.'.join(keys)} is {as_found(turn)}, expected an object")
            role = reader.role({"role": "user", **turn}, ".".join(keys))
            reader.add(role, _parts(turn, keys, origin), [*keys, PARTS])
        return {**kept(record), **reader.native()}


def _has_contents(record: Values) -> bool:
    turns = record.get(CONTENTS)
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and PARTS in first


def _parts(turn: Values, keys: list[str], origin: Origin) -> list[Values]:
    """Parts as typed ones; the keys of data stay, by which it is found in the record."""
    given = turn.get(PARTS)
    items = given if isinstance(given, list) else [given]
    return [_part(item, ".".join([*keys, PARTS, str(n)]), origin) for n, item in enumerate(items)]


def _part(part: Any, at: str, origin: Origin) -> Values:
    if not isinstance(part, dict):
        raise origin.wrong(f"{at} is {as_found(part)}, expected an object")
    if "text" in part:
        return {"type": "text", "text": part["text"]}
    key = first_filled(part, (*_DATA, *_FILE))
    held = part.get(key)
    if not isinstance(held, dict):
        raise origin.wrong(f'{at} has the keys {one_of(part)}, expected "text" or "{_DATA[0]}"')
    mime = held.get(first_filled(held, _TYPES))
    kind = mime.partition("/")[0] if isinstance(mime, str) else ""
    if kind not in MEDIA:
        raise origin.wrong(f"{at} is of the type {quoted(mime)}, expected one of {one_of(MEDIA)}")
    if key in _FILE:
        return {"type": kind, "path": held.get(first_filled(held, _ADDRESSES))}
    return {"type": kind, key: held}
