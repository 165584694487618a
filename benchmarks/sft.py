"""Stage E against the engine that people would otherwise use.

    python -m benchmarks.sft [--workloads tiny,long,30m] [--rounds 5] [--steps 10] [--json FILE]
        [--versions "Trainer, padded rows|omnitune|omnitune, compiled"]
    python -m benchmarks.sft --workloads trio [--parts DIR]

One process for each version, so that its peak memory is its own; they take turns, and medians
are compared. Every version trains the same samples of the same model, eight a step. Where there
are bf16 units the Trainer and omnitune are first tried in both precisions, and each has its best.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import trio
from benchmarks.command import Arguments, command
from benchmarks.peak import matmul_rate
from benchmarks.trainer import WARM_UP
from benchmarks.versions import TRAINER, VERSIONS, choose
from benchmarks.workload import WORKLOADS, Bench, corpus_folder, make
from omnitune.config.sft import SftConfig
from omnitune.data.packing import pack, share_prefix
from omnitune.sample import UserError
from omnitune.storage import write_json
from omnitune.training.plan_lines import peak_resident

Version = tuple[str, bool]  # its name, and whether in bf16
Turns = tuple[
    dict[Version, list[float]],
    dict[Version, dict[str, float]],
    dict[Version, float],
    dict[Version, float],
]
COMPARED = list(VERSIONS)[:8]
SHARE = SftConfig.model_fields["multi_turn_prob"].default
UPKEEP, MAKE_ROOM = "upkeep", "make room"  # what a version is asked, beside for steps
PEAK_SECONDS = 1.0  # for measuring the matrix product that is taken as the peak


def step_flops(bench: Bench, share: float, steps: int) -> tuple[float, float]:
    """Useful FLOPs and supervised tokens a step: no padding, no unread logit, no encoder.

    Six for each weight and token (forward two, backward four; two of a frozen one), and causal
    attention.
    """
    reader = bench.reader()
    thinker = bench.model.thinker
    hidden = sum(_flops(p) for n, p in thinker.named_parameters() if "layers" in n)
    head = _flops(thinker.get_output_embeddings().weight)
    settings = thinker.config
    width = settings.num_attention_heads * settings.head_dim
    total = supervised = 0.0
    for k in range(steps * bench.batch_size):
        items = bench.items(reader, k, share)
        share_prefix(items)
        batch = pack(items)
        total += hidden * len(batch.tokens_T) + head * len(batch.labels_N)
        seen = sum(len(item.rendered.tokens) ** 2 - item.shared**2 for item in items)
        total += 6 * settings.num_hidden_layers * width * seen
        for name, rows in batch.media.items():
            weights = sum(p.numel() for p in bench.model.projector(name).parameters())
            total += 6 * weights * len(rows.slots_R)
        supervised += len(batch.labels_N)
    return total / steps, supervised / steps


def _flops(weight: nn.Parameter) -> int:
    """Of a step, for each token."""
    return (6 if weight.requires_grad else 4) * weight.numel()


def serve(
    pipe: Connection, version: Version, build: Callable[[], Bench], share: float, device: str
) -> None:
    """One version in a process of its own: runs as many steps as it is sent."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    bench = build()
    nn.Module.to(bench.model, device)
    name, bf16 = version
    served = VERSIONS[name](bench, share, bf16)
    try:
        pipe.send(served.encoding_seconds)
        while (asked := _next(pipe)) is not None:
            if asked == UPKEEP:
                pipe.send(served.upkeep())
                continue
            if asked == MAKE_ROOM:
                torch.cuda.empty_cache()
                continue
            first, steps = asked
            timing = served.run(first * bench.batch_size, steps)
            pipe.send((timing.seconds, dict(timing.parts), peak_memory()))
    finally:
        served.close()


def _next(pipe: Connection) -> Any:
    """What is asked for next; None when nothing will be."""
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        return None


