"""Media in Parquet and Arrow: marked while a file is scanned, read by their addresses alone."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitune.containers import arrow, parquet
from omnitune.containers.address import complete, inside, parse, read_stored
from omnitune.containers.base import Container
from omnitune.containers.registry import container_of
from omnitune.sample import UserError

MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
A, B = {"bytes": b"AAA" * 999, "path": "a.png"}, {"bytes": b"B", "path": None}
MARKED_A, MARKED_B = A | {"bytes": True}, B | {"bytes": True}
NONE = {"bytes": None, "path": "c.png"}

# Type of a column, its values, and what a scan gives of these.
COLUMNS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "alone": (pa.binary(), [b"A", b"B"], [{"bytes": True}] * 2),
    "some alone": (pa.binary(), [b"A", None], [{"bytes": True}, None]),
    "none": (pa.binary(), [None, None], [None, None]),
    "large": (pa.large_binary(), [b"A", b"B"], [{"bytes": True}] * 2),
    "structures": (MEDIUM, [A, B], [MARKED_A, MARKED_B]),
    "some structures": (MEDIUM, [None, B], [None, MARKED_B]),
    "paths": (MEDIUM, [NONE, NONE], [NONE, NONE]),
    "some paths": (MEDIUM, [NONE, A], [NONE, MARKED_A]),
    "lists": (pa.list_(MEDIUM), [[A, B], [B]], [[MARKED_A, MARKED_B], [MARKED_B]]),
    "some lists": (pa.list_(MEDIUM), [[], [A, None]], [[], [MARKED_A, None]]),
    "no lists": (pa.list_(MEDIUM), [None, [A]], [None, [MARKED_A]]),
    "lists of bytes": (pa.list_(pa.binary()), [[b"A"], []], [[{"bytes": True}], []]),
    "only bytes": (
        pa.struct([("bytes", pa.binary())]),
        [{"bytes": b"A"}] * 2,
        [{"bytes": True}] * 2,
    ),
    "decoded": (
        pa.struct([("array", pa.list_(pa.float32())), ("sampling_rate", pa.int64())]),
        [{"array": [0.5, -1.0], "sampling_rate": 8000}] * 2,
        [{"array": [0.5, -1.0], "sampling_rate": 8000}] * 2,
    ),
    "names": (pa.dictionary(pa.int8(), pa.string()), ["x", "y"], ["x", "y"]),
    "times": (pa.timestamp("s"), [0, 86400], ["1970-01-01T00:00:00", "1970-01-02T00:00:00"]),
}


def table(*columns: str) -> pa.Table:
    return pa.table({name: pa.array(COLUMNS[name][1], COLUMNS[name][0]) for name in columns})


def write(folder: Path, kind: str, found: pa.Table) -> Path:
    path = folder / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(found, path, row_group_size=2)
    else:
        with pa.ipc.new_stream(str(path), found.schema) as writer:
            writer.write_table(found)
    return path


def scanned(path: Path) -> tuple[Container, list[tuple[int, int, Any]]]:
    container = container_of(path)
    return container, list(container.scan(path))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("name", COLUMNS)
def test_bytes_are_marked_and_other_values_are_as_they_are(
    tmp_path: Path, kind: str, name: str
) -> None:
    path = write(tmp_path, kind, table(name))
    container, found = scanned(path)
    assert [value for _, _, value in found] == [{name: value} for value in COLUMNS[name][2]]
    for start, length, value in found:
        assert container.value(container.content(path, start, length)) == value


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_many_columns_beside_each_other(tmp_path: Path, kind: str) -> None:
    whole = table(*COLUMNS)
    path = write(tmp_path, kind, pa.concat_tables([whole] * 3))
    container, found = scanned(path)
    assert len(found) == 6
    for start, length, value in found[2:4] + found[:2]:
        row = length % 2
        assert value == {name: column[2][row] for name, column in COLUMNS.items()}
        assert (
            container.stored(path, start, length, ["structures", "bytes"]) == (A, B)[row]["bytes"]
        )
        assert container.stored(path, start, length, ["alone", "bytes"]) == (b"A", b"B")[row]
    start, length, _ = found[2]
    assert container.stored(path, start, length, ["lists", "1", "bytes"]) == b"B"


def test_an_address_leads_to_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", table("structures", "paths"))
    address = parse(complete(inside(["structures", "bytes"]), path, 0, 1))
    assert address is not None
    assert read_stored(address, "file") == b"B"
    for keys, words in (
        (["structures", "path"], "is a NoneType, expected the bytes"),
        (["nothing"], "nothing is there"),
    ):
        address = parse(complete(inside(keys), path, 0, 1))
        assert address is not None
        with pytest.raises(UserError, match=words):
            read_stored(address, "file")
    address = parse(complete(inside(["structures", "bytes"]), path, 7, 0))
    assert address is not None
    with pytest.raises(UserError, match="nothing is there"):
        read_stored(address, "file")


def test_a_scan_reads_no_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of which the footer says that no bytes are missing stay in the file."""
    path = write(tmp_path, "parquet", table("structures", "alone", "lists", "names"))
    asked: list[list[str]] = []
    iterate = pq.ParquetFile.iter_batches

    def watched(file: pq.ParquetFile, *given: Any, **more: Any) -> Any:
        asked.append(more["columns"])
        return iterate(file, *given, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    assert len(scanned(path)[1]) == 2
    assert asked == [["structures.path", "lists.list.element.path", "names"]]


def test_only_some_columns_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pa.table({"alone": [bytes(10_000)] * 40, "id": [f"{n}" for n in range(40)]})
    path = write(tmp_path, "parquet", found)
    container = parquet.ParquetContainer()
    container._columns.limit = 50_000
    for group in (*range(20), *range(20)):
        assert len(container.stored(path, group, 1, ["alone", "bytes"])) == 10_000
        assert container.row(path, group, 1)["id"] == f"{2 * group + 1}"
        assert container._columns.total <= 50_000


def test_a_file_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", table("structures").slice(0, 0))
    assert scanned(path)[1] == []


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    file = io.BytesIO()
    pq.write_table(table("alone"), file)
    for content in (b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", file.getvalue()[:-9]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.parquet: is not Parquet, or not whole \("):
            list(container_of(path).scan(path))


def test_a_damaged_table_is_never_read_beyond_its_bytes(tmp_path: Path) -> None:
    """Offsets that lead out of a column, and text that is cut within a letter."""
    path = write(tmp_path, "arrow", pa.table({"words": ["\u00fc" * 9, "\u00fc" * 9]}))
    whole = path.read_bytes()
    at = whole.index((18).to_bytes(4, "little") + (36).to_bytes(4, "little"))
    for offset in (17, 1 << 30, (1 << 32) - 1):
        path.write_bytes(whole[:at] + offset.to_bytes(4, "little") + whole[at + 4 :])
        container = arrow.ArrowContainer()
        with pytest.raises(UserError, match=r"a\.arrow: is not Arrow, or not whole"):
            list(container.scan(path))
        assert container.content(path, 0, 0) == b""
        with pytest.raises(ValueError, match=r"[Oo]ffset|UTF8"):
            container.stored(path, 0, 0, ["words"])
