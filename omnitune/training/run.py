"""What a run is made of: the types that the loop and all that follows it share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from omnitune.config.run import RunConfig
from omnitune.data.packing import Shard
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.media.base import counted
from omnitune.training.optim import warmup_of
from omnitune.training.progress import RunLog
from omnitune.training.strategy import Strategy


class LossBatch(Protocol):
    """What the loop asks of a batch."""

    @property
    def num_targets(self) -> float:
        """Supervised tokens, by their weights."""

    def to(self, device: torch.device) -> LossBatch:
        """The batch on another device."""


class BatchAt(Protocol):
    """The micro-batches of a run."""

    def __call__(self, number: int, shard: Shard = ..., /) -> LossBatch | None:
        """A micro-batch, counted over the whole run, or a rank's shard; None for an empty one."""


@dataclass
class Plan:
    """How long a run is.

    Attributes:
        steps_per_epoch: optimiser updates of one pass.
        total_steps: of the whole run; ``max_steps`` has the last word, also beyond ``num_epochs``.
        notes: what differs from the configuration's words, in sentences.
    """

    steps_per_epoch: int
    total_steps: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: RunConfig, batches_per_epoch: int) -> Plan:
        """The plan of a configuration."""
        steps = max(1, -(-batches_per_epoch // config.gradient_accumulation))
        epochs = steps * config.num_epochs
        total, notes = config.max_steps or epochs, []
        if total > epochs:
            notes.append(
                f"max_steps is {total}, and {counted(config.num_epochs, 'epoch')} "
                f"{'holds' if config.num_epochs == 1 else 'hold'} {counted(epochs, 'step')}: "
                f"training goes on into epoch {-(-total // steps)}"
            )
        warmup = warmup_of(config.warmup_steps, total)
        if warmup < config.warmup_steps and "warmup_steps" in config.model_fields_set:
            notes.append(
                f"warmup_steps is {config.warmup_steps}, more than a tenth of the run's {total} "
                f"steps: the rate warms up over {warmup}"
            )
        return cls(steps, total, tuple(notes))

    @property
    def epochs(self) -> int:
        """Epochs that the run reaches into."""
        return -(-self.total_steps // self.steps_per_epoch)

    def epoch(self, step: int) -> int:
        """Epoch, counted from 1, that step ``step`` (counted from 1) belongs to."""
        return (step - 1) // self.steps_per_epoch + 1


@dataclass
class Run:
    """A training run.

    Attributes:
        model: ``loss_sums, counts = model(batch)``, by group.
        batch_at: micro-batch by its number, counted over the whole run, or a rank's shard of it.
        score: called with (step, epoch_ended) every ``log_every`` steps and after each epoch;
            what it returns is logged.
        rounded: brings a batch to one of few shapes without changing its losses, or None; told
            whether it is for a compiled model.
        compile: compiles what is worth it of the model, or None.
        strategy: what changes on the way (stage E), or None.
        ranks: the processes that share the steps.
        compare: takes the seconds of each step; what it returns is printed.
        state: JSON-able values that are saved and restored with the run.
        updating: between the first changed weight and the counting of the step, or while scores
            are written down: what there is now must not be saved.
        rng: state of torch's generator before the step under way, whose draws are thrown away if
            it is not finished.
        saved: step of the newest checkpoint, -1 for none of this process.
        frozen: sums of the weights that are never trained (``checkpoint.frozen_sums``).
        saving: the checkpoint that is being written. snapshot: the copy it is written from.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch_at: BatchAt
    plan: Plan
    config: RunConfig
    log: RunLog
    groups: list[str]
    score: Callable[[int, bool], dict[str, Any]]
    rounded: Callable[[Any, bool], LossBatch] | None = None
    compile: Callable[[], None] | None = None
    strategy: Strategy | None = None
    compare: Callable[[float], str] | None = None
    ranks: Distributed = field(default_factory=SingleProcess)
    state: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    updating: bool = False
    rng: Tensor | None = None
    saved: int = -1
    frozen: dict[str, float] | None = None
    saving: Future[None] | None = None
    snapshot: dict[str, Any] | None = None

    @property
    def batch_size(self) -> int:
        """Samples of a micro-batch, on average where it is sized by its tokens."""
        return getattr(self.batch_at, "batch_size", self.config.batch_size)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def autocast(self) -> torch.autocast:
        """The run's precision: bf16 products over fp32 weights, or nothing special."""
        bf16 = self.state["precision"] == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)
