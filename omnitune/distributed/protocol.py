"""What the rest of omnitune knows of the processes that share a run's steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn

from omnitune.data.packing import Shard

T = TypeVar("T")
R = TypeVar("R")

Sums = tuple[Tensor, Tensor]  # of a batch: losses and weights of its targets, by group


class Share(NamedTuple):
    """What a rank computes of a micro-batch.

    Attributes:
        batch: None if there is nothing.
        targets: supervised tokens, by their weights.
        borrowed: the batch is another rank's; it is computed only so that all ranks make the same
            calls, and counts for nothing.
    """

    batch: Any
    targets: float
    borrowed: bool = False


class Distributed(Protocol):
    """The processes of a run, as one of them (a rank) sees them.

    All ranks run the same code and make the same calls in the same order. Rank 0 alone prints,
    decides and writes.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        sharded: whether the weights are divided among the ranks.
        shards: number of ranks that hold the weights once, together.
    """

    rank: int
    world_size: int
    sharded: bool
    shards: int

    @property
    def shard(self) -> Shard:
        """What this rank computes of each micro-batch."""

    @property
    def saves(self) -> bool:
        """Whether this rank takes part in writing checkpoints."""

    def prepare(self, model: nn.Module) -> None:
        """Readies a model for training, before its optimiser is made; brings it to the device.

        The thinker's weights may be on rank 0 alone, in the machine's memory.
        """

    def begin(self, step: int) -> None:
        """Notes that the step after ``step`` steps begins, for what is said of a hang."""

    def accumulate(
        self,
        model: nn.Module,
        share: Share,
        last: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> Sums | None:
        """Adds the gradients of a micro-batch; returns its own sums, None if it counts for nothing.

        After the ``last`` micro-batch of a step every gradient is the mean over the ranks.
        """

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over the ranks, the same on all of them."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank, the same on all of them."""

    def share(self, value: T) -> T:
        """Rank 0's value, on every rank."""

    def on_first(self, function: Callable[[], T]) -> T:
        """What a function returns on rank 0, which alone calls it.

        Raises:
            OfFirstRank: it raised an error there; on rank 0 the error itself.
        """

    def scores(self, model: nn.Module, function: Callable[[], T]) -> T:
        """What a function that computes with the model returns, without gradients.

        Raises:
            OfFirstRank: it raised an error on another rank; on that rank the error itself.
        """

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Writes rank 0's values of some tensors into those of the others."""

    def share_out(self, function: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
        """The function of each piece, in order, on rank 0; each rank has computed some of them.

        On the other ranks the list is empty.

        Raises:
            OfFirstRank: the function raised an error on another rank; on that one the error itself.
        """

    def see_same(self, folder: Path) -> bool:
        """Whether all ranks can write to a folder, and find in it what another one has written."""

    def in_turn(self) -> AbstractContextManager[None]:
        """Rank 0 goes first, then one rank of each other machine, then the rest together.

        For work whose result is kept on disk: the later ones find it there.
        """

    def whole_state(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's whole state, on rank 0; empty on others where it had to be gathered."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Some tensors of a model, as ``whole_state`` has them."""

    def make_whole(self, model: nn.Module) -> bool:
        """Gives each rank the whole model after training, once; or rank 0 alone.

        Returns:
            whether all ranks have it, which they have not where it does not fit.
        """

    def close(self) -> None:
        """Leaves the other ranks."""
