"""A JSON list of records.

It is read piece by piece: one record at a time, and never the whole file.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from omnitune.config.settings import json_kind, object_of_pairs
from omnitune.containers.base import Container, skip_byte_order_mark, without_lead
from omnitune.sample import UserError

CHUNK = 1 << 20  # bytes read at once
LONGEST_TOKEN = 16  # characters; longer than any literal or escape that the end of a piece may cut

_BLANK = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(object_pairs_hook=object_of_pairs)


class JsonListContainer(Container):
    """Records in one JSON list; a byte order mark in front is skipped."""

    name = "json"
    suffixes = (".json",)

    def recognises(self, head: bytes) -> bool:
        """Whether a list begins."""
        return without_lead(head).startswith(b"[")

    def fits(self, head: bytes) -> bool:
        """Whether no object begins, which another container reads."""
        return not without_lead(head).startswith(b"{")

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields first byte, number of bytes and value of each record of the list."""
        with path.open("rb") as file:
            window = Window(path, file)
            window.byte = skip_byte_order_mark(path, file)
            if not (first := window.next()):
                raise UserError(f"{path}: is empty; expected a list of records")
            if first != "[":
                value = window.value()
                if isinstance(value, dict):
                    window.expect_no_object()
                window.expect_end()
                raise UserError(
                    f"{path}: holds a JSON {json_kind(value)}, expected a list of records"
                )
            window.take(window.position + 1)
            separator = "]" if window.next() == "]" else ","
            while separator == ",":
                window.next()
                start = window.byte
                value = window.value()
                yield start, window.byte - start, value
                separator = window.next()
                if separator not in (",", "]"):
                    raise window.wrong("Expecting ',' delimiter", window.position)
                window.take(window.position + (separator == ","))
            window.take(window.position + 1)
            window.expect_end()


class Window:
    """The piece of a file that is being read: grows at its end and is cut off at its start.

    Attributes:
        text: the piece.
        position: in ``text``, of the next character.
        byte: in the file, of the next character.
        start: of whatever its reader is in, as a byte of the file.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.text, self.position, self.byte, self.line = "", 0, 0, 1
        self.start = 0
        self._ended = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def next(self) -> str:
        """Goes to the next character that is not blank; "" at the end of the file."""
        while True:
            blank = _BLANK.match(self.text, self.position)
            assert blank is not None
            self.take(blank.end())
            if self.position < len(self.text):
                return self.text[self.position]
            if self._ended:
                return ""
            self._grow()

    def value(self) -> Any:
        """Reads the JSON value that begins here."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
                if end < len(self.text) or self._ended:  # else a number may go on
                    self.take(end)
                    return value
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string")
                cut = cut or error.pos >= len(self.text) - LONGEST_TOKEN
                if self._ended or not cut:
                    raise self.wrong(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:  # too deep, or a number too long
                raise self.wrong(str(error), self.position) from None
            self._grow()

    def take(self, end: int) -> None:
        """Goes on to a position in ``text``."""
        piece = self.text[self.position : end]
        self.byte += len(piece.encode())
        self.line += piece.count("\n")
        self.position = end

    def expect_no_object(self) -> None:
        """Raises a UserError if another object follows."""
        if self.next() == "{":
            raise self.wrong(
                "Extra data, as in JSON Lines; put its objects into one [...] with commas "
                "between them, or each on a line of its own",
                self.position,
            )

    def expect_end(self) -> None:
        """Raises a UserError if anything but blanks follows."""
        if self.next():
            raise self.wrong("Extra data", self.position)

    def wrong(self, what: str, position: int) -> UserError:
        """An error that says where."""
        line = self.line + self.text.count("\n", self.position, position)
        # A list may be one line of gigabytes.
        byte = self.byte + len(self.text[self.position : position].encode()) + 1
        return UserError(
            f"{self.path}: not valid JSON ({what}: line {line}, byte {byte:,} of the file); "
            "expected a list of records"
        )

    def _grow(self) -> None:
        # At least doubled: a long record is not begun again too often.
        data = self.file.read(max(CHUNK, len(self.text) - self.position))
        self._ended = not data
        try:
            more = self._utf8.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise self.wrong(
                f"not UTF-8 text, {error.reason}; save it as UTF-8", len(self.text)
            ) from None
        self.text, self.position = self.text[self.position :] + more, 0
