"""What it takes until a run's ranks have their weights: seconds, and memory of each.

    python -m benchmarks.loading --thinker FOLDER [--mode fsdp] [--ranks 2] [--json FILE]

Ranks are processes of one thread that talk by gloo. A rank's time is from the first look at a file
to the moment when its optimiser could be made; that of the processor is beside it, as other work
on the machine counts in the first. Memory is by how much the process grew at its largest (VmHWM),
over what it held when its libraries were loaded, as a multiple of the weights as they are trained.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.command import Arguments, command
from omnitune.config.sft import SftConfig
from omnitune.distributed.opening import open_ranks
from omnitune.storage import write_json
from omnitune.training import assembling, precision
from omnitune.training.phases import Phases
from omnitune.training.plan_lines import peak_resident, resident

MODES = ("fsdp", "ddp")


def load(config: SftConfig) -> dict[str, float]:
    """Readies the model of a run on this rank; returns what that took."""
    device = torch.device("cpu")
    with open_ranks(config.parallel, device) as ranks:
        ranks.share(None)
        before, started, worked = resident(), time.monotonic(), time.process_time()
        model, _ = assembling.assemble_once(config, ranks)
        assembling.bring_to_device(model, device, ranks)
        Phases(config, model.parts(), model.modalities).set_trainable()
        precision.set_formats(config, model, device)
        ranks.prepare(model)
        took, worked = time.monotonic() - started, time.process_time() - worked
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        grown = (peak_resident() - before) / size
        ranks.share(None)
        return {"seconds": took, "of_processor": worked, "peak": grown, "bytes": size}


def _be_a_rank(rank: int, count: int, port: int, config: SftConfig, results: Any) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    results.put((rank, load(config)))


def load_on(count: int, config: SftConfig) -> list[dict[str, float]]:
    """What it took on each of several ranks, which are fresh processes."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    results = context.Queue()
    rest = (count, port, config, results)
    ranks = [context.Process(target=_be_a_rank, args=(n, *rest)) for n in range(count)]
    for rank in ranks:
        rank.start()
    figures = dict(results.get(timeout=1200) for _ in ranks)
    for rank in ranks:
        rank.join()
    return [figures[n] for n in range(count)]


@command
def main(arguments: Arguments = None) -> None:
    """Loads, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--thinker", type=Path, required=True, help="a pretrained folder")
    parser.add_argument("--mode", choices=MODES, default="fsdp")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args(arguments)
    config = SftConfig(
        thinker_ckpt=args.thinker,
        data_mix={"text_only": 1.0},
        output_dir="unused",
        device="cpu",
        vision_ckpt=None,
        audio_ckpt=None,
        parallel={"mode": args.mode},
    )
    figures = load_on(args.ranks, config)
    table = Table("rank", "seconds", "of the processor", "peak / weights")
    for rank, found in enumerate(figures):
        columns = (found["seconds"], found["of_processor"], found["peak"])
        table.add_row(str(rank), *(f"{value:.2f}" for value in columns))
    Console().print(table)
    Console().print(f"weights: {figures[0]['bytes'] / 1e6:,.0f} MB")
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    raise SystemExit(main())
