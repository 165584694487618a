"""A table on disk: what was put in comes out, before and after it is kept."""

import hashlib
from pathlib import Path

import pytest

from omnitune.data.feature_table import Table


def key(n: int) -> str:
    return hashlib.md5(str(n).encode()).hexdigest()


@pytest.mark.parametrize("kept", [True, False])
def test_pairs_come_out_as_they_went_in(tmp_path: Path, kept: bool) -> None:
    path = tmp_path / "folder" / "table.bin"
    table = Table(path)
    for first in range(0, 100, 20):
        for n in range(first, first + 20):
            assert table.get(key(n)) is None
            table.put(key(n), (n, n + 7))
        assert table.changed
        if kept:
            table.keep()
            assert not table.changed
    for found in (table, Table(path)) if kept else (table,):
        assert [found.get(key(n)) for n in range(100)] == [(n, n + 7) for n in range(100)]
        assert found.get(key(100)) is None
    assert Table(path).furthest() == (106 if kept else 0)
    assert [p.name for p in tmp_path.rglob("*.*")] == (["table.bin"] if kept else [])


def test_newer_pair_replaces_the_older(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.bin")
    for pair in ((1, 2), (3, 4)):
        table.put(key(0), pair)
        table.keep()
    assert Table(tmp_path / "table.bin").get(key(0)) == (3, 4)
    table.clear()
    assert table.get(key(0)) is None


def test_torn_file_is_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "table.bin"
    table = Table(path)
    table.put(key(0), (1, 2))
    table.keep()
    path.write_bytes(path.read_bytes()[:-1])
    assert Table(path).get(key(0)) is None
