"""Where a record lies."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from omnitune.containers.base import Container


class DataFile(NamedTuple):
    """A file of a source."""

    path: Path
    container: Container

    @property
    def parts(self) -> list[Path]:
        """All files that its records are read from."""
        return list(self.container.parts(self.path))


class Place(NamedTuple):
    """Where a record lies: its number in the source, its file, its number and place in that."""

    number: int
    file: Path
    within: int
    start: int
    length: int
