"""Which formats of data files there are, by name."""

from __future__ import annotations

from pathlib import Path

from omnitune.data.sources.base import Format
from omnitune.data.sources.jsonl import JsonLinesFormat
from omnitune.data.sources.native import NativeFormat
from omnitune.sample import UserError

FORMATS: dict[str, Format] = {format.name: format for format in (NativeFormat(), JsonLinesFormat())}
HEAD = 1 << 16  # bytes that a format is recognised by


def format_of(path: Path) -> Format:
    """The format of a file: as its content shows, else as its name says.

    Raises:
        OSError: the file cannot be read.
        UserError: no format takes it.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    for format in FORMATS.values():
        if format.recognises(head):
            return format
    for format in FORMATS.values():
        if path.suffix.lower() in format.suffixes:
            return format
    raise UserError(f"{path}: is in none of the known formats ({', '.join(FORMATS)})")


def suffixes() -> list[str]:
    """Those of all formats' files."""
    return [suffix for format in FORMATS.values() for suffix in format.suffixes]
