"""Parquet: tables by columns, in groups of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnitune.containers.arrow_rows import plain_rows, reading, row_of, stored_in
from omnitune.containers.base import WHOLE_FILE, RowContainer, Stretch, to_json
from omnitune.containers.kept import Kept
from omnitune.containers.needs import optional
from omnitune.containers.parquet_bytes import marked_batches

LIMIT = 256 << 20  # bytes of decoded columns that are kept


class ParquetContainer(RowContainer):
    """Rows of a table; bytes are marked by true and read when they are asked for.

    A column of bytes alone becomes ``{"bytes": true}``, as in a structure with ``bytes`` and
    ``path``. A place is a row group and a row in it.
    """

    name = "parquet"
    suffixes = (".parquet", ".pq")
    has_columns = True

    def __init__(self) -> None:
        self._columns = Kept(LIMIT)

    def recognises(self, head: bytes) -> bool:
        """Whether it begins as such a file does."""
        return head.startswith(b"PAR1")

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields row group, row and value of each row."""
        return self._rows(path, 0, None)

    def stretches(self, path: Path, size: int) -> list[Stretch]:
        """Row groups, as many as have about so many bytes before they are compressed."""
        found, held, rows = [Stretch()], 0, 0
        with reading(path, "a Parquet"), _opened(path) as file:
            groups = file.num_row_groups
            for group in range(groups):
                if held >= size:
                    found.append(Stretch(group, 0, rows))
                    held = 0
                held += file.metadata.row_group(group).total_byte_size
                rows += file.metadata.row_group(group).num_rows
        ends = [stretch.start for stretch in found[1:]] + [groups]
        return [s._replace(stop=end) for s, end in zip(found, ends, strict=True)]

    def scan_stretch(
        self, path: Path, stretch: Stretch = WHOLE_FILE, lenient: bool = False
    ) -> Iterator[tuple[int, int, Any, bytes]]:
        """The rows of some row groups."""
        for group, row, value in self._rows(path, stretch.start, stretch.stop or None):
            yield group, row, value, to_json(value)

    def _rows(self, path: Path, first: int, stop: int | None) -> Iterator[tuple[int, int, Any]]:
        with reading(path, "a Parquet"), _opened(path) as file:
            for group in range(first, file.num_row_groups if stop is None else stop):
                row = 0
                for batch in marked_batches(file, group):
                    for value in plain_rows(batch):
                        yield group, row, value
                        row += 1

    def row(self, path: Path, start: int, length: int) -> Any:
        """The row at a place."""
        return row_of(self._table(path, start, None), length)

    def stored(self, path: Path, start: int, length: int, keys: list[str]) -> Any:
        """What a row holds under keys, bytes too."""
        return stored_in(self._table(path, start, keys[0]), keys[0], length, keys[1:])

    def read_up_to(self, start: int, length: int) -> int:
        """Nothing is known."""
        return 0

    def _table(self, path: Path, group: int, column: str | None) -> Any:
        """One column of a row group; without a name, all columns with bytes marked."""
        stat = path.stat()
        version = (path, stat.st_size, stat.st_mtime_ns)

        def read() -> tuple[Any, int]:
            pa = optional("pyarrow", f"{path}: is a Parquet file")
            with reading(path, "a Parquet"), _opened(path) as file:
                if not 0 <= group < file.num_row_groups:
                    raise LookupError(group)
                if column is None:
                    table = pa.Table.from_batches(marked_batches(file, group))
                elif column in file.schema_arrow.names:
                    table = file.read_row_group(group, columns=[column])
                else:
                    raise LookupError(column)
            return table, table.nbytes

        return self._columns.get((*version, group, column), read)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pq = optional("pyarrow.parquet", f"{path}: is a Parquet file")
    with path.open("rb") as file:
        yield pq.ParquetFile(file)
