"""What holds for every container: records are found again, and no file ends in a traceback."""

import bz2
import gzip
import io
import itertools
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnitune.containers.registry import CONTAINERS, container_of, suffixes
from omnitune.sample import UserError

ROWS = [{"id": f"{n}", "answer": f'ü "{n}",\ttwo' * n} for n in range(5)]


def json_list(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows).encode()


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(delimiter: str) -> Callable[[list[dict[str, Any]]], bytes]:
    def write(rows: list[dict[str, Any]]) -> bytes:
        lines = [delimiter.join(rows[0])]
        for row in rows:
            lines.append(
                delimiter.join(f'"{v.replace(chr(34), chr(34) * 2)}"' for v in row.values())
            )
        return "\n".join(lines).encode()

    return write


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2)
    return file.getvalue()


def arrow(rows: list[dict[str, Any]], new: Any = pa.ipc.new_stream) -> bytes:
    file, found = io.BytesIO(), pa.Table.from_pylist(rows)
    with new(file, found.schema) as writer:
        writer.write_table(found, max_chunksize=2)
    return file.getvalue()


def arrow_file(rows: list[dict[str, Any]]) -> bytes:
    return arrow(rows, pa.ipc.new_file)


def tar(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as shard:
        for row in rows:
            for key, value in row.items():
                member = tarfile.TarInfo(f"{row['id']}.{key}")
                member.size = len(value.encode())
                shard.addfile(member, io.BytesIO(value.encode()))
    return file.getvalue()


PLAIN = {
    "a.json": json_list,
    "a.jsonl": json_lines,
    "a.csv": table(","),
    "b.csv": table(";"),
    "a.tsv": table("\t"),
    "a.parquet": parquet,
    "a.arrow": arrow,
    "b.arrow": arrow_file,
    "a.tar": tar,
}
PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress} | {
    ".zst": lambda content: zstandard.compress(content)
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITUNE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("packed", ["", *PACKED])
@pytest.mark.parametrize("name", PLAIN)
def test_the_same_records_are_found_in_each_and_found_again(
    tmp_path: Path, name: str, packed: str
) -> None:
    path = tmp_path / (name + packed)
    content = PLAIN[name](ROWS)
    path.write_bytes(PACKED[packed](content) if packed else content)
    container = container_of(path)
    found = list(container.scan_contents(path))
    values = [dict(value) for _, _, value, _ in found]
    keys = [value.pop("__key__", None) for value in values]
    assert values == ROWS
    assert [(start, length) for start, length, *_ in found] == [
        (start, length) for start, length, _ in container.scan(path)
    ]
    for (start, length, value, told), row, key in list(zip(found, ROWS, keys, strict=True))[::-1]:
        assert container.content(path, start, length) == told
        assert container.value(told) == value
        if key is None:
            assert container.stored(path, start, length, ["answer"]) == row["answer"]
        else:  # a file of a shard is bytes
            assert container.stored(path, start, length, ["answer"]).decode() == row["answer"]
    if packed:
        assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
        assert path.name in {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize("packed", ["", *PACKED])
@pytest.mark.parametrize("name", PLAIN)
def test_half_a_file_is_named(tmp_path: Path, name: str, packed: str) -> None:
    path = tmp_path / (name + packed)
    content = PLAIN[name](ROWS * 40)
    content = PACKED[packed](content) if packed else content
    path.write_bytes(content[: len(content) // 2 - 3])
    with pytest.raises(UserError) as error:
        list(container_of(path).scan(path))
    assert str(path) in str(error.value)
    assert "cache" not in str(error.value).replace(str(path), "")


def test_every_suffix_is_of_one_container() -> None:
    assert len(suffixes()) == len(set(suffixes()))


NUMBERS = itertools.count()
FILES = [write(ROWS) for write in PLAIN.values()] + [
    pack(write(ROWS)) for pack in PACKED.values() for write in PLAIN.values()
]


@pytest.mark.parametrize("name", CONTAINERS)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_only_sentences_come_out_of_junk(tmp_path: Path, name: str, data: Any) -> None:
    """Random bytes, and files with some of their bytes changed."""
    content = data.draw(st.binary(max_size=600) | st.sampled_from(FILES))
    changes = data.draw(
        st.lists(
            st.tuples(st.integers(0, max(0, len(content) - 1)), st.integers(0, 255)), max_size=4
        )
    )
    junk = bytearray(content)
    for place, value in changes if junk else ():
        junk[place] = value
    # Each has a name of its own: two of one length may bear the same time, on a fast machine.
    path = tmp_path / f"junk-{next(NUMBERS)}"
    path.write_bytes(junk)
    container = CONTAINERS[name]
    container.recognises(bytes(junk[:1000]))
    try:
        for start, length, _, told in container.scan_contents(path):
            assert container.content(path, start, length) == told
    except (UserError, OSError):
        pass
