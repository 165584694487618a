"""Processes of one CPU that share each step: every rank computes a part of each micro-batch.

The steps of a small model are thousands of small operators, which a second thread hardly hastens
and a second process nearly halves. Weights, gradients and the optimiser's state lie in memory that
all ranks see; after the backward pass each rank adds up the gradients of the weights that it owns
and updates those (the optimiser's work is divided too, as in ZeRO: Rajbhandari et al. 2020).

Rank 0 is the process of the run: it alone logs, scores and saves. The others are forked from it
before the first step, do as it says, and end when it does, however that is.
"""

from __future__ import annotations

import mmap
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from omnitune.config.run import RunConfig
from omnitune.data.packing import WHOLE, Shard
from omnitune.sample import UserError
from omnitune.storage import check_workers, usable_cores
from omnitune.training.optim import begin_state, step_cost
from omnitune.training.precision import compiling_helps

# Where each rank still gets so many samples, more ranks are faster (docs/performance.md).
SAMPLES_A_RANK = 4
# Beyond that, matrix products take the time, and threads share those as well as processes.
SMALL_MODEL = 20_000_000  # trained weights
LONG_RUN = 2500  # steps; so many repay compiling, which hastens them more (docs/performance.md)
VALUES = 64  # numbers that ranks add up beside the gradients


class Team:
    """The ranks of a run, as one of them sees them; here a run of one process.

    Attributes:
        part: what this rank computes of each micro-batch.
    """

    part = WHOLE

    def begin_step(self, message: Any = None) -> None:
        """Rank 0 sends the others into a step; ``message`` is theirs to read."""

    def add_gradients(self, values: Sequence[float]) -> list[float]:
        """Adds the gradients up over the ranks, and some numbers too.

        Afterwards a rank holds the sums of the weights it owns, and no gradient of the others.
        """
        return list(values)

    def add(self, value: float) -> float:
        """The sum of a number over the ranks, the same in all of them."""
        return value

    def end_step(self) -> None:
        """Rank 0 waits until every weight is updated."""

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Rank 0 has all threads to itself, as the others wait."""
        yield


def choose_ranks(config: RunConfig, model: nn.Module, compilable_steps: int = 0) -> int:
    """How many processes share a step.

    Args:
        compilable_steps: of the whole run, where its model can be compiled, which one process does.

    Raises:
        UserError: more were asked for than there can be.
    """
    device = next(model.parameters()).device
    forks = check_ranks(config, device)
    if config.workers is not None:
        return config.workers
    cores = usable_cores() if forks else 1
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    pays = config.batch_size >= SAMPLES_A_RANK * cores and trained <= SMALL_MODEL
    compiles = config.compile == "on" or (
        config.compile == "auto" and compilable_steps >= LONG_RUN and compiling_helps()
    )
    return cores if pays and not compiles and torch.get_num_threads() > 1 else 1


def check_ranks(config: RunConfig, device: torch.device) -> bool:
    """Whether processes can share a step here.

    Raises:
        UserError: more were asked for than there can be.
    """
    forks = sys.platform == "linux" and device.type == "cpu" and not torch.cuda.is_initialized()
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
def team_of(
    count: int, optimizer: torch.optim.Optimizer, work: Callable[[Helper], None]
) -> Iterator[Team]:
    """Yields rank 0's side of a team.

    Args:
        count: ranks, this process among them.
        optimizer: its weights and its state move to shared memory.
        work: what the other ranks do: a step of their own for each of ``Helper.steps``.
    """
    if count == 1:
        yield Team()
        return
    threads = torch.get_num_threads()
    memory = _SharedMemory(optimizer, count)
    context = multiprocessing.get_context("fork")
    ends, helpers = [], []
    for rank in range(1, count):
        ours, theirs = context.Pipe()
        ends.append(ours)
        arguments = (Helper(Shard(rank, count), memory, theirs), list(ends), work)
        helpers.append(context.Process(target=_serve, args=arguments, daemon=True))
        helpers[-1].start()
        theirs.close()
    try:
        torch.set_num_threads(1)
        yield _Leader(memory, ends, threads)
    finally:
        torch.set_num_threads(threads)
        for end in ends:
            end.close()
        for helper in helpers:
            helper.join()


def _serve(team: Helper, ends_of_rank_0: list[Connection], work: Callable[[Helper], None]) -> None:
    """The life of a rank other than 0."""
    for end in ends_of_rank_0:  # else the end of rank 0 would not be noticed
        end.close()
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 decides when to stop
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        work(team)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # rank 0 has stopped
    except UserError as error:
        team.pipe.send(error)
    except Exception:
        team.pipe.send(RuntimeError(f"rank {team.part.rank}:\n{traceback.format_exc()}"))


class _SharedMemory:
    """What all ranks see.

    Attributes:
        parameters: all trained weights; those of rank r are ``parameters[owned[r]]``.
        places: of each weight, where its gradient lies in a row of ``gradients_RP``.
        values_RK: numbers to be added up.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, count: int) -> None:
        begin_state(optimizer)
        bins = _deal(optimizer, count)
        self.parameters = [p for mine in bins for p in mine]
        bounds = [0]
        for mine in bins:
            bounds.append(bounds[-1] + len(mine))
        self.owned = [slice(a, b) for a, b in pairwise(bounds)]
        starts = [0]
        for parameter in self.parameters:
            starts.append(starts[-1] + parameter.numel())
        self.places = [slice(a, b) for a, b in pairwise(starts)]
        self.gradients_RP = _shared((count, starts[-1]))
        self.values_RK = _shared((count, VALUES), torch.float64)
        self.used_RN = _shared((count, len(self.parameters)), torch.uint8)
        for parameter in self.parameters:
            parameter.data = _moved(parameter.data)
            state = optimizer.state[parameter]
            for key, value in state.items():
                state[key] = _moved(value) if isinstance(value, Tensor) else value


