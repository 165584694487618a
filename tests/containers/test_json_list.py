"""Reading a JSON list piece by piece: the same records as all at once, wherever a piece ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnitune.config.settings import Repeated
from omnitune.containers import json_list as scanning
from omnitune.containers.json_list import JsonListContainer
from omnitune.containers.json_object import JsonObjectContainer
from omnitune.sample import UserError

scan = JsonListContainer().scan
RECORDS: list[Any] = [
    {"a": 'quote " and \\ and \n and }]', "b": {"c": [1, [2, {"d": "]"}]]}},
    {"ü": "日本 \U0001f600"},
    [],
    {},
    -12.5e3,
    True,
    None,
    "text",
    {"n": [1234567890123, 0.1, -1, False]},
]


def write(folder: Path, text: str) -> Path:
    path = folder / "records.json"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("form", [{}, {"indent": 1}, {"ensure_ascii": False}])
def test_same_records_wherever_a_piece_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, form: dict[str, Any]
) -> None:
    monkeypatch.setattr(scanning, "CHUNK", chunk)
    path = write(tmp_path, f" \r\n\t{json.dumps(RECORDS, **form)}\n ")
    found = list(scan(path))
    assert [value for _, _, value in found] == RECORDS
    content = path.read_bytes()
    assert [json.loads(content[start : start + n]) for start, n, _ in found] == RECORDS


def test_empty_list(tmp_path: Path) -> None:
    assert list(scan(write(tmp_path, " [ ] "))) == []


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("  \n ", "is empty"),
        ("[", "Expecting value"),
        ("[1,]", "Expecting value"),
        ("[1\n2]", "Expecting ',' delimiter: line 2, byte 4"),
        ("[1", "Expecting ',' delimiter"),
        ('[{"a": 1},\n{"b": tru}]', "Expecting value: line 2"),
        ('[{"a": "b}]', "Unterminated string"),
        ('[{"a": "\\x"}]', "Invalid"),
        ("[1] 2", "Extra data"),
        ("{} 2", "Extra data"),
        ('{"a": 1}', "holds a JSON object, expected a list"),
        ('"a"', "holds a JSON string, expected a list"),
        ("12", "holds a JSON number, expected a list"),
        ("null", "holds a JSON null, expected a list"),
        ("true", "holds a JSON true, expected a list"),
        ('{"a": 1}\n{"a": 2}\n', "JSON Lines; put its objects into one [...]"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_wrong_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str, chunk: int
) -> None:
    monkeypatch.setattr(scanning, "CHUNK", chunk)
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        list(scan(path))
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_bytes(b'["a",\n"\xff"]')
    with pytest.raises(UserError, match="not UTF-8 text"):
        list(scan(path))


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
def test_a_byte_order_mark_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(scanning, "CHUNK", chunk)
    path = write(tmp_path, "\ufeff" + json.dumps(RECORDS))
    found = list(scan(path))
    assert [value for _, _, value in found] == RECORDS
    content = path.read_bytes()
    assert [json.loads(content[start : start + n]) for start, n, _ in found] == RECORDS


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_are_named(tmp_path: Path, code: str) -> None:
    path = tmp_path / "records.json"
    path.write_text("[]", encoding=code)
    with pytest.raises(UserError, match="UTF-16 or UTF-32 text; save it as UTF-8"):
        list(scan(path))


def test_a_key_that_is_given_twice_is_marked(tmp_path: Path) -> None:
    path = write(tmp_path, '[{"a": 1, "b": {"c": 1, "d": 2, "c": 3}}, {"a": 1, "b": 2}]')
    [(_, _, first), (_, _, second)] = scan(path)
    assert isinstance(first["b"], Repeated)
    assert (first["b"].key, first["b"]["c"]) == ("c", 3)
    assert type(first) is type(second) is dict


def test_never_holds_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "CHUNK", 100)
    longest = 0
    take = scanning.Window.take

    def watched(window: scanning.Window, end: int) -> None:
        nonlocal longest
        longest = max(longest, len(window.text))
        take(window, end)

    monkeypatch.setattr(scanning.Window, "take", watched)
    assert len(list(scan(write(tmp_path, json.dumps(["x" * 40] * 1000))))) == 1000
    assert longest < 300


def test_a_configuration_in_place_of_data_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, '{"sources": {"mine": {"path": "a.json"}}, "num_epochs": 2}')
    with pytest.raises(UserError, match="is a configuration, expected a list of records; name the"):
        list(JsonObjectContainer().scan(path))
