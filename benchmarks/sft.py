"""Stage E against the engine that people would otherwise use.

    python -m benchmarks.sft [--workloads tiny,long,30m] [--rounds 5] [--steps 10] [--json FILE]

One process for each version, so that its peak memory is its own; they take turns, and medians
are compared. Every version trains the same samples of the same model, eight a step.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.versions import VERSIONS, WARM_UP, Omnitune
from benchmarks.workload import BATCH_SIZE, WORKLOADS, Bench, corpus_folder, make
from omnitune.data.batching import pack

TRAINER, OMNITUNE = list(VERSIONS)[:2]
EPOCHS = 5  # of the usual configuration: over so many the one pass of the encoders is spread
PEAK_SIZE = 2048  # side of the matrix product that is taken as the peak


def peak_flops(dtype: torch.dtype, rounds: int = 5) -> float:
    """Best rate (FLOP/s) of a square matrix product; 0 where it is hopelessly slow."""
    small = torch.randn(256, 256).to(dtype)
    started = time.perf_counter()
    small @ small
    if time.perf_counter() - started > 0.5:
        return 0.0
    a = torch.randn(PEAK_SIZE // (1 if dtype == torch.float32 else 4), PEAK_SIZE).to(dtype)
    b = torch.randn(PEAK_SIZE, PEAK_SIZE).to(dtype)
    best = 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        a @ b
        flops = 2 * a.shape[0] * PEAK_SIZE * PEAK_SIZE
        best = max(best, flops / (time.perf_counter() - started))
    return best


def step_flops(bench: Bench, first: int, steps: int) -> tuple[float, float]:
    """Useful FLOPs and supervised tokens a step: no padding, no unread logit, no encoder.

    Six for each weight and token (forward two, backward four), and causal attention.
    """
    reader = bench.reader()
    thinker = bench.model.thinker
    hidden = sum(p.numel() for n, p in thinker.named_parameters() if "layers" in n)
    head = thinker.get_output_embeddings().weight.numel()
    settings = thinker.config
    width = settings.num_attention_heads * settings.head_dim
    total = supervised = 0.0
    for k in range(first, first + steps * BATCH_SIZE):
        item = reader.item(bench.sample(k))
        batch = pack([item])
        tokens = len(batch.tokens_T)
        total += 6 * (hidden * tokens + head * len(batch.labels_N))
        total += 6 * settings.num_hidden_layers * width * tokens**2
        for name, rows in batch.media.items():
            weights = sum(p.numel() for p in bench.model.projector(name).parameters())
            total += 6 * weights * len(rows.slots_R)
        supervised += len(batch.labels_N)
    return total / steps, supervised / steps


def serve(pipe: Connection, name: str, workload: str, data: str, alone: bool, bf16: bool) -> None:
    """One version in a process of its own: runs as many steps as it is sent."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    version = VERSIONS[name](make(WORKLOADS[workload], Path(data)), alone, bf16)
    pipe.send(version.encoding_seconds if isinstance(version, Omnitune) else 0.0)
    while (asked := pipe.recv()) is not None:
        timing = version.run(*asked)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pipe.send((timing.seconds, dict(timing.parts), peak))


