"""JSON Lines: a line is a record, wherever it lies."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnitune.config.settings import Repeated
from omnitune.containers.jsonl import JsonLinesContainer
from omnitune.sample import UserError

RECORDS: list[Any] = [{"a": "ü \u2028 \\n"}, {}, {"b": [1, {"c": None}]}, "text", [1], {"d": 9}]
JSONL = JsonLinesContainer()


def write(folder: Path, *lines: str, end: str = "\n") -> Path:
    path = folder / "records.jsonl"
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", " \n\t\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_each_record_is_found_again_at_its_place(
    tmp_path: Path, mark: str, end: str, ascii: bool
) -> None:
    lines = [json.dumps(record, ensure_ascii=ascii) for record in RECORDS]
    path = write(tmp_path, mark + lines[0], *(f"  {line}" for line in lines[1:]), end=end)
    found = list(JSONL.scan(path))
    assert [value for _, _, value in found] == RECORDS
    contents = [JSONL.content(path, start, length) for start, length, _ in reversed(found)]
    assert [JSONL.value(content) for content in contents] == RECORDS[::-1]


def test_the_last_line_may_end_without_a_break(tmp_path: Path) -> None:
    path = write(tmp_path, '{"a": 1}\n{"a": 2}', end="")
    assert [value for _, _, value in JSONL.scan(path)] == [{"a": 1}, {"a": 2}]
    assert list(JSONL.scan(write(tmp_path, "", " "))) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"a": 1', "Expecting ',' delimiter: line 2"),
        (b'{"a": 1} {"a": 2}', "Extra data: line 2"),
        (b'{"a": "\xff"}', "not UTF-8 text"),
        (b"[" * 100_000, "recursion"),
        (b"{", "line 2); expected one record a line"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line + b"\n")
    with pytest.raises(UserError) as error:
        list(JSONL.scan(path))
    assert str(error.value).startswith(f"{path}: not valid JSON (")
    assert words in str(error.value)


def test_other_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"a": 1}', encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16 or UTF-32 text; save it as UTF-8"):
        list(JSONL.scan(path))


def test_a_key_that_is_given_twice_is_marked(tmp_path: Path) -> None:
    [(_, _, value)] = JSONL.scan(write(tmp_path, '{"a": 1, "a": 2}'))
    assert isinstance(value, Repeated)
