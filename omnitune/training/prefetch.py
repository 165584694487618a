"""Micro-batches on the device: on a GPU the next is made and sent while this one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

import torch

from omnitune.data.packing import WHOLE, Shard
from omnitune.training.run import LossBatch, Run

T = TypeVar("T")


class DeviceBatch(NamedTuple):
    """A batch on the device, None if it has nothing for this rank, and its number of targets."""

    batch: LossBatch | None
    targets: float


@contextmanager
def prefetch(run: Run, shard: Shard = WHOLE) -> Iterator[Callable[[int], DeviceBatch]]:
    """Yields what gives a run's micro-batch, or a rank's shard of it, by its number.

    On a CPU each is made when it is asked for: a thread would only take time from the step. On a
    GPU a batch must be kept until its step has been waited for (the step does so when it reads
    its gradient's norm): its memory belongs to the stream of copies, which knows no step.
    """
    device = run.device

    def make(number: int) -> DeviceBatch:
        batch = run.batch_at(number, shard)
        if batch is None:
            return DeviceBatch(None, 0.0)
        compiled = device.type == "cuda" or bool(run.state.get("compile"))
        if run.rounded and (compiled or run.state.get("precision") == "bf16"):
            batch = run.rounded(batch, compiled)
        return DeviceBatch(batch.to(device), batch.num_targets)

    if device.type != "cuda":
        yield make
        return
    copies = torch.cuda.Stream(device)

    def make_beside(number: int) -> DeviceBatch:
        with torch.cuda.stream(copies):
            return make(number)

    stop = run.plan.total_steps * run.config.gradient_accumulation
    with Prefetcher(make_beside, stop) as ahead:

        def wait(number: int) -> DeviceBatch:
            fed = ahead(number)
            torch.cuda.current_stream(device).wait_stream(copies)
            return fed

        yield wait


class Prefetcher(Generic[T]):
    """A function of consecutive numbers below ``stop``, computed one ahead in a thread.

    What it raises is raised where its number is asked for.
    """

    def __init__(self, make: Callable[[int], T], stop: int) -> None:
        self._make, self._stop = make, stop
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._next: tuple[int, Future[T]] | None = None

    def __call__(self, number: int) -> T:
        """The function at ``number``; starts on the next one."""
        pending, self._next = self._next, None
        if pending is None or pending[0] != number:
            pending = (number, self._pool.submit(self._make, number))
        made = pending[1].result()
        if number + 1 < self._stop:
            self._next = (number + 1, self._pool.submit(self._make, number + 1))
        return made

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
