"""Writes records into the containers that ``omnitune convert`` knows."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from omnitune.sample import UserError

BATCH = 1000  # records of Parquet that are written at once


class RecordWriter(ABC):
    """Writes records one by one.

    Args:
        file: to write to. path: its name in the end, for errors.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.count = file, path, 0

    def check(self, record: Mapping[str, Any]) -> None:  # noqa: B027 (most hold all)
        """Raises a UserError for a record that this kind of file cannot hold."""

    @abstractmethod
    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record; raises OSError."""

    def close(self) -> None:  # noqa: B027 (nothing is left by most)
        """Writes what is left; the file itself stays open."""


class JsonWriter(RecordWriter):
    """One JSON list, a record on each line."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds a record to the list."""
        self.file.write((b",\n" if self.count else b"[\n") + as_json(record))
        self.count += 1

    def close(self) -> None:
        """Ends the list."""
        self.file.write(b"\n]\n" if self.count else b"[]\n")


class JsonLinesWriter(RecordWriter):
    """A record on each line."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes a line."""
        self.file.write(as_json(record) + b"\n")
        self.count += 1


class CsvWriter(RecordWriter):
    """Flat records as CSV; their fields are known when all are there."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, path)
        self.rows: list[Mapping[str, Any]] = []

    def check(self, record: Mapping[str, Any]) -> None:
        """Refuses lists and objects: a field of CSV is one text."""
        for key, value in record.items():
            if isinstance(value, list | dict):
                raise UserError(
                    f'"{key}" is a {"list" if isinstance(value, list) else "object"}, and a field '
                    "of CSV holds one text; take --container jsonl"
                )

    def write(self, record: Mapping[str, Any]) -> None:
        """Keeps a record for :meth:`close`."""
        self.rows.append(record)
        self.count += 1

    def close(self) -> None:
        """Writes the head and the rows."""
        fields = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.TextIOWrapper(self.file, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        text.detach()


class ParquetWriter(RecordWriter):
    """Parquet; a field has one type in all records."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, path)
        self.rows: list[dict[str, Any]] = []

    def write(self, record: Mapping[str, Any]) -> None:
        """Keeps a record for :meth:`close`."""
        self.rows.append(dict(record))
        self.count += 1

    def close(self) -> None:
        """Writes the table; raises UserError where a field has several types."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError(
                f"{self.path}: Parquet needs pyarrow; install it with `pip install pyarrow`, or "
                "take --container jsonl"
            ) from None
        fields = list(dict.fromkeys(key for row in self.rows for key in row))
        rows = [{key: row.get(key) for key in fields} for row in self.rows]
        try:
            table = pyarrow.Table.from_pylist(rows)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            raise UserError(
                f"{self.path}: a field of Parquet has one type, and these records have several in "
                f"one ({error}); take --container jsonl"
            ) from None
        pyarrow.parquet.write_table(table, self.file, row_group_size=BATCH)


WRITERS: dict[str, type[RecordWriter]] = {
    "json": JsonWriter,
    "jsonl": JsonLinesWriter,
    "csv": CsvWriter,
    "parquet": ParquetWriter,
}


def as_json(record: Mapping[str, Any]) -> bytes:
    """A record as JSON on one line."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")
