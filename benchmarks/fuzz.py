"""Feeds the readers of data files with mutated bytes, guided by coverage, until time is up.

    pip install atheris
    python -m benchmarks.fuzz [--seconds 600] [--seeds DIR]

A file of the bytes goes the whole way: container, dialect, samples. It may end in samples or in a
``UserError`` or ``OSError``; anything else is a find, which is printed with the bytes that made it.
Finds become tests. Seeds are files of every format, those of ``tests/foreign`` by default.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path

import atheris

from omnitune.sample import UserError
from omnitune.sources import Source

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".tar", ".parquet", ".arrow", ".txt", "")
MOST_BYTES = 1 << 16
TEXTS = (
    '[{"image": "a.png", "conversations": [{"from": "human", "value": "<image> a"}, '
    '{"from": "gpt", "value": "b"}]}]',
    '{"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": '
    '{"data": "UklGRg==", "format": "wav"}}]}, {"role": "assistant", "content": "b"}]}\n',
    '{"audio_filepath": "a.wav", "offset": 1.5, "duration": 2, "text": "b"}\n',
    '{"instruction": "a", "input": "", "output": "b", "history": [["c", "d"]]}\n',
    '{"prompt": "a", "completion": "b", "images": ["a.png"]}\n',
    '{"query": "<img>a.png</img>a", "response": "b", "history": []}\n',
    "client_id\tpath\tsentence\nx\ta.mp3\tb\n",
    '{"question": "a", "answers": ["b", "c"], "choices": {"A": "b", "B": "c"}}\n',
)


def read_as_samples(folder: Path) -> Callable[[bytes], None]:
    """What reads bytes as a source's file; its first byte chooses the suffix."""
    from omnitune.data.reading import read_source

    def read(content: bytes) -> None:
        if not content:
            return
        path = folder / f"data{SUFFIXES[content[0] % len(SUFFIXES)]}"
        path.write_bytes(content[1:])
        with redirect_stderr(StringIO()), suppress(UserError, OSError):
            for sample in read_source(None, Source("fuzzed", path=str(path))):
                sample.split_turns()

    return read


def write_seeds(folder: Path, given: Path) -> None:
    """One file a seed: its suffix's number, and its content."""
    files = [path for path in sorted(given.rglob("*")) if path.is_file()]
    for n, path in enumerate(files):
        content = path.read_bytes()
        if len(content) < MOST_BYTES:
            suffix = path.suffix if path.suffix in SUFFIXES else ""
            (folder / f"file-{n}").write_bytes(bytes([SUFFIXES.index(suffix)]) + content)
    for n, text in enumerate(TEXTS):
        suffix = 0 if text.startswith("[") else 3 if "\t" in text else 1
        (folder / f"text-{n}").write_bytes(bytes([suffix]) + text.encode())


def main() -> None:
    """Runs until time is up or something is found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seeds", type=Path, default=Path(__file__).parents[1] / "tests/foreign")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, seeds = Path(made), Path(made) / "seeds"
        seeds.mkdir()
        os.environ["OMNITUNE_CACHE"] = str(folder / "cache")
        write_seeds(seeds, options.seeds)
        with atheris.instrument_imports(include=["omnitune.data", "omnitune.containers"]):
            read = read_as_samples(folder)
        words = [f"-max_total_time={options.seconds}", f"-max_len={MOST_BYTES}", str(seeds)]
        atheris.Setup([sys.argv[0], *words], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
