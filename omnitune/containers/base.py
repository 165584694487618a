"""What a container is: where the records of a file lie, and how one of them is read."""

from __future__ import annotations

import codecs
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple
from urllib.parse import quote

from omnitune.sample import UserError

INSIDE = "::/"  # begins a medium's path that lies in the record that names it

BLANK = b" \t\r\n"  # around a line's content
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's begin alike or with zeros


class Stretch(NamedTuple):
    """A part of a file that can be read alone.

    Attributes:
        start, stop: where it begins and ends, as its container counts; of a whole file both are 0.
        records, lines: how many come before it in the file.
    """

    start: int = 0
    stop: int = 0
    records: int = 0
    lines: int = 0


WHOLE_FILE = Stretch()


class Unreadable(NamedTuple):
    """In place of a record's value, where it has none: what is wrong with it."""

    error: UserError


class Container(ABC):
    """A kind of file that holds records, whatever these mean.

    A record has a place: two numbers, by which it is read alone and in any order. What they are
    is the container's own business: its first byte and its length, or a row group and a row.

    Attributes:
        name: key in ``CONTAINERS``.
        suffixes: of its files' names, in lower case.
        has_columns: a record has every key that the others have, empty where it has no value.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    has_columns: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins so is one of these, whatever its name is."""

    def fits(self, head: bytes) -> bool:
        """Whether a file that is called so, and begins so, may be one of these."""
        return True

    @abstractmethod
    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields the place (two numbers) and the value of each record, in the order of the file.

        Raises:
            OSError: the file cannot be read.
            UserError: the file is not what it seems; names the line or place.
        """

    def scan_contents(self, path: Path) -> Iterator[tuple[int, int, Any, bytes]]:
        """:meth:`scan` with the :meth:`content` of each record."""
        with path.open("rb", buffering=0) as file:
            for start, length, value in self.scan(path):
                yield start, length, value, os.pread(file.fileno(), length, start)

    def stretches(self, path: Path, size: int) -> list[Stretch]:
        """Parts of a file in order, each of about so many bytes; all of it where it has none.

        Raises:
            OSError, UserError: as of :meth:`scan`.
        """
        return [WHOLE_FILE]

    def scan_stretch(
        self, path: Path, stretch: Stretch = WHOLE_FILE, lenient: bool = False
    ) -> Iterator[tuple[int, int, Any, bytes]]:
        """:meth:`scan_contents` of a part.

        Args:
            lenient: a record that is no value, and ends before others begin, is yielded as
                :class:`Unreadable`; otherwise it is an error.
        """
        return self.scan_contents(path)

    def content(self, path: Path, start: int, length: int) -> bytes:
        """The bytes of the record at a place, by which a changed file is noticed.

        Where they are not JSON, they are made of the record as JSON, without its media.

        Raises:
            OSError: the file cannot be read.
        """
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, start)

    def parts(self, path: Path) -> list[Path]:
        """The files (or folder) whose change changes the records."""
        return [path]

    def beside(self, path: Path) -> str:
        """Stands for what the records depend on beside the content of these files; "" for none."""
        return ""

    def read_up_to(self, start: int, length: int) -> int:
        """Bytes of the file up to the end of a record, as far as the place tells them."""
        return start + length

    def value(self, content: bytes) -> Any:
        """The value of a record's bytes, as :meth:`scan` yields it."""
        return json.loads(content)

    def stored(self, path: Path, start: int, length: int, keys: list[str]) -> Any:
        """What lies in a record under some keys: the bytes of a medium, or text that holds them.

        Raises:
            OSError, LookupError: there is no such record, or nothing in it under these keys.
        """
        return walk(self.value(self.content(path, start, length)), keys)


class RowContainer(Container):
    """Records that are no JSON in their file; their content is made of their values."""

    @abstractmethod
    def row(self, path: Path, start: int, length: int) -> Any:
        """The value of the record at a place, as :meth:`scan` yields it.

        Raises:
            OSError: the file cannot be read.
            LookupError, ValueError: no record is there.
        """

    def scan_contents(self, path: Path) -> Iterator[tuple[int, int, Any, bytes]]:
        """:meth:`scan` with the :meth:`content` of each record."""
        for start, length, value in self.scan(path):
            yield start, length, value, to_json(value)

    def content(self, path: Path, start: int, length: int) -> bytes:
        """The record as JSON; nothing where none is any more."""
        try:
            return to_json(self.row(path, start, length))
        except (LookupError, ValueError):
            return b""


def inside(keys: Iterable[str | int]) -> str:
    """What a record calls a medium that it holds itself, under some keys."""
    return INSIDE + "/".join(quote(str(key), safe="") for key in keys)


def walk(value: Any, keys: Iterable[str]) -> Any:
    """What stands under some keys, one below the other; raises LookupError, ValueError."""
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def to_json(value: Any) -> bytes:
    """A record as JSON: dates and the like as text, bytes by their number."""
    return json.dumps(value, ensure_ascii=False, default=_as_text).encode("utf-8", "surrogatepass")


def _as_text(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def lines_of(path: Path, stretch: Stretch = WHOLE_FILE) -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), first byte and content of each line of a file that is not blank.

    Args:
        stretch: of bytes, from the beginning of a line to the end of one.

    Raises:
        OSError: the file cannot be read.
        UserError: it is UTF-16 or UTF-32.
    """
    with path.open("rb") as file:
        start = skip_byte_order_mark(path, file)
        start = file.seek(stretch.start) if stretch.start else start
        for number, line in enumerate(file, stretch.lines + 1):
            if content := line.strip(BLANK):
                yield number, start + line.index(content), content
            start += len(line)
            if start >= stretch.stop > 0:
                return


def without_lead(head: bytes) -> bytes:
    """The head of a text file from its first sign on: no byte order mark, no blanks."""
    return head.removeprefix(codecs.BOM_UTF8).lstrip(BLANK)


def skip_byte_order_mark(path: Path, file: BinaryIO) -> int:
    """Goes past the mark that some editors write; returns the place of the first byte after it.

    Raises:
        UserError: the file is UTF-16 or UTF-32.
    """
    head = file.read(4)
    mark = len(codecs.BOM_UTF8) * head.startswith(codecs.BOM_UTF8)
    if not mark and (head.startswith(_UTF16) or b"\0" in head):
        raise UserError(f"{path}: is UTF-16 or UTF-32 text; save it as UTF-8")
    return file.seek(mark)
