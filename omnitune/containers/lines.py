"""Text files: each line is one record, whatever it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnitune.containers.base import Container, lines_of
from omnitune.sample import UserError

LINE = "line"  # key of a record


class LinesContainer(Container):
    """Records ``{"line": TEXT}``, one for each line that is not blank.

    Any text is made of lines. So a file is one of these only if its name says so, or its layout.
    """

    name = "lines"
    suffixes = (".trans.txt",)

    def recognises(self, head: bytes) -> bool:
        """Never: the name tells."""
        return False

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields first byte, number of bytes and value of each line."""
        for number, start, content in lines_of(path):
            try:
                value = self.value(content)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: line {number} is not UTF-8 text ({error.reason}); save it as UTF-8"
                ) from None
            yield start, len(content), value

    def value(self, content: bytes) -> Any:
        """The line under its key."""
        return {LINE: content.decode()}
