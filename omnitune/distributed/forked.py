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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate, pairwise
from math import prod
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from omnitune.data.packing import Shard
from omnitune.distributed.protocol import Distributed
from omnitune.sample import UserError

T = TypeVar("T")

VALUES = 64  # numbers that ranks add up beside the gradients, where nothing else is said
# Of an optimiser's group and one of its weights, about how much work the update of it is.
UpdateCost = Callable[[dict[str, Any], nn.Parameter], float]


def can_fork(device: torch.device) -> bool:
    """Whether processes can share a step that is computed on this device."""
    return sys.platform == "linux" and device.type == "cpu" and not torch.cuda.is_initialized()


def call_apart(function: Callable[[], T]) -> T:
    """What a function returns, computed in a forked process: nothing of it stays in this one.

    Raises:
        UserError: the function does. RuntimeError: it raises anything else, or is killed.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    other = context.Process(target=_answer, args=(function, theirs), daemon=True)
    other.start()
    theirs.close()
    try:
        found, problem = ours.recv()
    except EOFError:
        raise RuntimeError(
            "a process that was forked ended as if it had been killed (is there enough memory?)"
        ) from None
    finally:
        ours.close()
        other.join()
    if problem is not None:
        raise problem
    return found


def _answer(function: Callable[[], Any], pipe: Connection) -> None:
    torch.set_num_threads(1)  # those of a pool are not forked
    try:
        pipe.send((function(), None))
    except UserError as error:
        pipe.send((None, error))
    except Exception:
        pipe.send((None, RuntimeError(traceback.format_exc())))


@contextmanager
def fork_ranks(
    world_size: int,
    optimizer: torch.optim.Optimizer,
    cost: UpdateCost,
    work: Callable[[Distributed], None],
    values: int = VALUES,
) -> Iterator[Distributed]:
    """Forks the other ranks, one at least, and yields rank 0.

    Args:
        optimizer: its weights and its state move to shared memory; the state must be there.
        cost: decides which rank updates which weights.
        work: what the other ranks do: a step for each ``broadcast`` of rank 0, without end.
        values: how many numbers they add up beside the gradients, at most.
    """
    threads = torch.get_num_threads()
    memory = _SharedMemory(optimizer, world_size, cost, values)
    context = multiprocessing.get_context("fork")
    ends, others = [], []
    for number in range(1, world_size):
        ours, theirs = context.Pipe()
        ends.append(ours)
        arguments = (_OtherRank(number, memory, theirs), list(ends), work)
        others.append(context.Process(target=_serve, args=arguments, daemon=True))
        others[-1].start()
        theirs.close()
    try:
        torch.set_num_threads(1)
        yield _RankZero(memory, ends, threads)
    finally:
        torch.set_num_threads(threads)
        for end in ends:
            end.close()
        for other in others:
            other.join()


def _serve(
    own: _OtherRank, ends_of_rank_0: list[Connection], work: Callable[[Distributed], None]
) -> None:
    """The life of a rank other than 0."""
    for end in ends_of_rank_0:  # else the end of rank 0 would not be noticed
        end.close()
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 decides when to stop
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        work(own)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # rank 0 has stopped
    except UserError as error:
        own.pipe.send(error)
    except Exception:
        own.pipe.send(RuntimeError(f"rank {own.rank}:\n{traceback.format_exc()}"))


class _SharedMemory:
    """What all ranks see.

    Attributes:
        parameters: all trained weights; those of rank r are ``parameters[owned[r]]``.
        places: of each weight, where its gradient lies in a row of ``gradients_RP``.
        values_RK: numbers to be added up.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, count: int, cost: UpdateCost, values: int
    ) -> None:
        bins = _deal(optimizer, count, cost)
        self.parameters = [p for mine in bins for p in mine]
        self.owned = _slices(len(mine) for mine in bins)
        self.places = _slices(p.numel() for p in self.parameters)
        self.gradients_RP = _shared((count, sum(p.numel() for p in self.parameters)))
        self.values_RK = _shared((count, values + 1), torch.float64)  # and ``add``'s
        self.used_RN = _shared((count, len(self.parameters)), torch.uint8)
        for parameter in self.parameters:
            parameter.data = _moved(parameter.data)
            state = optimizer.state[parameter]
            for key, value in state.items():
                state[key] = _moved(value) if isinstance(value, Tensor) else value


class _Rank(Distributed):
    """What is the same for all ranks."""

    def __init__(self, rank: int, world_size: int, memory: _SharedMemory) -> None:
        self.rank, self.world_size, self.memory = rank, world_size, memory

    @property
    def shard(self) -> Shard:
        """One in ``world_size`` of each micro-batch."""
        return Shard(self.rank, self.world_size)

    def _meet(self) -> None:
        """Waits for all ranks."""
        self.end_step()
        self.broadcast()

    def add_gradients(self, values: Sequence[float]) -> list[float]:
        """Adds up the gradients of the weights that this rank owns, and the numbers."""
        memory, rank = self.memory, self.rank
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
        self._meet()
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
        """Adds up a number."""
        last = self.memory.values_RK[:, -1]
        last[self.rank] = value
        self._meet()
        return float(last.sum())


class _RankZero(_Rank):
    """Rank 0, with an end of the pipe to each of the others."""

    def __init__(self, memory: _SharedMemory, ends: list[Connection], threads: int) -> None:
        super().__init__(0, len(ends) + 1, memory)
        self.ends, self.threads = ends, threads

    def broadcast(self, message: Any = None) -> Any:
        """Sends the message to the others."""
        for end in self.ends:
            end.send(message)
        return message

    def end_step(self) -> None:
        """Waits for the others; raises what went wrong in one of them."""
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
        """All threads are rank 0's."""
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(1)


class _OtherRank(_Rank):
    """A rank other than 0, with its end of the pipe to rank 0."""

    def __init__(self, rank: int, memory: _SharedMemory, pipe: Connection) -> None:
        super().__init__(rank, len(memory.owned), memory)
        self.pipe = pipe

    def broadcast(self, message: Any = None) -> Any:
        """Waits for the message of rank 0; EOFError when that has ended."""
        return self.pipe.recv()

    def end_step(self) -> None:
        """Tells rank 0 that it is done."""
        self.pipe.send(None)

    def resting(self) -> AbstractContextManager[None]:
        """Nothing changes for a rank that waits."""
        return nullcontext()


def _deal(
    optimizer: torch.optim.Optimizer, count: int, cost: UpdateCost
) -> list[list[nn.Parameter]]:
    """The weights that each rank updates: about as much work for each (Graham 1969)."""
    costs = [(cost(group, p), p) for group in optimizer.param_groups for p in group["params"]]
    bins: list[list[nn.Parameter]] = [[] for _ in range(count)]
    filled = [0.0] * count
    for amount, parameter in sorted(costs, key=lambda pair: -pair[0]):
        emptiest = filled.index(min(filled))
        bins[emptiest].append(parameter)
        filled[emptiest] += amount
    return bins


def _slices(lengths: Iterable[int]) -> list[slice]:
    """Slices of these lengths, end to end."""
    return [slice(a, b) for a, b in pairwise(accumulate(lengths, initial=0))]


def _shared(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros in memory that forked processes see; it needs no file and no /dev/shm."""
    size = max(1, prod(shape)) * dtype.itemsize
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype)[: prod(shape)].view(shape)


def _moved(tensor: Tensor) -> Tensor:
    """A copy in shared memory."""
    return _shared(tuple(tensor.shape), tensor.dtype).copy_(tensor)
