"""How fast answers come.

    python -m benchmarks.inference [--rounds 20] [--tokens 48] [--batch 32] [--json FILE]

The tiny model with random weights: how long an answer is does not depend on what was learnt, as
no token is taken for the end. Media are read and encoded anew for every answer, as in a chat.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.command import Arguments, command
from benchmarks.workload import WORKLOADS, Bench, corpus_folder, make
from omnitune.data.packing import Item
from omnitune.generation import stream
from omnitune.sample import Message, Sample
from omnitune.storage import write_json

NEVER: tuple[int, ...] = ()  # no token ends an answer


def answer(bench: Bench, prompts: Sequence[Sequence[Message]], tokens: int) -> tuple[float, float]:
    """Seconds to the first token, media read and encoded, and tokens a second after it."""
    started = time.perf_counter()
    reader = bench.reader()
    items: list[Item] = [reader.prompt(str(n), turns) for n, turns in enumerate(prompts)]
    moments = []
    for _ in stream(bench.model, items, NEVER, tokens):
        moments.append(time.perf_counter())
    rate = len(prompts) * (len(moments) - 1) / (moments[-1] - moments[0])
    return moments[0] - started, rate


def prompts_of(samples: Sequence[Sample], count: int) -> list[tuple[Message, ...]]:
    """The first questions of so many samples, in turn."""
    return [samples[n % len(samples)].messages[:1] for n in range(count)]


def measure(bench: Bench, rounds: int, tokens: int, batch: int) -> dict[str, dict[str, float]]:
    """Medians over rounds in which the kinds of prompt take turns."""
    bench.model.eval()
    kinds = {f"{name}, one": prompts_of(found, 1) for name, found in bench.training.items()}
    mixed = [sample for found in bench.training.values() for sample in found[:batch]]
    kinds[f"mixed, {batch} together"] = prompts_of(mixed[:: len(bench.training)], batch)
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for turn in range(rounds + 1):
        for kind, prompts in kinds.items():
            timing = answer(bench, prompts, tokens)
            if turn:  # the first warms up
                found[kind].append(timing)
    return {
        kind: {
            "first_token_ms": 1e3 * statistics.median(first for first, _ in timings),
            "tokens_per_second": statistics.median(rate for _, rate in timings),
        }
        for kind, timings in found.items()
    }


def show(results: dict[str, dict[str, float]]) -> None:
    """Prints the table."""
    table = Table(title="greedy decoding with a key-value cache, medians")
    table.add_column("prompt", no_wrap=True)
    table.add_column("first token (ms)", justify="right")
    table.add_column("tokens/s", justify="right")
    for kind, row in results.items():
        table.add_row(kind, f"{row['first_token_ms']:.0f}", f"{row['tokens_per_second']:.0f}")
    Console(width=100).print(table)


@command
def main(arguments: Arguments) -> None:
    """Reads the options, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=48, help="length of every answer")
    parser.add_argument("--batch", type=int, default=32, help="prompts that are answered together")
    parser.add_argument("--data", type=Path, help="folder of a corpus [a small one is made]")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    bench = make(WORKLOADS["tiny"], options.data or corpus_folder())
    results: dict[str, Any] = measure(bench, options.rounds, options.tokens, options.batch)
    show(results)
    if options.json:
        write_json(options.json, {"inference": results})


if __name__ == "__main__":
    sys.exit(main())
