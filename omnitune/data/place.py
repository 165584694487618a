"""Where a record lies."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from omnitune.containers.base import Container


class DataFile(NamedTuple):
    """A file of a source."""

    path: Path
    container: Container


class Place(NamedTuple):
    """Where a record lies: its number in the source, its file, its number and place in that."""

    number: int
    file: Path
    within: int
    start: int
    length: int
