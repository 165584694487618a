"""The package's own records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import nearest
from omnitune.data.fields import ANSWER_KEYS, FREE_KEYS, record_keys
from omnitune.data.sources.base import Dialect, Origin, Values
from omnitune.data.sources.row_media import FILES, IDS
from omnitune.data.splits import SLIP
from omnitune.media.registry import MEDIA
from omnitune.sources import Source

FORMS = ("messages", "qa", "answer")


class NativeDialect(Dialect):
    """Records in our own keys: nothing is changed, and nothing unknown is passed over."""

    name = "native"
    title = "omnitune's own records"

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have one of our forms, and our keys or what looks like a slip of them."""
        return all(map(is_ours, records))

    def native(self, record: Values, origin: Origin) -> Values:
        """The record itself."""
        return record

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """The record itself."""
        return dict(record)


def is_ours(record: Values) -> bool:
    """Whether a record is meant as one of ours, slips included."""
    known = record_keys(Source(""))
    if not any(form in record for form in FORMS):
        return False
    keys = all(key in known or key in FREE_KEYS or _is_slip(key, known, record) for key in record)
    return keys and _our_media(record) and _our_messages(record.get("messages", []))


def _is_slip(key: str, known: tuple[str, ...], record: Values) -> bool:
    """Whether a key is meant as one of ours, and is not what another format calls its own."""
    if key.startswith("_"):
        return True
    others = [alias for medium in MEDIA.values() for alias in (f"{medium.name}s", *medium.aliases)]
    others += [*FILES, *IDS]
    meant = nearest(key, known, SLIP)
    return bool(meant) and meant not in record and key not in others


def _our_media(record: Values) -> bool:
    """Whether media are paths: not bytes, nor data URIs."""
    given = [record[name] for name in MEDIA if name in record]
    items = [item for value in given for item in (value if isinstance(value, list) else [value])]
    return not any(
        isinstance(item, dict) or (isinstance(item, str) and item.startswith("data:"))
        for item in items
    )


def _our_messages(messages: Any) -> bool:
    if not isinstance(messages, list):
        return True  # its error says what messages are
    for message in messages:
        if not isinstance(message, dict) or not set(message) <= {*ANSWER_KEYS}:
            return False
        parts = message.get("content")
        if message.get("role") in ("developer", "tool") or _names_speech(parts):
            return False
        if isinstance(parts, list) and not all(map(_our_part, parts)):
            return False
    return True


def _names_speech(text: Any) -> bool:
    """Whether a text names a sound in FunASR's way."""
    return isinstance(text, str) and "<|startofspeech|>" in text


def _our_part(part: Any) -> bool:
    if not isinstance(part, dict):
        return True
    kind = part.get("type")
    if kind == "text":
        return set(part) == {"type", "text"}
    return isinstance(kind, str) and kind in MEDIA and "path" in part and kind not in part
