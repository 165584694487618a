"""A run in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from omnitune.data.packing import WHOLE, Shard
from omnitune.distributed.protocol import Share, Sums

T = TypeVar("T")
R = TypeVar("R")


class SingleProcess:
    """The only rank: it has nobody to wait for (see :class:`Distributed`)."""

    rank, world_size = 0, 1
    sharded, shards = False, 1
    saves = True

    @property
    def shard(self) -> Shard:
        """The whole micro-batch."""
        return WHOLE

    def prepare(self, model: nn.Module) -> None:
        """The model is as it should be."""

    def begin(self, step: int) -> None:
        """Nobody waits."""

    def accumulate(
        self,
        model: nn.Module,
        share: Share,
        last: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> Sums | None:
        """Adds the gradients of a micro-batch."""
        if share.batch is None:
            return None
        with autocast():
            loss_G, count_G = model(share.batch)
        loss_G.sum().backward()
        return loss_G.detach(), count_G

    def sum(self, values: Sequence[float]) -> list[float]:
        """The numbers themselves."""
        return list(values)

    def any(self, flag: bool) -> bool:
        """The flag itself."""
        return flag

    def share(self, value: T) -> T:
        """The value itself."""
        return value

    def on_first(self, function: Callable[[], T]) -> T:
        """What the function returns."""
        return function()

    def scores(self, model: nn.Module, function: Callable[[], T]) -> T:
        """What the function returns."""
        return function()

    def share_out(self, function: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
        """All pieces are this one's."""
        return [function(piece) for piece in pieces]

    def see_same(self, folder: Path) -> bool:
        """There is nobody else."""
        return True

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Nobody else has them."""

    def in_turn(self) -> AbstractContextManager[None]:
        """It is always this one's turn."""
        return nullcontext()

    def whole_state(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state."""
        return model.state_dict()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors themselves."""
        return dict(tensors)

    def make_whole(self, model: nn.Module) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """There is nobody to leave."""
