"""The package's own records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.data.fields import ANSWER_KEYS
from omnitune.data.sources.base import Dialect, Origin, Values

FORMS = ("messages", "qa", "answer")


class NativeDialect(Dialect):
    """Records in our own keys: nothing is changed, and nothing unknown is passed over."""

    name = "native"
    title = "omnitune's own records"

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Whether all have one of our forms, and messages have our keys."""
        return all(any(form in record for form in FORMS) and _ours(record) for record in records)

    def native(self, record: Values, origin: Origin) -> Values:
        """The record itself."""
        return record

    def foreign(self, record: Mapping[str, Any]) -> Values:
        """The record itself."""
        return dict(record)


def _ours(record: Values) -> bool:
    messages = record.get("messages", [])
    return isinstance(messages, list) and all(
        isinstance(message, dict) and set(message) <= {*ANSWER_KEYS} for message in messages
    )
