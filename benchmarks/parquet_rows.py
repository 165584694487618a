"""Media in Parquet, read in random order: milliseconds a row and memory.

    python -m benchmarks.parquet_rows [--shards 4] [--rows 2000] [--kilobytes 100] [--reads 200]
                                      [--groups 100,1000] [--codecs snappy,zstd] [--json FILE]

Each shard has so many rows of random bytes, which no codec makes smaller, as no codec does with
pictures. A process of its own reads rows of all shards in random order, the record and its medium:
first with an empty cache, then the same rows again in another process. Memory is ``RssAnon`` (no
mapped file), its growth over what pyarrow and the open shards take.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.command import Arguments, command, numbers
from omnitune.containers.registry import container_of
from omnitune.storage import write_json


def write_shards(folder: Path, shards: int, rows: int, size: int, group: int, codec: str) -> None:
    """Shards as the Hub has them: an id, a caption and a picture as bytes with its name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("id", pa.string()), ("caption", pa.string()), ("image", kind)])
    draw = random.Random(0)
    for shard in range(shards):
        with pq.ParquetWriter(folder / f"{shard}.parquet", schema, compression=codec) as writer:
            for start in range(0, rows, group):
                names = [f"{shard}-{n}" for n in range(start, min(start + group, rows))]
                found = [
                    {
                        "id": name,
                        "caption": f"the picture {name}",
                        "image": {"bytes": draw.randbytes(size), "path": f"{name}.png"},
                    }
                    for name in names
                ]
                writer.write_table(pa.Table.from_pylist(found, schema))


def memory() -> float:
    """Anonymous memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def read(folder: Path, reads: int) -> dict[str, float]:
    """Reads rows in random order; seconds of all, and the most memory."""
    places = []
    for path in sorted(folder.glob("*.parquet")):
        container = container_of(path)
        places += [(container, path, start, row) for start, row, _ in container.scan(path)]
    wanted = random.Random(1).choices(places, k=reads)
    before, most, began, busy = memory(), 0.0, time.perf_counter(), time.process_time()
    for container, path, start, row in wanted:
        name = json.loads(container.content(path, start, row))["image"]["path"]
        assert name.startswith(f"{path.stem}-")
        assert container.stored(path, start, row, ["image", "bytes"])
        most = max(most, memory() - before)
    spent, used = time.perf_counter() - began, time.process_time() - busy
    return {"ms": 1000 * spent / reads, "cpu_ms": 1000 * used / reads, "mb": most}


def measure(options: argparse.Namespace, group: int, codec: str) -> dict[str, Any]:
    """Both readings of one kind of shards."""
    folder = Path(tempfile.mkdtemp(prefix="omnitune-parquet-"))
    try:
        size = 1000 * options.kilobytes
        write_shards(folder, options.shards, options.rows, size, group, codec)
        environment = {**os.environ, "OMNITUNE_CACHE": str(folder / "cache")}
        call = [sys.executable, "-m", "benchmarks.parquet_rows", "--reads", str(options.reads)]
        passes = []
        for _ in range(2):  # its figures are judged, not how it ends: pyarrow may abort at exit
            told = subprocess.run(
                [*call, "--read", folder], env=environment, stdout=subprocess.PIPE
            )
            passes.append(json.loads(told.stdout))
        cache = sum(file.stat().st_size for file in folder.rglob("cache/**/*") if file.is_file())
        return {"first": passes[0], "again": passes[1], "cache_mb": cache / 1e6}
    finally:
        shutil.rmtree(folder)


def show(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints the table."""
    title = f"{options.shards} shards of {options.rows} rows of {options.kilobytes} kB"
    table = Table(title=f"{title}, {options.reads} read in random order")
    heads = ("first (ms a row)", "processor", "memory (MB)", "again (ms a row)", "processor")
    for head in ("rows a group", *heads, "memory (MB)", "cache (MB)"):
        table.add_column(head, justify="right")
    for name, row in found.items():
        cells = [f"{row[of][key]:,.2f}" for of in ("first", "again") for key in row[of]]
        table.add_row(name, *cells, f"{row['cache_mb']:,.0f}")
    Console(width=140).print(table)


@command
def main(arguments: Arguments) -> None:
    """Reads the options, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2000, help="of a shard")
    parser.add_argument("--kilobytes", type=int, default=100, help="of a picture")
    parser.add_argument("--reads", type=int, default=200)
    parser.add_argument("--groups", default="100,1000", help="rows of a row group")
    parser.add_argument("--codecs", default="snappy,zstd")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # of the processes it starts
    options = parser.parse_args(arguments)
    if options.read:
        print(json.dumps(read(options.read, options.reads)))
        return
    found = {
        f"{group} {codec}": measure(options, group, codec)
        for group in numbers("--groups", options.groups)
        for codec in options.codecs.split(",")
    }
    show(found, options)
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    sys.exit(main())
