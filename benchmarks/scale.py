"""Growth with the number of records: start-up, memory, samples/s and resuming.

    python -m benchmarks.scale [--sizes 10000,100000,1000000] [--rounds 5] [--steps 20]
                               [--containers json,jsonl,parquet,tar] [--json FILE]

Each size has a data folder of generated records that share 64 media. It is started three times,
each time in a fresh process with the tiny model of random weights: the first indexes the records
and encodes the media; the second finds both kept; the third goes on from a checkpoint at nine
tenths of the run. The second processes of all sizes take turns in training; medians are compared.

Times are from the launch of a process to the end of its first step, the import of libraries
included; on a busy machine look at the processor's time instead, which holds the first scores on
held-out questions as well. Memory is ``RssAnon`` (what the kernel cannot drop, so no mapped file),
the largest found after the first step and after each round, scores included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.command import Arguments, command, numbers
from benchmarks.containers import WRITERS
from benchmarks.workload import BATCH_SIZE, WEIGHTS, WORKLOADS, build_model
from omnitune.config.sft import DataMix, SftConfig
from omnitune.console import progress_bar
from omnitune.data.feature_cache import FEATURES_FOLDER
from omnitune.data.index import INDEX_FOLDER
from omnitune.models.loading import save_encoder, save_thinker
from omnitune.sample import Message, Sample, Text, UserError
from omnitune.sources import SOURCES
from omnitune.storage import write_json
from omnitune.training import checkpoint
from omnitune.training.loop import train
from omnitune.training.output_dir import prepare_output_dir
from omnitune.training.run import Run
from omnitune.training.sft import build_training

MEDIA = 32  # of each kind
SYLLABLES = [a + b for a in "bdfglmnprst" for b in ("a", "e", "i", "o", "u", "an", "el", "ir")]
LATE = 0.9  # of the run: where it is gone on from


def make_data(size: int, container: str = "json") -> Path:
    """A folder of so many records, their media and the three parts; made once and kept."""
    folder = Path(tempfile.gettempdir()) / f"omnitune-scale-{size}-{container}"
    if (folder / "done").exists():
        return folder
    for source in WEIGHTS:
        (folder / SOURCES[source].file).parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for n in range(MEDIA):
        pixels = noise.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{n}.png")
        wave = noise.uniform(-0.1, 0.1, 16_000 + 1000 * n)
        soundfile.write(folder / "audio" / f"{n}.wav", wave, 16_000)
    with progress_bar(f"writing {size} records", size) as advance:
        for source, share in WEIGHTS.items():
            path = (folder / SOURCES[source].file).with_suffix(f".{container}")
            count = round(size * share)
            WRITERS[container](path, records(source, count))
            advance(count)
    save_parts(folder)
    (folder / "done").touch()
    return folder


def records(source: str, count: int) -> Iterator[dict[str, Any]]:
    """Records of a source, two questions each; the first ones are the same for every count."""
    for n in range(count):
        draw = random.Random(f"{source}/{n}")
        qa = [
            {"question": f"{_words(draw, 4, 12)}?", "answer": _words(draw, 1, 8)} for _ in range(2)
        ]
        record: dict[str, Any] = {"id": f"{source}-{n}", "qa": qa}
        if source == "image_text":
            record |= {"image": f"{n % MEDIA}.png"}
        if source == "audio_text":
            record |= {"audio": f"{n % MEDIA}.wav", "task": "transcription"}
        yield record


def _words(draw: random.Random, least: int, most: int) -> str:
    count = draw.randint(least, most)
    return " ".join("".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(count))


def save_parts(folder: Path) -> None:
    """The tiny model's parts, of random weights, as stages A to C would leave them."""
    samples = [
        Sample(record["id"], source, (Message("user", (Text(pair["question"]),)),), "text", "train")
        for source in WEIGHTS
        for record in records(source, 500)
        for pair in record["qa"]
    ]
    model, tokenizer = build_model(WORKLOADS["tiny"], samples)
    save_thinker(folder / "thinker.pt", model, tokenizer)
    for name, modality in model.modalities.items():
        state = model.encoders[name].state_dict()
        save_encoder(folder / f"{name}.pt", name, modality.config, state)


def settings(folder: Path) -> SftConfig:
    """The run of a folder; samples of shards are none of the embedded layout."""
    shards = {f"{name}_shards": folder / SOURCES[name].file for name in WEIGHTS}
    own = {
        name: {
            "path": str(path.with_name(f"{path.stem}-*.tar")),
            "weight": WEIGHTS[name.removesuffix("_shards")],
        }
        for name, path in shards.items()
        if any(path.parent.glob(f"{path.stem}-*.tar"))
    }
    where: dict[str, Any] = {"sources": own} if own else {"data_mix": DataMix(**WEIGHTS)}
    return SftConfig(
        **where,
        data_dir=folder,
        output_dir=folder / "run",
        thinker_ckpt=folder / "thinker.pt",
        vision_ckpt=folder / "image.pt",
        audio_ckpt=folder / "audio.pt",
        batch_size=BATCH_SIZE,
        epoch_questions=4,
        device="cpu",
    )


