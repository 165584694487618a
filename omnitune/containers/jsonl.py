"""JSON Lines: each line of the file is one record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnitune.config.settings import object_of_pairs
from omnitune.containers.base import (
    BLANK,
    WHOLE_FILE,
    Container,
    Stretch,
    Unreadable,
    lines_of,
    without_lead,
)
from omnitune.sample import UserError

_DECODER = json.JSONDecoder(object_pairs_hook=object_of_pairs)


class JsonLinesContainer(Container):
    """Records as JSON objects, one on each line; blank lines are skipped."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")

    def recognises(self, head: bytes) -> bool:
        """Whether the first line is a whole object, and another one begins on the next line."""
        first, _, rest = without_lead(head).partition(b"\n")
        if not first.startswith(b"{") or not rest.lstrip(BLANK).startswith(b"{"):
            return False
        try:
            return isinstance(json.loads(first), dict)
        except (ValueError, RecursionError):
            return False

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields first byte, number of bytes and value of each line that is not blank."""
        for number, start, content in lines_of(path):
            yield start, len(content), _decode(path, number, content)

    def scan_contents(self, path: Path) -> Iterator[tuple[int, int, Any, bytes]]:
        """:meth:`scan` with each line."""
        return self.scan_stretch(path)

    def stretches(self, path: Path, size: int) -> list[Stretch]:
        """Whole lines, found by a look at each."""
        found: list[Stretch] = []
        records = 0
        for records, (number, start, _) in enumerate(lines_of(path), 1):
            if not found or start - found[-1].start >= size:
                found.append(Stretch(start, 0, records - 1, number - 1))
        ends = [stretch.start for stretch in found[1:]] + [path.stat().st_size]
        return [s._replace(stop=end) for s, end in zip(found, ends, strict=bool(found))]

    def scan_stretch(
        self, path: Path, stretch: Stretch = WHOLE_FILE, lenient: bool = False
    ) -> Iterator[tuple[int, int, Any, bytes]]:
        """The lines of a part; one that is no JSON costs no other."""
        for number, start, content in lines_of(path, stretch):
            try:
                value = _decode(path, number, content)
            except UserError as error:
                if not lenient:
                    raise
                value = Unreadable(error)
            yield start, len(content), value, content


def _decode(path: Path, line: int, content: bytes) -> Any:
    try:
        return _DECODER.decode(content.decode())
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text, {error.reason}; save it as UTF-8"
    except json.JSONDecodeError as error:
        what = error.msg
    except (RecursionError, ValueError) as error:  # too deep, or a number too long
        what = str(error)
    raise UserError(f"{path}: not valid JSON ({what}: line {line}); expected one record a line")
