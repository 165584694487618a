"""A JSON object with records: in a list under one of its keys, or each under a key of its own.

It is read piece by piece, as a list is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from omnitune.config.settings import quoted
from omnitune.containers.base import Container, skip_byte_order_mark, without_lead
from omnitune.containers.json_list import Window
from omnitune.sample import UserError

# Keys that others put a list of records under.
LISTS = (
    *("data", "questions", "annotations", "annotation", "images", "records", "samples"),
    *("examples", "items", "rows", "entries", "instances"),
)
LOOKED_AT = 3  # values by which an object of records is known
SHOWN = 8  # keys in an error
CONFIGURED = ("sources", "data_mix", "data_dir")  # keys that tell a configuration from data


class JsonObjectContainer(Container):
    """Records in a list under a key (``{"data": [...]}``), or each under its id (``{"7": {...}}``).

    A record under its id is read with it, as ``id``, where it has none of its own.
    """

    name = "json object"
    suffixes = (".json",)

    def recognises(self, head: bytes) -> bool:
        """Never: an object may be a line of others, so that the name tells too."""
        return False

    def fits(self, head: bytes) -> bool:
        """Whether an object begins."""
        return without_lead(head).startswith(b"{")

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields first byte, number of bytes and value of each record."""
        if _holds_records(path):
            for start, length, key, value in _entries(path):
                yield start, length, _with_id(key, value)
            return
        lists = _lists(path)
        if len(lists) == 1 and lists[0] in LISTS:
            yield from scan_list(path, lists[0])
            return
        if lists:
            told = ", ".join(map(quoted, lists[:SHOWN]))
            raise UserError(
                f"{path}: holds a JSON object with lists of objects under {told}, expected a list "
                f"of records, or one such list under {quoted(LISTS[0])}; write the records into a "
                "file of their own"
            )
        keys = [key for _, _, key, _ in islice(_entries(path), SHOWN)]
        if any(key in CONFIGURED for key in keys):
            raise UserError(
                f"{path}: is a configuration, expected a list of records; name the path of one of "
                "its sources; `omnitune validate` and `omnitune inspect` take configurations, too"
            )
        told = ", ".join(map(quoted, keys))
        raise UserError(
            f"{path}: holds a JSON object{f' with the keys {told}' if told else ''}, expected a "
            "list of records"
        )

    def value(self, content: bytes) -> Any:
        """A record of a list, or one with its id."""
        if not content.startswith(b'"'):
            return json.loads(content)
        [(key, value)] = json.loads(b"{" + content + b"}").items()
        return _with_id(key, value)


def scan_list(path: Path, key: str) -> Iterator[tuple[int, int, Any]]:
    """Yields first byte, number of bytes and value of each item of a list in a file's object.

    Raises:
        OSError: the file cannot be read.
        UserError: it holds no object, or none with such a list.
    """
    found = False
    for name, window in _keys(path):
        if window.next() == "[" and name == key:
            found = True
            yield from _items(window)
        else:
            _pass(window)
    if not found:
        raise UserError(f'{path}: expected a JSON object with a list "{key}"')


def _keys(path: Path) -> Iterator[tuple[str, Window]]:
    """Yields each key of a file's object; its value has to be read before the next."""
    with path.open("rb") as file:
        window = Window(path, file)
        window.byte = skip_byte_order_mark(path, file)
        _take(window, "{")
        separator = "," if window.next() != "}" else _take(window, "}")
        while separator == ",":
            window.next()
            window.start = window.byte
            name = window.value()
            _take(window, ":")
            yield name, window
            separator = _take(window, ",}")
        window.expect_no_object()
        window.expect_end()


def _entries(path: Path) -> Iterator[tuple[int, int, str, Any]]:
    """First byte, number of bytes, key and value of each entry of a file's object."""
    for key, window in _keys(path):
        window.next()
        start, value = window.start, window.value()
        yield start, window.byte - start, key, value


def _holds_records(path: Path) -> bool:
    """Whether the first values are objects; a list that is none of them is not read for that."""
    found = 0
    for _, window in islice(_keys(path), LOOKED_AT):
        if window.next() != "{":
            return False
        window.value()
        found += 1
    return found > 0


def _pass(window: Window) -> None:
    """Goes past a value, a list item by item, so that memory holds one of them."""
    if window.next() != "[":
        window.value()
        return
    for _ in _items(window):
        pass


def _lists(path: Path) -> list[str]:
    """The keys of a file's object whose values are lists of objects."""
    found = []
    for key, window in _keys(path):
        if window.next() != "[":
            window.value()
            continue
        for n, (_, _, value) in enumerate(_items(window)):
            if n == 0 and isinstance(value, dict):
                found.append(key)
    return found


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


def _with_id(key: str, value: Any) -> Any:
    return {"id": key, **value} if isinstance(value, dict) else value