class _Rank(Team):
    """What is the same for all ranks of a team."""

    def __init__(self, part: Shard, memory: _SharedMemory) -> None:
        self.part, self.memory = part, memory

    def meet(self) -> None:
        """Waits for all ranks."""
        raise NotImplementedError

    def add_gradients(self, values: Sequence[float]) -> list[float]:
        memory, rank = self.memory, self.part.rank
        row_P = memory.gradients_RP[rank]
        for n, parameter in enumerate(memory.parameters):
            found = parameter.grad
            memory.used_RN[rank, n] = found is not None
            if found is None:
                row_P[memory.places[n]].zero_()
            else:
                row_P[memory.places[n]].view_as(found).copy_(found)
            parameter.grad = None
        memory.values_RK[rank, : len(values)] = torch.tensor(values, dtype=torch.float64)
        self.meet()
        mine = memory.owned[rank]
        places = memory.places[mine]
        if places:
            sums = memory.gradients_RP[:, places[0].start : places[-1].stop].sum(0)
            used_N = memory.used_RN[:, mine].amax(0).tolist()
            for n, parameter in enumerate(memory.parameters[mine]):
                if used_N[n]:
                    first, last = (x - places[0].start for x in (places[n].start, places[n].stop))
                    parameter.grad = sums[first:last].view_as(parameter)
        return memory.values_RK[:, : len(values)].sum(0).tolist()

    def add(self, value: float) -> float:
        last = self.memory.values_RK[:, -1]
        last[self.part.rank] = value
        self.meet()
        return float(last.sum())


class _Leader(_Rank):
    """Rank 0."""

    def __init__(self, memory: _SharedMemory, ends: list[Connection], threads: int) -> None:
        super().__init__(Shard(0, len(ends) + 1), memory)
        self.ends, self.threads = ends, threads

    def begin_step(self, message: Any = None) -> None:
        for end in self.ends:
            end.send(message)

    def meet(self) -> None:
        self.end_step()
        self.begin_step()

    def end_step(self) -> None:
        for rank, end in enumerate(self.ends, start=1):
            try:
                problem = end.recv()
            except (EOFError, ConnectionResetError):
                raise RuntimeError(
                    f"rank {rank} ended in the middle of a step, as if it had been killed (is "
                    "there enough memory?); --workers 1 does without it"
                ) from None
            if problem is not None:
                raise problem

    @contextmanager
    def resting(self) -> Iterator[None]:
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(1)


class Helper(_Rank):
    """A rank other than 0, with its end of the pipe to rank 0."""

    def __init__(self, part: Shard, memory: _SharedMemory, pipe: Connection) -> None:
        super().__init__(part, memory)
        self.pipe = pipe

    def steps(self) -> Iterator[Any]:
        """The messages with which rank 0 begins its steps, until it ends (EOFError)."""
        while True:
            yield self.pipe.recv()
            self.pipe.send(None)

    def meet(self) -> None:
        self.pipe.send(None)
        self.pipe.recv()


def _deal(optimizer: torch.optim.Optimizer, count: int) -> list[list[nn.Parameter]]:
    """The weights that each rank updates: about as much work for each (Graham 1969)."""
    costs = [(step_cost(group, p), p) for group in optimizer.param_groups for p in group["params"]]
    bins: list[list[nn.Parameter]] = [[] for _ in range(count)]
    filled = [0.0] * count
    for cost, parameter in sorted(costs, key=lambda pair: -pair[0]):
        emptiest = filled.index(min(filled))
        bins[emptiest].append(parameter)
        filled[emptiest] += cost
    return bins


def _shared(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros in memory that forked processes see; it needs no file and no /dev/shm."""
    size = max(1, prod(shape)) * dtype.itemsize
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype)[: prod(shape)].view(shape)


def _moved(tensor: Tensor) -> Tensor:
    """A copy in shared memory."""
    return _shared(tuple(tensor.shape), tensor.dtype).copy_(tensor)
