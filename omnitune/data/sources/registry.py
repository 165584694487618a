"""Which dialects there are, by name. The first that recognises a file's records reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omnitune.data.sources.base import Dialect, Values
from omnitune.data.sources.native import NativeDialect

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (NativeDialect(),)}


def dialect_of(records: Sequence[Values], file: Path) -> Dialect | None:
    """The dialect that the first records of a file are written in; None if it is none."""
    return next((d for d in DIALECTS.values() if d.recognises(records, file)), None)
