"""How many processes share the steps of a run, and their start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from omnitune.config.run import RunConfig
from omnitune.distributed.forked import VALUES, can_fork, fork_ranks
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.sample import UserError
from omnitune.storage import check_workers, usable_cores
from omnitune.training.optim import begin_state, step_cost
from omnitune.training.precision import SMALL_MODEL
from omnitune.training.run import Run

# Where each rank still gets so many samples, more ranks are faster, or as fast (with AMX, in stages
# A and E; docs/performance.md).
SAMPLES_A_RANK = 4


def choose_ranks(run: Run) -> int:
    """How many processes share a step of a run, of which it is known whether it is compiled."""
    config = run.config
    forks = check_ranks(config, run.device)
    if config.workers is not None:
        return config.workers
    cores = usable_cores() if forks else 1
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    # A thinker's frozen weights are computed with as well.
    thinker = getattr(run.model, "thinker", None)
    passed = 0 if thinker is None else sum(p.numel() for p in thinker.parameters())
    # A larger model's matrix products take the time, and threads share those as well.
    small = max(trained, passed) <= SMALL_MODEL
    pays = run.batch_size >= SAMPLES_A_RANK * cores and small
    compiled = config.compile == "on" or run.state.get("compile", False)
    return cores if pays and not compiled and torch.get_num_threads() > 1 else 1


def check_ranks(config: RunConfig, device: torch.device) -> bool:
    """Whether processes can share a step here.

    Raises:
        UserError: more were asked for than there can be.
    """
    forks = can_fork(device)
    asked = config.workers
    check_workers(asked)
    if asked is not None and asked > 1:
        if not forks:
            raise UserError(
                f"workers is {asked}, but processes share a step on a CPU under Linux only "
                f"(here: {device.type}, {sys.platform}); leave workers out"
            )
        if config.compile == "on":
            raise UserError(f"workers is {asked}, but a compiled model runs in one; leave one out")
    return forks


@contextmanager
def open_ranks(
    count: int,
    optimizer: torch.optim.Optimizer,
    work: Callable[[Distributed], None],
    values: int = VALUES,
) -> Iterator[Distributed]:
    """Yields rank 0 of so many processes; the others do ``work``, without end.

    Args:
        values: how many numbers they add up beside the gradients, at most.
    """
    if count == 1:
        yield SingleProcess()
        return
    begin_state(optimizer)
    with fork_ranks(count, optimizer, step_cost, work, values) as ranks:
        yield ranks
