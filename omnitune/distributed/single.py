"""A run in one process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from omnitune.data.packing import Shard


class SingleProcess:
    """The only rank: it has nobody to wait for (see :class:`Distributed`)."""

    rank, world_size = 0, 1

    @property
    def shard(self) -> Shard:
        """The whole micro-batch."""
        return Shard(self.rank, self.world_size)

    def broadcast(self, message: Any = None) -> Any:
        """The message itself."""
        return message

    def add_gradients(self, values: Sequence[float]) -> list[float]:
        """The numbers themselves; gradients stay as they are."""
        return list(values)

    def add(self, value: float) -> float:
        """The number itself."""
        return value

    def end_step(self) -> None:
        """Every weight is updated already."""

    def resting(self) -> AbstractContextManager[None]:
        """Nobody else computes."""
        return nullcontext()
