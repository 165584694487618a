"""Addresses: paths of media that lie inside a record of a file.

``FILE::A+B/KEY/KEY`` is what stands under these keys of the record at the place (A, B) of FILE.
Inside the record itself it is written ``::/KEY/KEY``. An address is a path, so that whatever
takes the path of a medium takes it too.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from omnitune.containers.base import INSIDE as INSIDE
from omnitune.containers.base import inside as inside
from omnitune.containers.registry import known_container
from omnitune.containers.remote import ensure
from omnitune.sample import UserError

MARK = "::"
_ADDRESS = re.compile(r"(?s)(.+)::(\d+)\+(\d+)/(.+)")


class Address(NamedTuple):
    """The parts of an address."""

    file: Path
    start: int
    length: int
    keys: list[str]


def complete(path: str, file: Path, start: int, length: int) -> Path:
    """The address of a medium that its record calls ``::/KEY``."""
    return Path(f"{file}{MARK}{start}+{length}/{path.removeprefix(INSIDE)}")


def parse(path: Path) -> Address | None:
    """The parts of an address; None for the path of a file of its own."""
    found = _ADDRESS.fullmatch(str(path)) if MARK in str(path) else None
    if not found:
        return None
    file, start, length, keys = found.groups()
    return Address(Path(file), int(start), int(length), [unquote(k) for k in keys.split("/")])


def read_stored(address: Address, kind: str) -> bytes:
    """The bytes of a medium inside a record.

    Args:
        kind: what is expected, to be told ("image file").

    Raises:
        UserError: it is not there, or is nothing that holds bytes.
    """
    file, start, length, keys = address
    ensure(file)
    where = f"{file}: {'.'.join(keys)} of the record at {start}"
    try:
        value = known_container(file).stored(file, start, length, keys)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (LookupError, ValueError, TypeError):
        raise UserError(f"{where}: nothing is there; expected the {kind}") from None
    if isinstance(value, str):
        return _decoded(value, where, kind)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise UserError(f"{where}: is a {type(value).__name__}, expected the bytes of the {kind}")
    return bytes(value)


def _decoded(text: str, where: str, kind: str) -> bytes:
    """The bytes of a data URI, or of base64 alone."""
    head, comma, rest = text.partition(",")
    if head.startswith("data:") and comma and not head.endswith(";base64"):
        return unquote_to_bytes(rest)
    try:
        return base64.b64decode(rest if head.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{where}: is no base64 text, expected the bytes of the {kind}") from None
