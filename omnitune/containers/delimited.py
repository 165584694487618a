"""Tables in text: CSV and TSV, with the names of their columns in the first line."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

from omnitune.containers.base import RowContainer, skip_byte_order_mark
from omnitune.containers.notes import note
from omnitune.sample import UserError

LONGEST_FIELD = 1 << 30  # characters; a medium may lie in one, as base64
SHOWN = 8  # names of columns in an error
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


class Header(NamedTuple):
    """How a table's lines are read: what parts the fields, and the names of the columns."""

    delimiter: str
    names: list[str]


class CsvContainer(RowContainer):
    """Rows of text under the names of their columns; empty fields are "".

    Fields are quoted as RFC 4180 has it, and may hold line breaks then. A file whose header has
    semicolons, tabs or bars and no comma is separated by these. Around bars blanks do not count,
    and quotes are signs like any other.
    """

    name = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    has_columns = True
    delimiters: ClassVar[str] = ",;\t|"  # the first one that the header holds

    def recognises(self, head: bytes) -> bool:
        """Never: the name tells."""
        return False

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields first byte, number of bytes and value of each row; blank lines are skipped."""
        with path.open("rb") as file:
            lines = _Lines(path, file)
            header = self._header(path, lines)
            start, line = lines.byte, lines.number + 1
            for fields in _checked(path, lines, header) if header else ():
                if len(fields) > 1 or (fields and fields[0].strip()):
                    yield start, lines.byte - start, _named(path, line, fields, header)
                start, line = lines.byte, lines.number + 1

    def row(self, path: Path, start: int, length: int) -> Any:
        """The row at a place."""
        stat = path.stat()
        header = self._kept_header(path, stat.st_size, stat.st_mtime_ns)
        with path.open("rb", buffering=0) as file:
            text = os.pread(file.fileno(), length, start).decode()
        try:
            fields = next(_rows(io.StringIO(text, newline="\n"), header), [])
        except csv.Error as error:
            raise ValueError(str(error)) from None
        return dict(zip(header.names, fields, strict=True))

    @lru_cache(maxsize=256)  # noqa: B019 (a container lives as long as the process)
    def _kept_header(self, path: Path, size: int, time: int) -> Header:
        with path.open("rb") as file:
            header = self._header(path, _Lines(path, file))
        if header is None:
            raise ValueError("no header")
        return header

    def _header(self, path: Path, lines: _Lines) -> Header | None:
        """How the lines are read; None of an empty file."""
        line = next((line for line in lines if line.strip()), None)
        if line is None:
            return None
        delimiter = next((d for d in self.delimiters if d in line), self.delimiters[0])
        unnamed = Header(delimiter, [])
        fields = next(_checked(path, lines, unnamed, line))
        return Header(delimiter, _distinct(path, [field.strip() for field in fields]))


class TsvContainer(CsvContainer):
    """The same with tabs. A quote that is not closed in its field is a quote like any other."""

    name = "tsv"
    suffixes = (".tsv",)
    delimiters = "\t,;"


class _Lines:
    """The lines of a file as text.

    Attributes:
        byte: in the file, of the next line.
        number: of the last line, from 1.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.byte, self.number = path, skip_byte_order_mark(path, file), 0
        self._file = file

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.byte += len(line)
        self.number += 1
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.path}: line {self.number} is not UTF-8 text ({error.reason}); save it as "
                "UTF-8"
            ) from None


def _rows(lines: Iterator[str], header: Header) -> Iterator[list[str]]:
    """The fields of each row; reads no further than its end. Raises csv.Error."""
    csv.field_size_limit(LONGEST_FIELD)
    if header.delimiter == "|":
        yield from ([field.strip() for field in line.split("|")] for line in lines)
        return
    if header.delimiter != "\t":
        yield from csv.reader(lines, delimiter=header.delimiter, strict=True)
        return
    for line in lines:
        fields = line.rstrip("\r\n").split("\t")
        # With tabs many programs quote nothing, so that a quote may stand alone.
        if len(fields) == len(header.names) or '"' not in line or not header.names:
            yield [_unquoted(field) for field in fields]
        else:
            yield from _first(csv.reader(chain([line], lines), delimiter="\t", strict=True))


def _first(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    for row in rows:
        yield row
        return


def _unquoted(field: str) -> str:
    found = _QUOTED.fullmatch(field) if field.startswith('"') else None
    return found[1].replace('""', '"') if found else field


def _checked(
    path: Path, lines: _Lines, header: Header, first: str | None = None
) -> Iterator[list[str]]:
    """:func:`_rows` with an error that names the line."""
    begun = lines.number + (first is None)
    rows = _rows(lines if first is None else chain([first], lines), header)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path}: the row that begins in line {begun} is no row of a table ({error}); "
                'fields with quotes in them are written as "a ""word"" in quotes"'
            ) from None
        yield row
        begun = lines.number + 1


def _named(path: Path, line: int, fields: list[str], header: Header | None) -> dict[str, str]:
    assert header is not None
    names = header.names
    if len(fields) != len(names):
        more = ", ..." if len(names) > SHOWN else ""
        raise UserError(
            f"{path}: line {line} has {len(fields)} fields and the header {len(names)} "
            f"({', '.join(names[:SHOWN])}{more}); quote a field that holds "
            f"{'a tab' if header.delimiter == chr(9) else repr(header.delimiter)}, and give every "
            "row all its fields"
        )
    return dict(zip(names, fields, strict=True))


def _distinct(path: Path, names: list[str]) -> list[str]:
    """Names of columns, each another; the later ones of one name are numbered."""
    found: list[str] = []
    for place, name in enumerate(names, 1):
        unique, count = name or f"column {place}", 1
        while unique in found or (count > 1 and unique in names):
            count += 1
            unique = f"{name}.{count}"
        if count > 1:
            note(f"{path}: has several columns {name!r}; this one is read as {unique!r}")
        found.append(unique)
    return found