def memory() -> float:
    """Anonymous memory of this process that is in RAM, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def go_on(run: Run, steps: int) -> list[float]:
    """Trains some steps as stage E does, scores after them; the moments (s) between the steps."""
    marks: list[float] = []
    batch_at, score = run.batch_at, run.score

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        def marking(*arguments: Any) -> Any:
            marks.append(time.time())
            return function(*arguments)

        return marking

    run.batch_at, run.score = marked(batch_at), marked(score)
    run.plan.total_steps = run.step + steps
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        train(run)
    run.batch_at, run.score = batch_at, score
    return marks


def serve(pipe: Connection, folder: Path, resume: bool, launched: float) -> None:
    """One start in a process of its own: a first step, then as many steps as it is sent.

    At the end it leaves a checkpoint at ``LATE`` of the run.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = settings(folder)
    output = prepare_output_dir(config, config.out / "omni.pt", resume=resume, overwrite=not resume)
    assert output is not None
    output.open()
    run = build_training(config, resume).run
    late = round(LATE * run.plan.total_steps)
    started_at = run.step
    stepped = go_on(run, 1)[-1]
    said = {"seconds": stepped - launched, "cpu": time.process_time()}
    pipe.send({**said, "step": started_at, "memory": memory()})
    while steps := pipe.recv():
        marks = go_on(run, steps)
        pipe.send({"step_seconds": np.diff(marks).tolist(), "memory": memory()})
    run.step = late
    checkpoint.save(run)
    checkpoint.finish_saving(run)
    pipe.send(None)


class Start:
    """A start in a process of its own.

    Attributes:
        first: what it said after its first step.
    """

    def __init__(self, folder: Path, resume: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, folder, resume, time.time())
        self._process = context.Process(target=serve, args=arguments)
        self._process.start()
        theirs.close()  # so that its end is seen here
        self.first: dict[str, Any] = self._pipe.recv()

    def train(self, steps: int) -> dict[str, Any]:
        """Trains some steps; returns their seconds and the memory after them."""
        self._pipe.send(steps)
        return self._pipe.recv()

    def end(self) -> None:
        """Has the process leave a late checkpoint and end."""
        self._pipe.send(0)
        self._pipe.recv()
        self._process.join()


def measure(
    sizes: list[int], rounds: int, steps: int, containers: Sequence[str] = ("json",)
) -> dict[str, Any]:
    """All figures, by size and container."""
    os.environ["OMNITUNE_CACHE"] = str(Path(tempfile.gettempdir()) / "omnitune-scale-cache")
    shutil.rmtree(os.environ["OMNITUNE_CACHE"], ignore_errors=True)
    folders = {f"{n} {kind}": make_data(n, kind) for n in sizes for kind in containers}
    indexing = {}
    for size, folder in folders.items():
        for kept in (INDEX_FOLDER, FEATURES_FOLDER):
            shutil.rmtree(folder / kept, ignore_errors=True)
        start = Start(folder)
        indexing[size] = start.first
        start.end()
    running = {size: Start(folder) for size, folder in folders.items()}
    told: dict[str, list[dict[str, Any]]] = {size: [] for size in folders}
    for _ in range(rounds):
        for size, start in running.items():
            told[size].append(start.train(steps))
    found = {}
    for size, start in running.items():
        start.end()
        resumed = Start(folders[size], resume=True)
        resumed.end()
        seconds = [s for each in told[size] for s in each["step_seconds"]]
        found[size] = {
            "first_start_seconds": indexing[size]["seconds"],
            "first_start_cpu_seconds": indexing[size]["cpu"],
            "start_seconds": start.first["seconds"],
            "start_cpu_seconds": start.first["cpu"],
            "memory_mb": max(each["memory"] for each in [start.first, *told[size]]),
            "samples_per_second": BATCH_SIZE / statistics.median(seconds),
            "resumed_at_step": resumed.first["step"],
            "resume_seconds": resumed.first["seconds"],
            "resume_cpu_seconds": resumed.first["cpu"],
        }
    return found


COLUMNS = {
    "first_start_seconds": "first start (s)",
    "first_start_cpu_seconds": "processor",
    "start_seconds": "start (s)",
    "start_cpu_seconds": "processor",
    "memory_mb": "memory (MB)",
    "samples_per_second": "samples/s",
    "resumed_at_step": "gone on from step",
    "resume_seconds": "going on (s)",
    "resume_cpu_seconds": "processor",
}


def show(found: dict[str, Any]) -> None:
    """Prints the table."""
    table = Table(title=f"stage E by number of records, batches of {BATCH_SIZE}, medians")
    for title in ("records", *COLUMNS.values()):
        table.add_column(title, justify="right")
    for size, row in found.items():
        cells = [f"{row[key]:,.1f}" if "." in str(row[key]) else f"{row[key]:,}" for key in COLUMNS]
        count, container = size.split()
        table.add_row(f"{int(count):,} {container}", *cells)
    Console(width=140).print(table)


@command
def main(arguments: Arguments) -> None:
    """Reads the options, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000,1000000", help="numbers of records")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round")
    parser.add_argument(
        "--containers", default="json", help=f"some of {','.join(WRITERS)} [default: json]"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    sizes = numbers("--sizes", options.sizes)
    containers = options.containers.split(",")
    if unknown := sorted({*containers} - {*WRITERS}):
        raise UserError(f"--containers: {unknown[0]} is none of {', '.join(WRITERS)}")
    found = measure(sizes, options.rounds, options.steps, containers)
    show(found)
    if options.json:
        write_json(options.json, {"sizes": found})


if __name__ == "__main__":
    sys.exit(main())
