"""Parquet: tables by columns, in groups of rows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnitune.containers.arrow_rows import plain_rows, reading, row_of, stored_in
from omnitune.containers.base import WHOLE_FILE, RowContainer, Stretch, to_json
from omnitune.containers.kept import Kept
from omnitune.containers.needs import optional
from omnitune.containers.parquet_bytes import first_leaves, marked_batches
from omnitune.containers.row_store import RowStore, can_keep

LIMIT = 256 << 20  # bytes of decoded columns that are kept in memory
AT_ONCE = 8 << 20  # bytes of a column that are decoded at once, on their way to the disk
PIECE = 1 << 20  # bytes of a file that are read at once then


class ParquetContainer(RowContainer):
    """Rows of a table; bytes are marked by true and read when they are asked for.

    A column of bytes alone becomes ``{"bytes": true}``, as in a structure with ``bytes`` and
    ``path``. A place is a row group and a row in it. A group is decoded once: in random order each
    row would cost a group.
    """

    name = "parquet"
    suffixes = (".parquet", ".pq")
    has_columns = True

    def __init__(self) -> None:
        self._columns, self._rows_kept = Kept(LIMIT), RowStore()

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
        column, *inner = keys
        row = self._kept_row(path, start, length, column)
        if row is not None:
            return stored_in(row, column, 0, inner)
        return stored_in(self._table(path, start, column), column, length, inner)

    def read_up_to(self, start: int, length: int) -> int:
        """Nothing is known."""
        return 0

    def _kept_row(self, path: Path, group: int, number: int, column: str) -> Any:
        """One row of a column as a batch of one row; None where it cannot be kept."""
        says = json.dumps(["parquet", os.path.abspath(path), *_version(path), group, column])
        name = hashlib.sha256(says.encode()).hexdigest()[:32]
        found = self._rows_kept.kept(name, number)
        if found is not None:
            return found
        with reading(path, "a Parquet"), _opened(path, streamed=True) as file:
            size = _size_of(file, group, column)
            rows = file.metadata.row_group(group).num_rows
            if not 0 <= number < rows:
                raise LookupError(number)
            if not can_keep(file.schema_arrow.field(column).type):
                return None
            step = max(1, min(rows, AT_ONCE * rows // max(1, size)))

            def batches() -> Iterator[Any]:
                # Threads would decode columns side by side; there is one.
                return file.iter_batches(step, [group], [column], use_threads=False)

            return self._rows_kept.made(name, number, rows, size, batches)

    def _table(self, path: Path, group: int, column: str | None) -> Any:
        """One column of a row group; without a name, all columns with bytes marked."""

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

        return self._columns.get((path, *_version(path), group, column), read)


def _version(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _size_of(file: Any, group: int, column: str) -> int:
    """Bytes that a column takes in a row group when it is unpacked; raises LookupError."""
    if not 0 <= group < file.num_row_groups or column not in file.schema_arrow.names:
        raise LookupError(group, column)
    about, first = file.metadata.row_group(group), file.schema_arrow.names.index(column)
    leaves = [*first_leaves(file.schema_arrow), about.num_columns]
    return sum(
        about.column(leaf).total_uncompressed_size
        for leaf in range(leaves[first], leaves[first + 1])
    )


@contextmanager
def _opened(path: Path, streamed: bool = False) -> Iterator[Any]:
    """A ``ParquetFile``.

    Args:
        streamed: read a column piece by piece, so that memory does not hold all of it.
    """
    pq = optional("pyarrow.parquet", f"{path}: is a Parquet file")
    how = {"pre_buffer": False, "buffer_size": PIECE} if streamed else {}
    with path.open("rb") as file:
        yield pq.ParquetFile(file, **how)
