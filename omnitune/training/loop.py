"""The loop that stages A, B, C and E share. It knows steps, gradients, hooks and checkpoints."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from omnitune.config import RunConfig
from omnitune.training import checkpoint, compute
from omnitune.training.feed import Fed, feed
from omnitune.training.optim import rate_factor, set_rate
from omnitune.training.progress import RunLog


class LossBatch(Protocol):
    """What the loop asks of a batch."""

    @property
    def num_targets(self) -> float:
        """Supervised tokens, by their weights."""

    def to(self, device: torch.device) -> LossBatch:
        """The batch on another device."""


@dataclass
class Plan:
    """How long a run is.

    Attributes:
        steps_per_epoch: optimiser updates of one pass.
        total_steps: of the whole run.
    """

    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, config: RunConfig, batches_per_epoch: int) -> Plan:
        """The plan of a configuration."""
        steps = max(1, -(-batches_per_epoch // config.gradient_accumulation))
        total = steps * config.num_epochs
        return cls(steps, min(total, config.max_steps or total))

    def epoch(self, step: int) -> int:
        """Epoch, counted from 1, that step ``step`` (counted from 1) belongs to."""
        return (step - 1) // self.steps_per_epoch + 1


@dataclass
class Run:
    """A training run.

    Attributes:
        model: ``loss_sums, counts = model(batch)``, by group.
        batch_at: micro-batch by its number, counted over the whole run.
        score: called with (step, epoch_ended) every ``log_every`` steps and after each epoch;
            what it returns is logged.
        rounded: brings a batch to one of few shapes without changing its losses, or None.
        compile: compiles what is worth it of the model, or None.
        state: JSON-able values that are saved and restored with the run.
        pace: seconds of the first steps, until it is decided whether to compile.
        updating: between the first changed weight and the counting of the step.
        saving: the checkpoint that is being written. snapshot: the copy it is written from.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch_at: Callable[[int], LossBatch]
    plan: Plan
    config: RunConfig
    log: RunLog
    groups: list[str]
    score: Callable[[int, bool], dict[str, Any]]
    rounded: Callable[[Any], LossBatch] | None = None
    compile: Callable[[], None] | None = None
    state: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    pace: list[float] = field(default_factory=list)
    updating: bool = False
    saving: Future[None] | None = None
    snapshot: dict[str, Any] | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def autocast(self) -> torch.autocast:
        """The run's precision: bf16 products over fp32 weights, or nothing special."""
        bf16 = self.state["precision"] == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)


def train(run: Run) -> None:
    """Trains from ``run.step`` to the end of the plan.

    Ctrl-C takes effect after the step under way: the state is saved, then the interrupt goes on.
    """
    config, plan = run.config, run.plan
    compute.settle(run)
    run.model.train()
    with (
        run.log.training_bar(plan.total_steps, run.step),
        _patient_interrupts() as asked_to_stop,
        feed(run) as fed,
    ):
        try:
            _score_if_due(run)
            while run.step < plan.total_steps:
                if asked_to_stop():
                    raise KeyboardInterrupt
                _one_step(run, fed)
                _score_if_due(run)
                if run.step % config.save_every == 0 and run.step < plan.total_steps:
                    checkpoint.save(run)
            if asked_to_stop():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            if not run.updating:
                checkpoint.save(run)
            raise
        finally:
            checkpoint.finish_saving(run)


@contextmanager
def _patient_interrupts() -> Iterator[Callable[[], bool]]:
    """Notes the first Ctrl-C (or polite kill) and lets only the second one through at once.

    An update that is half done cannot be saved: weights and step number would disagree.
    """
    asked: list[int] = []

    def note(signum: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_step(run: Run, fed: Callable[[int], Fed]) -> None:
    """One optimiser update; the step counts only once it is whole."""
    config = run.config
    started = time.perf_counter()
    first = run.step * config.gradient_accumulation
    batches = [fed(first + n) for n in range(config.gradient_accumulation)]
    targets = sum(found.targets for found in batches)
    factor = rate_factor(run.step, run.plan.total_steps, config.warmup_steps, config.min_lr_ratio)
    set_rate(run.optimizer, factor)
    loss_sums, counts = [], []
    for found in batches:
        with run.autocast():
            sums_G, counts_G = run.model(found.batch)
        (sums_G.sum() / max(1.0, targets)).backward()
        loss_sums.append(sums_G.detach())
        counts.append(counts_G)
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm, foreach=True)
    run.updating = True
    if torch.isfinite(norm):
        run.optimizer.step()
    else:  # left out of the record too: a NaN there would spoil every mean
        run.log.warn(f"step {run.step + 1}: the gradient is not finite; the update is left out")
        norm, loss_sums, counts = (
            torch.zeros_like(norm),
            [torch.zeros_like(x) for x in loss_sums],
            [torch.zeros_like(x) for x in counts],
        )
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    run.updating = False
    seconds = time.perf_counter() - started
    run.log.step(
        run.step,
        torch.stack(loss_sums).sum(0).tolist(),
        torch.stack(counts).sum(0).tolist(),
        grad_norm=float(norm),
        learning_rate=config.learning_rate * factor,
        seconds=seconds,
    )
    compute.reconsider(run, seconds)


def _score_if_due(run: Run) -> None:
    """Scores every ``log_every`` steps and after each epoch; once, also if that was interrupted."""
    epoch_ended = run.step % run.plan.steps_per_epoch == 0 or run.step == run.plan.total_steps
    due = run.step % run.config.log_every == 0 or epoch_ended
    if not due or run.step == run.state.get("scored", 0):
        return
    started = time.perf_counter()
    run.model.eval()
    # Answers grow by a token at a time: on a CPU bf16 would build kernels for each length.
    with run.autocast() if run.device.type == "cuda" else nullcontext():
        scores = run.score(run.step, epoch_ended)
    run.model.train()
    seconds = time.perf_counter() - started
    run.log.scores(run.step, run.plan.epoch(run.step), scores, epoch_ended, seconds)
    run.state["scored"] = run.step