def peak_memory() -> float:
    """Most memory (MB) that a version held so far: of its GPU, or of the machine.

    Memory that its processes share is counted in each of them.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    processes = ["self", *(child.pid or 0 for child in multiprocessing.active_children())]
    return sum(peak_resident(process) for process in processes) / 2**20


def compare(
    build: Callable[[], Bench],
    names: Sequence[str],
    rounds: int,
    steps: int,
    share: float = SHARE,
    device: str = "cpu",
) -> dict[str, Any]:
    """Runs versions by turns; medians by version.

    Args:
        build: makes the workload; it is called in each version's process.
        share: of the samples whose questions are one conversation; the others ask each alone.
        names: of ``VERSIONS``; if the first is the Trainer, the second is held against it.
    """
    bench = build()  # first, as it also writes what the other processes read
    types = (torch.float32, torch.bfloat16)
    peaks = {str(d).removeprefix("torch."): matmul_rate(d, device, PEAK_SECONDS) for d in types}
    bf16 = peaks["bfloat16"] > peaks["float32"] if bench.bf16 is None else bench.bf16
    if not bf16:  # no bf16 units: a share of such a peak would say nothing
        peaks["bfloat16"] = 0.0
    how = (share, device)
    best = dict.fromkeys(names[:2], bf16)
    if bench.bf16 is None and bf16:
        best = {name: _faster_in_bf16(build, name, steps, how) for name in names[:2]}
    ours = names[:2][-1]
    versions = [(name, best.get(name, best[ours])) for name in names]
    kept_up = ours if device == "cpu" and bench.drawn is None else None
    seconds, parts, encoding, memory = _take_turns(build, versions, rounds, steps, how, kept_up)
    flops, supervised = step_flops(bench, share, rounds * (WARM_UP + steps))
    rows: dict[str, dict[str, Any]] = {}
    for version in versions:
        name, half = version
        encoders = encoding[version] / (bench.passes * bench.epoch)
        alone = statistics.median(seconds[version])
        step = alone + encoders
        rows[name] = {
            "precision": "bf16" if half else "fp32",
            "samples_per_second": bench.batch_size / step,
            "supervised_tokens_per_second": supervised / step,
            "flops_share": {d: flops / step / peak if peak else None for d, peak in peaks.items()},
            "flops_share_of_steps": {
                d: flops / alone / peak if peak else None for d, peak in peaks.items()
            },
            "peak_memory_mb": memory[version],
            "step_seconds": seconds[version],
            "parts": shares(parts[version], encoders),
        }
    found = {"batch_size": bench.batch_size, "peaks": peaks, "versions": rows}
    if names[0] == TRAINER:
        rates = [rows[name]["samples_per_second"] for name in names[:2]]
        found["speedup_vs_trainer"] = rates[1] / rates[0]
    return found


def _faster_in_bf16(
    build: Callable[[], Bench], name: str, steps: int, how: tuple[Any, ...]
) -> bool:
    """Whether a version takes less time in bf16, by two rounds of each; on a GPU it does."""
    if how[1] != "cpu":
        return True
    fp32, bf16 = versions = [(name, False), (name, True)]
    seconds, *_ = _take_turns(build, versions, 2, steps, how)
    return min(seconds[bf16]) < min(seconds[fp32])


def _take_turns(
    build: Callable[[], Bench],
    versions: Sequence[Version],
    rounds: int,
    steps: int,
    how: tuple[Any, ...],
    kept_up: str | None = None,
) -> Turns:
    """By version: mean step seconds of each round, seconds by part, of encoding, and memory.

    Args:
        how: share of conversations, and the device.
        kept_up: name of the version of which scoring and saving are timed too.
    """
    with _served(build, versions, how) as pipes:
        return _measure(pipes, rounds, steps, kept_up)


@contextmanager
def _served(
    build: Callable[[], Bench], versions: Sequence[Version], how: tuple[Any, ...]
) -> Iterator[dict[Version, Connection]]:
    """Each version in its process, which ends with its pipe: none waits for one that failed."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[Version, Connection] = {}
    processes = []
    try:
        for version in versions:
            pipes[version], theirs = context.Pipe()
            processes.append(context.Process(target=serve, args=(theirs, version, build, *how)))
            processes[-1].start()
            theirs.close()  # so that a version that has failed is noticed, not waited for
            if how[1] == "cpu":  # where they would be in each other's way
                pipes[version].poll(None)
        yield pipes
    except (EOFError, ConnectionError):
        raise SystemExit("a version has failed: see above") from None
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join()


def _measure(
    pipes: dict[Version, Connection], rounds: int, steps: int, kept_up: str | None
) -> Turns:
    """What :func:`_take_turns` returns."""
    encoding = {version: pipe.recv() for version, pipe in pipes.items()}
    versions = list(pipes)
    seconds: dict[Version, list[float]] = {version: [] for version in versions}
    parts: dict[Version, dict[str, float]] = {version: defaultdict(float) for version in versions}
    memory: dict[Version, float] = {}
    for turn in range(rounds):
        for version, pipe in pipes.items():
            pipe.send((turn * (WARM_UP + steps), steps))
            taken, by_part, memory[version] = pipe.recv()
            if len(pipes) > 1:  # the others have their turns on the same GPU
                pipe.send(MAKE_ROOM)
            seconds[version].append(statistics.fmean(taken))
            name, half = version
            print(
                f"round {turn + 1} of {rounds}: {1000 * seconds[version][-1]:.0f} ms a step, "
                f"{name.strip()} ({'bf16' if half else 'fp32'})",
                flush=True,
            )
            for part, spent in by_part.items():
                parts[version][part] += spent / (rounds * steps)
    for version, pipe in pipes.items():
        if version[0] == kept_up:
            pipe.send(UPKEEP)
            parts[version] |= pipe.recv()
    return seconds, parts, encoding, memory


