"""Processes of one run, by torch.distributed: gloo on processors, NCCL on GPUs.

Two groups: one for the steps, whose waiting has a limit, and a patient one for what takes rank 0
long, such as indexing and scoring. Numbers that are decided by go through processors' memory, so
that they never wait for a GPU's queue.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from omnitune.config.dealing import dealing
from omnitune.config.parallel import OfFirstRank, ParallelSettings, own_rank, world_size
from omnitune.data.packing import Shard
from omnitune.distributed import filling, sharding
from omnitune.distributed.meeting import meet
from omnitune.distributed.protocol import Share, Sums
from omnitune.distributed.watch import HangError, Watch, store
from omnitune.sample import UserError

T = TypeVar("T")
R = TypeVar("R")
PATIENCE = timedelta(days=7)
FIRST_MEETING = timedelta(minutes=5)
THINKER = "thinker"  # the part of a model that rank 0 alone may hold


class TorchRanks:
    """A rank of several (see :class:`Distributed`).

    Attributes:
        watch: says of a hang where it is.
        saving: the group by which checkpoints are written, beside the steps.
    """

    def __init__(self, settings: ParallelSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.sharded, self.shards = False, 1
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        # The first meeting: machines of a cluster do not start at the same moment.
        first = max(timedelta(seconds=settings.timeout), FIRST_MEETING)
        self.watch = Watch(own_rank(), world_size(), first.total_seconds())
        try:
            with self.watch("the others to meet", patient=True):
                self._meet(backend, first)
        except BaseException:
            self.watch.close()
            raise
        self.watch.limit = settings.timeout
        self.watch.listen()
        self._replica: _Replica | None = None
        self._told: Exception | None = None  # of this rank, which the others have heard of

    def _meet(self, backend: str, first: timedelta) -> None:
        """Makes the groups, each within this time: longer nobody waits for a rank that is lost."""
        store, rank, size = next(rendezvous("env://", timeout=first))
        # The store outlives ranks that are started anew, and holds addresses of the lost ones.
        store = meet(store, rank, size, first)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=first)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._control = dist.new_group(backend="gloo", timeout=first)
        self._patient = dist.new_group(backend="gloo", timeout=first)
        self.saving = dist.new_group(backend="gloo", timeout=first)
        self._steps = dist.new_group(backend=backend, timeout=first)
        limit = timedelta(seconds=self.settings.timeout)
        for group, time in (
            (self._control, limit),
            (self._steps, limit),
            (self._patient, PATIENCE),
            (self.saving, PATIENCE),
        ):
            dist.distributed_c10d._set_pg_timeout(time, group)

    @property
    def shard(self) -> Shard:
        """One in ``world_size`` of each micro-batch."""
        return Shard(self.rank, self.world_size)

    @property
    def saves(self) -> bool:
        """Rank 0, but of a divided model every rank."""
        return self.rank == 0 or self.sharded

    def prepare(self, model: nn.Module) -> None:
        """Divides the model among the ranks, where that was asked for or it does not fit.

        Weights that rank 0 alone holds come to the others, of a divided model the share of each.
        """
        mode, gpu = self.settings.mode, self.device.type == "cuda"
        offload = self.settings.cpu_offload and gpu  # a processor's weights are there already
        if mode == "auto":
            mode = self.share("ddp" if sharding.fits(model, self.device) else "fsdp")
        hollow = self.any(filling.is_hollow(model))
        if mode == "fsdp":
            sizes = self.settings.grid(self.world_size)
            values = filling.take_out(model.get_submodule(THINKER)) if hollow else {}
            kept_on = torch.device("cpu") if offload else self.device

            def fill() -> None:
                filling.fill_divided(model, THINKER, values, self.device, kept_on, self.send)

            sharding.shard(model, self.device, sizes, offload, fill if hollow else lambda: None)
            self.sharded, self.shards = True, sizes[0]
        elif hollow:
            filling.fill_whole(model.get_submodule(THINKER), self.device, self.send)

    def begin(self, step: int) -> None:
        """Notes that a step begins."""
        self.watch.begin(step)

    def accumulate(
        self,
        model: nn.Module,
        share: Share,
        last: bool,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> Sums | None:
        """Adds the gradients of a micro-batch."""
        with self.watch("the gradients"):
            if self.sharded:
                return _sharded_pass(model, share, autocast)
            if self._replica is None or not self._replica.fits(model):
                self._replica = _Replica(model, self._steps)
            return self._replica.accumulate(share, last, autocast)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks."""
        found = torch.tensor(values, dtype=torch.float64)
        with self.watch("a sum of numbers"):
            dist.all_reduce(found, group=self._control)
        return found.tolist()

    def any(self, flag: bool) -> bool:
        """Whether any rank has the flag set."""
        return self.sum([float(flag)])[0] > 0

    def share(self, value: T) -> T:
        """Rank 0's value."""
        values = [value]
        with self.watch("what rank 0 says", patient=True):
            dist.broadcast_object_list(values, src=0, group=self._patient)
        return values[0]

    def on_first(self, function: Callable[[], T]) -> T:
        """What the function returns on rank 0."""
        found: T | None = None
        problem: BaseException | None = None
        if self.rank == 0:
            try:
                found = function()
            except Exception as error:
                problem = error
        told = None if problem is None else f"{type(problem).__name__}: {problem}"
        told, shared = self.share((told, found if self.world_size > 1 else None))
        if problem is not None:
            raise problem
        if told is not None:
            raise OfFirstRank(f"rank 0 stopped: {told}")
        return cast(T, found if self.rank == 0 else shared)

    @torch.no_grad()
    def scores(self, model: nn.Module, function: Callable[[], T]) -> T:
        """All ranks share the work; with a divided model, which takes all, they do the same."""
        if not self.sharded:
            with dealing(self._deal):
                return self._exchange(function, "scores of the others")[0]
        with sharding.gathered_root(model):
            return self._exchange(function, "scores of the others")[0]

    def _deal(self, function: Callable[[Any], Any], pieces: Sequence[Any]) -> list[Any]:
        """Every so-manieth piece is this rank's; what others found comes from them."""
        own = pieces[self.rank :: self.world_size]
        everyone = self._exchange(lambda: list(map(function, own)), "scores of the others")
        return [everyone[n % self.world_size][n // self.world_size] for n in range(len(pieces))]

    def _exchange(self, function: Callable[[], T], call: str) -> list[T]:
        """What a function returns on each rank; what it raises on one ends all of them."""
        problem: Exception | None = None
        own: T | None = None
        try:
            own = function()
        except Exception as error:
            if error is self._told or isinstance(error, OfFirstRank):
                raise  # all have heard of it
            problem = error
        found: list[Any] = [None] * self.world_size
        told = None if problem is None else f"{type(problem).__name__}: {problem}"
        with self.watch(call, patient=True):
            dist.all_gather_object(found, (told, own), group=self._patient)
        if problem is not None:
            self._told = problem
            raise problem
        if first := next((told for told, _ in found if told), None):
            raise OfFirstRank(f"another rank stopped: {first}")
        return [value for _, value in found]

    def told_before(self, error: UserError) -> str:
        """What another rank has ended with before this one, which then need not tell its own."""
        if isinstance(error, OfFirstRank | HangError):  # told, or each knows of another place
            return ""
        own = f"rank {self.rank} stopped: {error}"
        with suppress(RuntimeError):  # the store is gone
            first = store().compare_set("omnitune/error", "", own).decode(errors="replace")
            return "" if first == own else first
        return ""

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Rank 0, then the first of each other machine, then the rest."""
        turn = 0 if self.rank == 0 else 1 if os.environ["LOCAL_RANK"] == "0" else 2
        problem: Exception | None = None
        for now in range(3):
            if now == turn and problem is None:
                try:
                    yield
                except Exception as error:
                    problem = error
            self._stop_together(problem)

    def share_out(self, function: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
        """Every so-manieth piece is this rank's; rank 0 hears what the others found."""
        own, problem = list[R](), None
        try:
            own = [function(piece) for piece in pieces[self.rank :: self.world_size]]
        except Exception as error:
            problem = error
        self._stop_together(problem)
        everyone: list[Any] = [None] * self.world_size
        with self.watch("the shares of the others", patient=True):
            heard = everyone if self.rank == 0 else None
            dist.gather_object(own, heard, dst=0, group=self._patient)
        size = len(pieces) if self.rank == 0 else 0
        return [everyone[n % self.world_size][n // self.world_size] for n in range(size)]

    def see_same(self, folder: Path) -> bool:
        """Rank 0 writes a file, and the others look for it."""
        mark = folder / self.share(f".shared-{secrets.token_hex(8)}")
        with suppress(OSError):
            if self.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
                mark.touch()
        self.share(None)
        seen = self.sum([float(mark.exists() and os.access(folder, os.W_OK))])[0]
        if self.rank == 0:
            with suppress(OSError):
                mark.unlink()
        return seen == self.world_size

    def _stop_together(self, problem: Exception | None) -> None:
        """Raises an error on all ranks where anything went wrong on one."""
        told = self._first_told(problem)
        if problem is not None:
            raise problem
        if told is not None:
            raise OfFirstRank(f"another rank stopped: {told}")

    def _first_told(self, problem: Exception | None) -> str | None:
        """What went wrong on any rank, of the first that something did on."""
        own = None if problem is None else f"{type(problem).__name__}: {problem}"
        found: list[str | None] = [None] * self.world_size
        with self.watch("the others to have their turn", patient=True):
            dist.all_gather_object(found, own, group=self._patient)
        return next(filter(None, found), None)

    def whole_state(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state; gathered tensor by tensor where it is divided."""
        return self.whole(model.state_dict())

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Some of it."""
        if not self.sharded:
            return dict(tensors)
        return sharding.gathered(tensors, keep=self.rank == 0)

    @torch.no_grad()
    def send(self, tensors: Sequence[Tensor]) -> None:
        """Writes rank 0's values into the others' tensors."""
        for tensor in tensors:
            group = self._steps if tensor.is_cuda else self._patient
            sent = tensor.contiguous()
            with self.watch("weights of rank 0", patient=True):
                dist.broadcast(sent, src=0, group=group)
            if sent is not tensor:
                tensor.copy_(sent)

    def make_whole(self, model: nn.Module) -> bool:
        """Gathers a divided model, on each rank that has room for it.

        Where rank 0's device has none either it is gathered in the machine's memory, and scored
        there: slowly, but the run ends.
        """
        self._replica = None
        if not self.sharded:
            return True
        everywhere = self.share(sharding.fits_whole(model, self.device))
        keep, device = everywhere or self.rank == 0, self.device
        if not everywhere and not sharding.fits_whole(model, device, sharding.ALONE):
            device = torch.device("cpu")
        sharding.gather_for_good(model, keep, device)
        if keep:
            nn.Module.to(model, device)
        self.sharded, self.shards = False, 1
        return everywhere

    def close(self) -> None:
        """Leaves the groups."""
        self.watch.close()
        self._replica = None
        if dist.is_initialized():
            dist.destroy_process_group()


class _Pass(nn.Module):
    """A model's pass over a batch, or over none, of which no loss depends on any weight."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Any:
        """Losses and weights by group; a zero without a batch."""
        if batch is not None:
            return self.model(batch)
        weight = next(p for p in self.model.parameters() if p.requires_grad)
        # Something has to have a gradient, or there would be no backward pass to meet in.
        return 0.0 * weight.reshape(-1)[:1].float(), None


class _Replica:
    """A whole model on each rank, by torch's own wrapper."""

    def __init__(self, model: nn.Module, group: dist.ProcessGroup) -> None:
        self._trained = self._ids(model)
        self._wrapped = DistributedDataParallel(
            _Pass(model),
            process_group=group,
            forward_sync_buffers=False,
            # A batch without an image gives an encoder of images no gradient; and a weight that no
            # rank has used has to have none, as in one process.
            find_unused_parameters=True,
        )

    @staticmethod
    def _ids(model: nn.Module) -> tuple[int, ...]:
        return tuple(id(p) for p in model.parameters() if p.requires_grad)

    def fits(self, model: nn.Module) -> bool:
        """Whether the model still trains the weights that it did: a phase may train others."""
        return self._trained == self._ids(model)

    def accumulate(
        self, share: Share, last: bool, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> Sums | None:
        """Adds the gradients of a micro-batch; after the last one they are the mean over ranks."""
        if share.batch is None and not last:
            return None
        with nullcontext() if last else self._wrapped.no_sync():
            with autocast():
                loss_G, count_G = self._wrapped(share.batch)
            loss_G.sum().backward()
        return None if count_G is None else (loss_G.detach(), count_G)


def _sharded_pass(
    model: nn.Module, share: Share, autocast: Callable[[], AbstractContextManager[Any]]
) -> Sums | None:
    """Adds the gradients of a micro-batch; every rank has one, if need be a borrowed one."""
    if share.batch is None:
        return None  # no rank has one, then
    with autocast():
        loss_G, count_G = model(share.batch)
    (0.0 * loss_G.sum() if share.borrowed else loss_G.sum()).backward()
    return None if share.borrowed else (loss_G.detach(), count_G)
