"""Which processes a run has: those that ``torchrun`` started, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from omnitune.config.parallel import OfFirstRank, ParallelSettings, world_size
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.sample import UserError

# What torchrun tells each process of the others.
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def check_world(settings: ParallelSettings) -> None:
    """Raises UserError where the settings do not fit the number of processes."""
    size, mode = world_size(), settings.mode
    if size == 1:
        if mode == "fsdp" or (settings.shard or 1) > 1 or (settings.replicate or 1) > 1:
            raise UserError(
                "parallel asks for several processes, but there is one; start them with `torchrun "
                "--nproc_per_node=N sft_omni.py ...`, or leave parallel out"
            )
        return
    if mode == "single":
        raise UserError(
            f"parallel.mode is single, but there are {size} processes; start the run without "
            "torchrun, or leave parallel.mode out"
        )
    if missing := [name for name in NEEDED if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE is {size}, but {missing[0]} is not set in the environment; start the "
            "processes with torchrun, which sets it"
        )
    if mode in ("ddp",) and (settings.shard or settings.replicate or settings.cpu_offload):
        raise UserError(
            "parallel.shard, parallel.replicate and parallel.cpu_offload are for fsdp; leave them "
            "out, or set parallel.mode to fsdp"
        )
    shard, replicate = settings.grid(size)
    if shard * replicate != size:
        raise UserError(
            f"parallel.shard {shard} times parallel.replicate {replicate} is {shard * replicate}, "
            f"but there are {size} processes; give one of the two only"
        )


@contextmanager
def open_ranks(settings: ParallelSettings, device: torch.device) -> Iterator[Distributed]:
    """Yields this process's part of the run; the others are left when it ends.

    Raises:
        UserError: the settings do not fit the processes there are. OfFirstRank: what is raised
            within, where another rank has ended so before and tells of it.
    """
    check_world(settings)
    if world_size() == 1:
        yield SingleProcess()
        return
    from omnitune.distributed.torch_ranks import TorchRanks  # one process needs none of it

    ranks = TorchRanks(settings, device)
    try:
        with ranks.watch.explaining():  # a divided model calls the others where nobody sees it
            yield ranks
    except UserError as error:
        if first := ranks.told_before(error):
            raise OfFirstRank(first) from error
        raise
    finally:
        ranks.close()
