"""Micro-batches on the device: on a GPU the next is made and sent while this one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from omnitune.data.packing import Shard
from omnitune.distributed.protocol import Share
from omnitune.training.run import Run

T = TypeVar("T")


@contextmanager
def prefetch(run: Run) -> Iterator[Callable[[int], Share]]:
    """Yields what gives this rank's share of a run's micro-batch, on the device, by its number.

    On a CPU each is made when it is asked for: a thread would only take time from the step. On a
    GPU a batch must be kept until its step has been waited for (the step does so when it reads
    its gradient's norm): its memory belongs to the stream of copies, which knows no step.
    """
    device, ranks = run.device, run.ranks

    def make(number: int) -> Share:
        batch = run.batch_at(number, ranks.shard)
        borrowed = batch is None and ranks.sharded
        if borrowed:  # the first shard is the last to be empty
            batch = run.batch_at(number, Shard(0, ranks.world_size))
        if batch is None:
            return Share(None, 0.0)
        compiled = device.type == "cuda" or bool(run.state.get("compile"))
        if run.rounded and (compiled or run.state.get("precision") == "bf16"):
            batch = run.rounded(batch, compiled)
        targets = 0.0 if borrowed else batch.num_targets
        return Share(batch.to(device), targets, borrowed)

    if device.type != "cuda":
        yield make
        return
    copies = torch.cuda.Stream(device)

    def make_beside(number: int) -> Share:
        with torch.cuda.stream(copies):
            return make(number)

    stop = run.plan.total_steps * run.config.gradient_accumulation
    with Prefetcher(make_beside, stop) as ahead:

        def wait(number: int) -> Share:
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
