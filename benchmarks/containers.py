"""Writes records into the containers whose growth is measured."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

Record = dict[str, Any]
ROWS = 1000  # of a row group
SHARD = 10_000  # records of a shard: a million are a hundred shards


def _json(path: Path, records: Iterable[Record]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for n, record in enumerate(records):
            file.write(("[\n" if n == 0 else ",\n") + json.dumps(record))
        file.write("\n]\n")


def _jsonl(path: Path, records: Iterable[Record]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def _parquet(path: Path, records: Iterable[Record]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rest = iter(records)
    writer = None
    while rows := list(islice(rest, ROWS)):
        table = pa.Table.from_pylist(rows)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _tar(path: Path, records: Iterable[Record]) -> None:
    """Shards beside each other, as people have them: ``name-000.tar`` and so on."""
    rest = enumerate(records)
    number = 0
    while some := list(islice(rest, SHARD)):
        with tarfile.open(path.with_name(f"{path.stem}-{number:03d}.tar"), "w") as shard:
            for n, record in some:
                content = json.dumps(record).encode()
                member = tarfile.TarInfo(f"{n:08d}.json")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
                shard.members = []  # type: ignore[attr-defined]  # else all stay in memory
        number += 1


WRITERS: dict[str, Callable[[Path, Iterable[Record]], None]] = {
    "json": _json,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "tar": _tar,
}
