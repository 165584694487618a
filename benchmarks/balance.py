"""How even the ranks of a step are: samples dealt by turns, and by what they cost.

    python -m benchmarks.balance [--ranks 2,4] [--steps 12] [--batch-size 16] [--json FILE]

The tiny model of random weights trains all its parts on samples that are really uneven: texts of
8 to 600 words, pictures, sounds of half a second to 12, in equal shares. Ranks are processes of one
thread that talk by gloo. Each step is computed twice, dealt either way, in alternation.

A rank's time is the processor's own for its forward and backward pass, so that other work on the
machine, and other ranks, do not count. What is told is the slowest rank's time over the mean:
with 1.25 the others wait for a fifth of the step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.distributed as dist
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.command import Arguments, command, numbers
from benchmarks.workload import WORKLOADS, build_model
from omnitune.data.loader import SampleReader, take
from omnitune.data.packing import Item, Shard, pack
from omnitune.data.template import ChatRenderer
from omnitune.models.omni import OmniModel
from omnitune.sample import Media, Message, Sample, Text
from omnitune.storage import write_json

DEALINGS = ("by turns", "by cost")
WORDS = [a + b + c for a in "bdfglmnprst" for b in "aeiou" for c in ("", "n", "r")]
KINDS = ("text", "image", "audio")
PATIENCE = 600.0  # seconds that a rank has


def uneven_samples(folder: Path, count: int) -> list[Sample]:
    """Texts, pictures and sounds in equal shares and mixed order, their sizes as chance has it."""
    return [_sample(folder, n, random.Random(n)) for n in range(count)]


def _sample(folder: Path, number: int, draw: random.Random) -> Sample:
    kind = draw.choice(KINDS)
    noise, parts = np.random.default_rng(number), list[Any]()
    if kind == "image":
        path = folder / f"{number}.png"
        pixels = noise.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        parts.append(Media(kind, path))
    if kind == "audio":
        path = folder / f"{number}.wav"
        soundfile.write(path, noise.uniform(-0.1, 0.1, _size(draw, 8_000, 192_000)), 16_000)
        parts.append(Media(kind, path))
    longest = 600 if kind == "text" else 40
    said = " ".join(draw.choices(WORDS, k=_size(draw, 8, longest)))
    question, answer = Message("user", (*parts, Text("what?"))), Message("assistant", (Text(said),))
    return Sample(f"{kind}-{number}", kind, (question, answer), "text", "train")


def _size(draw: random.Random, least: int, most: int) -> int:
    """A size of which each doubling is as likely as another."""
    return round(least * (most / least) ** draw.random())


def shares(samples: list[list[Item]], dealing: str, rank: int, of: int) -> list[list[Item]]:
    """What a rank computes of a batch."""
    return samples[rank::of] if dealing == DEALINGS[0] else take(samples, Shard(rank, of))


def seconds_of(model: OmniModel, samples: Sequence[Sequence[Item]]) -> float:
    """Time of this thread for the forward and backward pass of some samples."""
    if not samples:
        return 0.0
    batch = pack([item for items in samples for item in items], 1)
    started = time.thread_time()
    loss_G, _ = model(batch)
    loss_G.sum().backward()
    spent = time.thread_time() - started
    model.zero_grad(set_to_none=True)
    return spent


def rank_of(
    rank: int, of: int, store: str, model: OmniModel, batches: list[list[list[Item]]], pipe: Any
) -> None:
    """Sends, by dealing, the times of all ranks in each step; rank 0 does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=of)
    found: dict[str, list[list[float]]] = {name: [] for name in DEALINGS}
    for samples in batches[:1]:  # what is made at the first pass
        seconds_of(model, shares(samples, DEALINGS[1], rank, of))
    for step, samples in enumerate(batches):
        for name in DEALINGS[:: 1 - 2 * (step % 2)]:
            spent = torch.tensor([seconds_of(model, shares(samples, name, rank, of))])
            everyone = [torch.zeros(1) for _ in range(of)]
            dist.all_gather(everyone, spent)
            found[name].append([float(each) for each in everyone])
    if rank == 0:
        pipe.send(found)
    pipe.close()
    os._exit(0)  # gloo sometimes aborts when a process ends


def measure(ranks: int, model: OmniModel, batches: list[list[list[Item]]]) -> dict[str, Any]:
    """By dealing, the time of each rank in each step; raises EOFError where a rank was lost."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        work = partial(rank_of, of=ranks, store=f"{folder}/store", model=model, batches=batches)
        others = [
            context.Process(target=work, kwargs={"rank": n, "pipe": theirs}) for n in range(ranks)
        ]
        for other in others:
            other.start()
        theirs.close()
        try:
            if not ours.poll(PATIENCE * len(batches)):
                raise TimeoutError(f"{ranks} ranks have not ended")
            found: dict[str, Any] = ours.recv()
        finally:
            for other in others:
                other.join(5)
                other.kill()
    return found


def make_batches(folder: Path, steps: int, size: int) -> tuple[OmniModel, list[list[list[Item]]]]:
    """The model, and the samples of each step, ready to be packed."""
    samples = uneven_samples(folder, steps * size)
    model, tokenizer = build_model(WORKLOADS["tiny"], samples)
    reader = SampleReader(ChatRenderer(tokenizer), model.modalities, None, 4096)
    items = [[reader.item(sample)] for sample in samples]
    return model, [items[n * size : (n + 1) * size] for n in range(steps)]


def spreads(times: Sequence[Sequence[float]]) -> list[float]:
    """Of each step, the slowest rank's time over the mean."""
    return [max(step) / statistics.mean(step) for step in times]


def rows(found: dict[int, dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A line of the table for each number of ranks and dealing."""
    for ranks, by_dealing in found.items():
        for name, times in by_dealing.items():
            each = spreads(times)
            whole = sum(map(max, times)) / sum(map(statistics.mean, times))
            yield (
                str(ranks),
                name,
                f"{statistics.median(each):.2f}",
                f"{max(each):.2f}",
                f"{1 - 1 / whole:.0%}",
            )


@command
def main(arguments: Arguments = None) -> None:
    """Measures, and prints each step and a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balance")
    parser.add_argument("--ranks", default="2,4", help="numbers of ranks [default: %(default)s]")
    parser.add_argument("--steps", type=int, default=12, help="steps [default: %(default)s]")
    parser.add_argument("--batch-size", type=int, default=16, help="samples [default: %(default)s]")
    parser.add_argument("--json", type=Path, help="where to write the times")
    options = parser.parse_args(arguments)
    console, found = Console(), dict[int, dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        model, batches = make_batches(Path(folder), options.steps, options.batch_size)
        for ranks in numbers("--ranks", options.ranks):
            found[ranks] = measure(ranks, model, batches)
            by_step = zip(*(spreads(found[ranks][name]) for name in DEALINGS), strict=True)
            for step, (turns, cost) in enumerate(by_step, 1):
                console.print(
                    f"{ranks} ranks, step {step}: {DEALINGS[0]} {turns:.2f}, "
                    f"{DEALINGS[1]} {cost:.2f}",
                    highlight=False,
                )
    table = Table("ranks", "dealt", "slowest / mean, median", "worst step", "of the time waited")
    for row in rows(found):
        table.add_row(*row)
    console.print(table)
    if options.json:
        write_json(options.json, {str(ranks): times for ranks, times in found.items()})


if __name__ == "__main__":
    raise SystemExit(main())
