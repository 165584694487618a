"""What a format is: where the records of a file lie, and how one of them is read."""

from __future__ import annotations

import codecs
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from omnitune.sample import UserError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's begin alike or with zeros


class Format(ABC):
    """One format of data files. It turns records into objects with the keys of ``data.fields``.

    A record has a place: the first of its bytes and their number. The index keeps places, so that
    a record is read alone and in any order.

    Attributes:
        name: key in ``FORMATS``.
        suffixes: of its files' names, in lower case.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins so is of this format, whatever its name is."""

    @abstractmethod
    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields the place (two numbers) and the value of each record.

        Raises:
            OSError: the file cannot be read.
            UserError: the file is not of this format; names the line or place.
        """

    def content(self, file: BinaryIO, start: int, length: int) -> bytes:
        """The bytes of the record at a place, by which a changed file is noticed."""
        return os.pread(file.fileno(), length, start)

    def value(self, content: bytes) -> Any:
        """The value of a record's bytes, as :meth:`scan` yields it."""
        return json.loads(content)


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