def shares(parts: dict[str, float], encoders: float) -> dict[str, float]:
    """Share of a step's time (seconds) by part, the spread cost of the encoders among them."""
    if not parts:
        return {}
    whole = sum(parts.values()) + encoders
    return {name: spent / whole for name, spent in ({"encoders": encoders} | parts).items()}


def show(workload: str, found: dict[str, Any]) -> None:
    """Prints the table of a workload."""
    table = Table(title=f"{workload}: stage E, batches of {found['batch_size']}, medians")
    table.add_column("version", no_wrap=True)
    for title in (
        "in",
        "samples/s",
        "x Trainer",
        "supervised tok/s",
        "of fp32 peak",
        "of bf16 peak",
    ):
        table.add_column(title, justify="right")
    table.add_column("MB", justify="right")
    table.add_column("time by part")
    trainer = found["versions"].get(TRAINER)
    for name, row in found["versions"].items():
        share = row["flops_share"]
        table.add_row(
            name,
            row["precision"],
            f"{row['samples_per_second']:.1f}",
            f"{row['samples_per_second'] / trainer['samples_per_second']:.2f}" if trainer else "-",
            f"{row['supervised_tokens_per_second']:.0f}",
            *(f"{share[d]:.0%}" if share[d] else "-" for d in ("float32", "bfloat16")),
            f"{row['peak_memory_mb']:.0f}",
            ", ".join(f"{part} {s:.0%}" for part, s in row["parts"].items()),
        )
    Console(width=150).print(table)
    for name, row in found["versions"].items():
        share = row["flops_share_of_steps"]["bfloat16"]
        if share and row["parts"].get("encoders"):
            print(f"{name.strip()}: {share:.1%} of the bf16 peak in steps without the encoding")
    peaks = ", ".join(f"{d} {p / 1e9:.0f} GFLOP/s" for d, p in found["peaks"].items())
    print(f"matrix product: {peaks}")


@command
def main(arguments: Arguments) -> None:
    """Reads the options, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help=f"or {trio.NAME}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--data", type=Path, help="folder of a corpus [a small one is made]")
    parser.add_argument(
        "--multi-turn-prob",
        type=float,
        default=SHARE,
        help="of the samples whose questions are one conversation [as stage E has it]",
    )
    parser.add_argument("--versions", help=f"by | [{'|'.join(COMPARED)}]")
    parser.add_argument(
        "--parts",
        type=Path,
        default=Path(os.environ.get("OMNITUNE_PARTS", "parts")),
        help="folder of the pretrained parts of trio [OMNITUNE_PARTS, or parts]",
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    workloads = options.workloads.split(",")
    known = [*WORKLOADS, trio.NAME]
    if unknown := [name for name in workloads if name not in known]:
        raise UserError(f"--workloads: there is no {unknown[0]!r}; there are {', '.join(known)}")
    if trio.NAME in workloads:
        trio.check(options.parts)
    data = options.data or corpus_folder()
    results = {}
    rounds, steps, share = options.rounds, options.steps, options.multi_turn_prob
    for workload in workloads:
        compared = trio.COMPARED if workload == trio.NAME else COMPARED
        names = choose(options.versions or "|".join(compared))
        if workload == trio.NAME:
            build = partial(trio.make, options.parts, data, rounds * (WARM_UP + steps))
        else:
            build = partial(make, WORKLOADS[workload], data)
        results[workload] = compare(build, names, rounds, steps, share=share)
        show(workload, results[workload])
    report(results, options.json)


def report(results: dict[str, dict[str, Any]], path: Path | None) -> None:
    """Prints the ratios to the Trainer; writes everything to a JSON file if one is named."""
    key = "speedup_vs_trainer"
    summary = {name: found[key] for name, found in results.items() if key in found}
    if summary:
        ratios = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in summary.items())
        print(f"samples/s against the Trainer: {ratios}")
    if path:
        values = {key: summary, "workloads": results}
        write_json(path, values)


if __name__ == "__main__":
    sys.exit(main())
