"""Arrow's own files and streams, as ``datasets`` keeps its tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnitune.containers.arrow_rows import plain_rows, reading, row_of, stored_in
from omnitune.containers.base import RowContainer
from omnitune.containers.kept import Kept
from omnitune.containers.needs import optional

BATCH = 1024  # rows that are made values at once
TABLES = 64  # files that stay mapped into memory
_FILE = b"ARROW1\0\0"
_STREAM = b"\xff\xff\xff\xff"  # and the length of the schema


class ArrowContainer(RowContainer):
    """Rows of a table that is mapped into memory; bytes are marked by true.

    A column of bytes alone becomes ``{"bytes": true}``, as in a structure with ``bytes`` and
    ``path``. A place is 0 and a row.
    """

    name = "arrow"
    suffixes = (".arrow", ".feather")
    has_columns = True

    def __init__(self) -> None:
        self._tables = Kept(TABLES)

    def recognises(self, head: bytes) -> bool:
        """Whether it begins as a file or a stream does."""
        length = int.from_bytes(head[4:8], "little")
        return head.startswith(_FILE) or (head.startswith(_STREAM) and 0 < length < 1 << 24)

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields 0, row and value of each row."""
        with reading(path, "an Arrow"):
            row = 0
            for batch in self._table(path).to_batches(max_chunksize=BATCH):
                for value in plain_rows(batch):
                    yield 0, row, value
                    row += 1

    def row(self, path: Path, start: int, length: int) -> Any:
        """The row at a place."""
        return row_of(self._table(path), length)

    def stored(self, path: Path, start: int, length: int, keys: list[str]) -> Any:
        """What a row holds under keys, bytes too."""
        return stored_in(self._table(path), keys[0], length, keys[1:])

    def read_up_to(self, start: int, length: int) -> int:
        """Nothing is known."""
        return 0

    def _table(self, path: Path) -> Any:
        stat = path.stat()

        def read() -> tuple[Any, int]:
            pa = optional("pyarrow", f"{path}: is an Arrow file")
            with path.open("rb") as file:
                is_file = file.read(len(_FILE)) == _FILE
            with reading(path, "an Arrow"):
                mapped = pa.memory_map(str(path))
                kind = pa.ipc.open_file if is_file else pa.ipc.open_stream
                return kind(mapped).read_all(), 1

        return self._tables.get((path, stat.st_size, stat.st_mtime_ns), read)
