"""Records whose fields the user names: ``columns`` of a source says what is what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitune.config.settings import quoted
from omnitune.containers.address import inside
from omnitune.data.sources.base import Dialect, Origin, Values

_BYTES = "bytes"  # of a column of Parquet that holds a medium


class ColumnsDialect(Dialect):
    """Flat records: each of our keys is one field of theirs."""

    name = "columns"
    title = "fields that the setting columns names"

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Never: the user says so."""
        return False

    def native(self, record: Values, origin: Origin) -> Values:
        """The fields that are named, under our keys; empty ones are left out."""
        found: Values = {}
        for key, column in origin.source.columns:
            if column not in record:
                there = ", ".join(map(str, record))
                raise origin.wrong(
                    f'has no field {quoted(column)}, which columns names for "{key}"; its fields '
                    f"are {there}"
                )
            if record[column] not in (None, "", []):
                found[key] = stored(record[column], column)
        return found


def stored(value: Any, *keys: str) -> Any:
    """A value as a record of ours has it: what holds a medium's bytes becomes its address."""
    if isinstance(value, dict) and _BYTES in value:
        return inside([*keys, _BYTES]) if value[_BYTES] is not None else value.get("path")
    if isinstance(value, list):
        return [stored(item, *keys, str(n)) for n, item in enumerate(value)]
    return value
