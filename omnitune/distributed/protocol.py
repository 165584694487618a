"""What the training loop knows of the processes that share its steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from omnitune.data.packing import Shard


class Distributed(Protocol):
    """The processes of a run, as one of them (a rank) sees them.

    Rank 0 alone decides, logs, scores and saves. The others do the same steps.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
    """

    rank: int
    world_size: int

    @property
    def shard(self) -> Shard:
        """What this rank computes of each micro-batch."""

    def broadcast(self, message: Any = None) -> Any:
        """Begins a step: every rank returns the ``message`` of rank 0."""

    def add_gradients(self, values: Sequence[float]) -> list[float]:
        """Adds the gradients over the ranks, and some numbers too; returns their sums.

        Afterwards a rank holds the sums of the weights that it updates, and no gradient of others.
        """

    def add(self, value: float) -> float:
        """The sum of a number over the ranks, the same on all of them."""

    def end_step(self) -> None:
        """Ends a step: rank 0 waits until every rank has updated its weights."""

    def resting(self) -> AbstractContextManager[None]:
        """Rank 0 has the machine to itself, as the others wait for its next ``broadcast``."""
