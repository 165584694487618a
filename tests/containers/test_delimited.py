"""CSV and TSV: quotes, line breaks in fields, headers; errors name the line."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnitune.containers.notes import note
from omnitune.containers.registry import container_of
from omnitune.sample import UserError


def rows(path: Path, content: str | bytes) -> list[Any]:
    """The values of a file, each of them found again at its place."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    container = container_of(path)
    found = list(container.scan(path))
    for start, length, value in reversed(found):
        assert container.value(container.content(path, start, length)) == value
    return [value for _, _, value in found]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_quotes_breaks_and_blank_lines(tmp_path: Path, end: str, mark: str, last: bool) -> None:
    lines = ["id,text", '1,"a, ""b""', 'and c"', "", "2,ü", '3,""']
    text = mark + end.join(lines) + end * last
    assert rows(tmp_path / "a.csv", text) == [
        {"id": "1", "text": f'a, "b"{end}and c'},
        {"id": "2", "text": "ü"},
        {"id": "3", "text": ""},
    ]


def test_other_delimiters(tmp_path: Path) -> None:
    expected = [{"a": "1,5", "b": "2"}]
    assert rows(tmp_path / "a.csv", "a;b\n1,5;2\n") == expected
    assert rows(tmp_path / "a.csv", "a\tb\n1,5\t2\n") == expected
    assert rows(tmp_path / "a.tsv", "a\tb\n1,5\t2\n") == expected
    assert rows(tmp_path / "a.csv", "word\nred\n\nblue") == [{"word": "red"}, {"word": "blue"}]
    assert rows(tmp_path / "a.csv", "") == rows(tmp_path / "a.csv", "a,b\n") == []


def test_quotes_between_tabs(tmp_path: Path) -> None:
    text = 'path\tsentence\n1\t"""No,"" he said."\n2\t"No," he said.\n3\t"\n4\ta "b\n5\t"x\ty"\n'
    assert [row["sentence"] for row in rows(tmp_path / "a.tsv", text)] == [
        '"No," he said.',
        '"No," he said.',
        '"',
        'a "b',
        "x\ty",
    ]


def test_columns_of_one_name_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note.cache_clear()
    found = rows(tmp_path / "a.tsv", "path\twords\tpath\tpath\t\n1\t2\t3\t4\t5\n")
    assert found == [{"path": "1", "words": "2", "path.2": "3", "path.3": "4", "column 5": "5"}]
    assert "several columns 'path'; this one is read as 'path.2'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2\n1,2,3\n", "line 3 has 3 fields and the header 2 (a, b); quote a field that"),
        (b'a,b\n"1\n1",2\n\n1\n', "line 5 has 1 fields and the header 2"),
        (b'a,b\n1,2\n1,"2\n3,4\n', "the row that begins in line 3 is no row of a table"),
        (b'a,b\n1,"2"3\n', "the row that begins in line 2 is no row of a table"),
        (b"a,b\n1,2\n1,\xff\n", "line 3 is not UTF-8 text"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16 or UTF-32 text; save it as UTF-8"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UserError) as error:
        rows(tmp_path / "a.csv", content)
    assert str(error.value).startswith(f"{tmp_path / 'a.csv'}: ")
    assert words in str(error.value)


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=5))
def test_what_csv_writes_is_read_again(tmp_path: Path, table: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *table])
    found = rows(tmp_path / "a.csv", text.getvalue())
    assert [(row["a"], row["b"]) for row in found] == table


def test_a_changed_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    container = container_of(path)
    [(start, length, _)] = container.scan(path)
    before = container.content(path, start, length)
    path.write_text("a\n1,2\n")
    assert container.content(path, start, length) != before
