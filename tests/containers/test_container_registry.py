"""Formats are told by what a file holds, and records are the same in each of them."""

import json
from pathlib import Path

import pytest
from helpers import write_source

from omnitune.containers.registry import CONTAINERS, container_of
from omnitune.data import index as indexing
from omnitune.data.reading import data_files, read_available, read_source
from omnitune.sample import UserError
from omnitune.sources import SOURCES

RECORDS = [
    {"question": f"what is {n}?", "answer": "ü" * n + "x", "split": ("train", "test")[n % 2]}
    for n in range(30)
]
LINES = "\n".join(json.dumps(record) for record in RECORDS)
FILE = SOURCES["text_only"].file


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", "[]", "json"),
        ("a.jsonl", " \n [\n", "json"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "jsonl"),
        ("a.txt", '\ufeff{"a": 1}\r\n\r\n{"a": 2}', "jsonl"),
        ("a.json", '{"a": 1}', "json object"),
        ("a.json", '{\n"a": 1\n}\n', "json object"),
        ("a.json", '{"questions": [{"question": "?"}', "vqa"),
        ("a.json", '{"questions": [{"question": "?", "answer": "!"}', "json object"),
        ("a.json", '{"images": [{"id": 1, "file_name": "a.jpg"}', "captions"),
        ("a.jsonl", '{"a": 1}', "jsonl"),
        ("a.NDJSON", "", "jsonl"),
        ("a.json", "", "json"),
    ],
)
def test_a_format_is_told_by_the_content_and_else_by_the_name(
    tmp_path: Path, name: str, content: str, expected: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert container_of(path) is CONTAINERS[expected]


def test_a_file_of_no_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("question,answer\n")
    with pytest.raises(
        UserError, match=r"a\.txt: is in none of the known formats .*json object, jsonl"
    ):
        container_of(path)


@pytest.mark.parametrize("keep_from", [0, 1 << 30])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_lines_hold_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, keep_from: int
) -> None:
    monkeypatch.setattr(indexing, "KEEP_FROM", keep_from)
    write_source(tmp_path / "list", "text_only", RECORDS)
    write_source(tmp_path / "lines", "text_only", LINES)
    usual = tmp_path / "lines" / FILE
    usual.rename(usual.with_suffix(suffix))
    expected = read_source(tmp_path / "list", "text_only")
    for _ in range(2):  # indexed, and from the index that was kept
        found = read_source(tmp_path / "lines", "text_only")
        assert list(found) == list(expected)
        assert [found[n] for n in (7, 29, 0)] == [expected[n] for n in (7, 29, 0)]
    assert list(read_available(tmp_path / "lines")) == ["text_only"]
    names = data_files(tmp_path / "lines", ["text_only"])
    assert names == {FILE.replace(".json", suffix): usual.with_suffix(suffix)}
    unread = read_source(tmp_path / "lines", "text_only")
    usual.with_suffix(suffix).write_text("\n" + LINES)
    with pytest.raises(UserError, match="record 1 is not where it was"):
        list(unread)


def test_errors_name_records_of_lines_as_those_of_a_list(tmp_path: Path) -> None:
    write_source(tmp_path, "text_only", f'{LINES}\n\n{{"answer": 4}}\n[]\n')
    with pytest.raises(UserError, match='record 31: "answer" is 4') as error:
        read_source(tmp_path, "text_only")
    assert "record 32: is a JSON list, expected an object" in str(error.value)


def test_a_source_has_one_file(tmp_path: Path) -> None:
    path = write_source(tmp_path, "text_only", RECORDS)
    path.with_suffix(".jsonl").write_text(LINES)
    with pytest.raises(UserError, match="the source text_only has one file; keep one of them"):
        read_available(tmp_path)
