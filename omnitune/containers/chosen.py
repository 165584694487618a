"""A container of which some records are passed over, such as comments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omnitune.containers.base import WHOLE_FILE, Container, Stretch, Unreadable


class ChosenContainer(Container):
    """The records of another container that are meant.

    Args:
        inner: the container.
        passes_over: says of the value of a record whether it is none.
    """

    suffixes = ()

    def __init__(self, inner: Container, passes_over: Callable[[Any], bool]) -> None:
        self.inner, self.passes_over = inner, passes_over
        self.name = inner.name  # type: ignore[misc]
        self.has_columns = inner.has_columns  # type: ignore[misc]

    def recognises(self, head: bytes) -> bool:
        """As the other one."""
        return self.inner.recognises(head)

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields what the other one does, without what is passed over."""
        return (found for found in self.inner.scan(path) if not self.passes_over(found[2]))

    def scan_contents(self, path: Path) -> Iterator[tuple[int, int, Any, bytes]]:
        """:meth:`scan` with the :meth:`content` of each record."""
        found = self.inner.scan_contents(path)
        return (record for record in found if not self.passes_over(record[2]))

    def scan_stretch(
        self, path: Path, stretch: Stretch = WHOLE_FILE, lenient: bool = False
    ) -> Iterator[tuple[int, int, Any, bytes]]:
        """Of the whole file: how many records are passed over before a part, nobody knows."""
        for record in self.inner.scan_stretch(path, stretch, lenient):
            if isinstance(record[2], Unreadable) or not self.passes_over(record[2]):
                yield record

    def content(self, path: Path, start: int, length: int) -> bytes:
        """As the other one has it."""
        return self.inner.content(path, start, length)

    def parts(self, path: Path) -> list[Path]:
        """As the other one has it."""
        return self.inner.parts(path)

    def beside(self, path: Path) -> str:
        """As the other one has it."""
        return self.inner.beside(path)

    def read_up_to(self, start: int, length: int) -> int:
        """As the other one has it."""
        return self.inner.read_up_to(start, length)

    def value(self, content: bytes) -> Any:
        """As the other one has it."""
        return self.inner.value(content)

    def stored(self, path: Path, start: int, length: int, keys: list[str]) -> Any:
        """As the other one has it."""
        return self.inner.stored(path, start, length, keys)