def compare(workload: str, data: Path, alone: bool, rounds: int, steps: int) -> dict[str, Any]:
    """Runs all versions of a workload by turns; medians by version."""
    peaks = {str(d).removeprefix("torch."): peak_flops(d) for d in (torch.float32, torch.bfloat16)}
    bf16 = peaks["bfloat16"] > peaks["float32"]
    if not bf16:  # no bf16 units: a share of such a peak would say nothing
        peaks["bfloat16"] = 0.0
    context = multiprocessing.get_context("spawn")
    pipes, processes, encoding = {}, [], {}
    for name in VERSIONS:
        pipes[name], theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, name, workload, str(data), alone, bf16), daemon=True
        )
        process.start()
        processes.append(process)
        encoding[name] = pipes[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in VERSIONS}
    parts: dict[str, dict[str, float]] = {name: {} for name in VERSIONS}
    memory: dict[str, float] = {}
    for turn in range(rounds):
        first = turn * (WARM_UP + steps) * BATCH_SIZE
        for name, pipe in pipes.items():
            pipe.send((first, steps))
            taken, by_part, memory[name] = pipe.recv()
            seconds[name].append(statistics.fmean(taken))
            for part, spent in by_part.items():
                spread = spent / (rounds * steps)
                parts[name][part] = parts[name].get(part, 0.0) + spread
    for pipe in pipes.values():
        pipe.send(None)
    bench = make(WORKLOADS[workload], data)
    flops, supervised = step_flops(bench, 0, rounds * (WARM_UP + steps))
    epoch = bench.mixture.epoch_size / BATCH_SIZE  # steps
    rows = {}
    for name in VERSIONS:
        step = statistics.median(seconds[name]) + encoding[name] / (EPOCHS * epoch)
        rows[name] = {
            "samples_per_second": BATCH_SIZE / step,
            "supervised_tokens_per_second": supervised / step,
            "flops_share": {d: flops / step / peak if peak else None for d, peak in peaks.items()},
            "peak_memory_mb": memory[name],
            "step_seconds": seconds[name],
            "parts": shares(parts[name], encoding[name] / (EPOCHS * epoch)),
        }
    ratio = rows[OMNITUNE]["samples_per_second"] / rows[TRAINER]["samples_per_second"]
    return {"peaks": peaks, "bf16": bf16, "versions": rows, "speedup_vs_trainer": ratio}


def shares(parts: dict[str, float], encoders: float) -> dict[str, float]:
    """Share of a step's time (seconds) by part, the spread cost of the encoders among them."""
    if not parts:
        return {}
    whole = sum(parts.values()) + encoders
    return {name: spent / whole for name, spent in ({"encoders": encoders} | parts).items()}


def show(workload: str, found: dict[str, Any]) -> None:
    """Prints the table of a workload."""
    table = Table(title=f"{workload}: stage E, batches of {BATCH_SIZE}, medians")
    table.add_column("version", no_wrap=True)
    for title in ("samples/s", "x Trainer", "supervised tok/s", "of fp32 peak", "of bf16 peak"):
        table.add_column(title, justify="right")
    table.add_column("MB", justify="right")
    table.add_column("time by part")
    slowest = found["versions"][TRAINER]["samples_per_second"]
    for name, row in found["versions"].items():
        share = row["flops_share"]
        table.add_row(
            name,
            f"{row['samples_per_second']:.1f}",
            f"{row['samples_per_second'] / slowest:.2f}",
            f"{row['supervised_tokens_per_second']:.0f}",
            *(f"{share[d]:.0%}" if share[d] else "-" for d in ("float32", "bfloat16")),
            f"{row['peak_memory_mb']:.0f}",
            ", ".join(f"{part} {s:.0%}" for part, s in row["parts"].items()),
        )
    Console(width=150).print(table)
    peaks = ", ".join(f"{d} {p / 1e9:.0f} GFLOP/s" for d, p in found["peaks"].items())
    print(f"matrix product: {peaks}; Trainer in {'bf16' if found['bf16'] else 'fp32'}")


def main() -> None:
    """Reads the options, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--data", type=Path, help="folder of a corpus [a small one is made]")
    parser.add_argument(
        "--alone", action="store_true", help="each question alone with its medium, as stage E does"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    data = options.data or corpus_folder()
    results = {}
    for workload in options.workloads.split(","):
        results[workload] = compare(workload, data, options.alone, options.rounds, options.steps)
        show(workload, results[workload])
    summary = {name: found["speedup_vs_trainer"] for name, found in results.items()}
    print(
        "samples/s against the Trainer: " + ", ".join(f"{n} {r:.2f}x" for n, r in summary.items())
    )
    if options.json:
        values = {"speedup_vs_trainer": summary, "workloads": results}
        options.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
