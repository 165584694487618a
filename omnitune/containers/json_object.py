"""A list that stands under a key of a JSON object, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnitune.containers.base import skip_byte_order_mark
from omnitune.containers.json_list import Window
from omnitune.sample import UserError


def scan_list(path: Path, key: str) -> Iterator[tuple[int, int, Any]]:
    """Yields first byte, number of bytes and value of each item of a list in a file's object.

    Raises:
        OSError: the file cannot be read.
        UserError: it holds no object, or none with such a list.
    """
    found = False
    with path.open("rb") as file:
        window = Window(path, file)
        window.byte = skip_byte_order_mark(path, file)
        _take(window, "{")
        separator = "}" if window.next() == "}" else ","
        while separator == ",":
            window.next()
            name = window.value()
            _take(window, ":")
            if window.next() == "[" and name == key:
                found = True
                yield from _items(window)
            else:
                window.value()
            separator = _take(window, ",}")
    if not found:
        raise UserError(f'{path}: expected a JSON object with a list "{key}"')


def _items(window: Window) -> Iterator[tuple[int, int, Any]]:
    _take(window, "[")
    separator = "," if window.next() != "]" else _take(window, "]")
    while separator == ",":
        window.next()
        start = window.byte
        value = window.value()
        yield start, window.byte - start, value
        separator = _take(window, ",]")


def _take(window: Window, signs: str) -> str:
    """Goes past the next sign, which has to be one of some."""
    sign = window.next()
    if not sign or sign not in signs:
        raise window.wrong(f"Expecting {' or '.join(map(repr, signs))}", window.position)
    window.take(window.position + 1)
    return sign
