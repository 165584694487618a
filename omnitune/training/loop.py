"""The loop that stages A, B, C and E share. It knows steps, gradients, hooks and checkpoints."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from omnitune.config.run import RunConfig
from omnitune.data.packing import Shard
from omnitune.distributed.forked import Helper, Team, choose_ranks, team_of
from omnitune.training import checkpoint, precision
from omnitune.training.optim import rate_factor, set_rate, warmup_of
from omnitune.training.prefetch import DeviceBatch, prefetch
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

    def __call__(self, number: int, part: Shard = ..., /) -> LossBatch | None:
        """A micro-batch, counted over the whole run, or a part of it; None for an empty part."""


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
        total = config.max_steps or epochs
        notes = []
        if total > epochs:
            notes.append(
                f"max_steps is {total}, and {config.num_epochs} epochs hold {epochs} steps: "
                f"training goes on into epoch {-(-total // steps)}"
            )
        warmup = warmup_of(config.warmup_steps, total)
        if warmup < config.warmup_steps:
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
        batch_at: micro-batch by its number, counted over the whole run, or a part of it.
        score: called with (step, epoch_ended) every ``log_every`` steps and after each epoch;
            what it returns is logged.
        rounded: brings a batch to one of few shapes without changing its losses, or None.
        compile: compiles what is worth it of the model, or None.
        strategy: what changes on the way (stage E), or None.
        state: JSON-able values that are saved and restored with the run.
        pace: seconds of the first steps, until it is decided whether to compile.
        updating: between the first changed weight and the counting of the step.
        rng: state of torch's generator before the step under way, whose draws are thrown away if
            it is not finished.
        saved: step of the newest checkpoint, -1 for none of this process.
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
    rounded: Callable[[Any], LossBatch] | None = None
    compile: Callable[[], None] | None = None
    strategy: Strategy | None = None
    state: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    pace: list[float] = field(default_factory=list)
    updating: bool = False
    rng: Tensor | None = None
    saved: int = -1
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

    Whatever ends it, the last whole step is saved first. Ctrl-C takes effect after the step under
    way. The last step is saved before it is scored.
    """
    config, plan = run.config, run.plan
    for note in plan.notes:
        run.log.say(note)
    ranks = choose_ranks(config, run.model, plan.total_steps if run.compile else 0)
    precision.resolve_precision(run, ranks)
    run.model.train()
    with (
        _patient_interrupts() as asked_to_stop,
        team_of(ranks, run.optimizer, partial(_help, run)) as team,
        run.log.training_bar(plan.total_steps, run.step),
        prefetch(run, team.part) as fed,
    ):
        try:
            _score_if_due(run, team)
            while run.step < plan.total_steps:
                if asked_to_stop():
                    raise KeyboardInterrupt
                _one_step(run, fed, team)
                if run.step == plan.total_steps:
                    checkpoint.save(run)
                _score_if_due(run, team)
                if run.step % config.save_every == 0 and run.step < plan.total_steps:
                    checkpoint.save(run)
            if asked_to_stop():
                raise KeyboardInterrupt
        except BaseException:
            # A step that was not begun or not finished leaves the weights of the last whole one.
            if not run.updating and run.saved < run.step:
                checkpoint.save(run)
            checkpoint.finish_saving(run)
            raise
        checkpoint.finish_saving(run, last=True)


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


class StepResult(NamedTuple):
    """What a step did, over all its micro-batches and ranks.

    Attributes:
        loss_sums, counts: by group.
        shown: samples, then tokens, by group; zeros where no strategy counts them.
        norm: of the gradient of the mean loss; not finite if the update was left out.
    """

    loss_sums: list[float]
    counts: list[float]
    norm: float
    shown: list[float]


def _one_step(run: Run, fed: Callable[[int], DeviceBatch], team: Team) -> None:
    """One optimiser update; the step counts only once it is whole."""
    started = time.perf_counter()
    run.rng = torch.get_rng_state()
    rate = run.config.learning_rate * _rate_factor(run)
    team.begin_step(run.strategy.decisions if run.strategy else None)
    found = update(run, fed, team)
    team.end_step()
    run.step += 1
    run.updating, run.rng = False, None
    if not math.isfinite(found.norm):  # left out of the record too: a NaN would spoil every mean
        run.log.warn(f"step {run.step}: the gradient is not finite; the update is left out")
        zeros = [0.0] * len(run.groups)
        found = StepResult(zeros, zeros, 0.0, [*zeros, *zeros])
    elif run.strategy:
        run.strategy.count(run.step, found)
    seconds = time.perf_counter() - started
    run.log.step(
        run.step,
        found.loss_sums,
        found.counts,
        grad_norm=found.norm,
        learning_rate=rate,
        seconds=seconds,
    )
    precision.maybe_compile(run, seconds)


def _help(run: Run, team: Helper) -> None:
    """What a rank other than 0 does."""
    with prefetch(run, team.part) as fed:
        for decisions in team.steps():
            if run.strategy:
                run.strategy.decisions = decisions
            # What dropout draws must differ by rank, and not depend on where the run was started.
            torch.manual_seed(hash((run.config.seed, run.step, team.part.rank)))
            update(run, fed, team)
            run.step += 1


def update(run: Run, fed: Callable[[int], DeviceBatch], team: Team) -> StepResult:
    """Gradients of this rank's part, their sum over the ranks, and the update of what it owns."""
    config = run.config
    first = run.step * config.gradient_accumulation
    if run.strategy:
        run.strategy.begin(run, aloud=team.part.rank == 0)
    set_rate(run.optimizer, _rate_factor(run))
    loss_sums, counts = torch.zeros(2, len(run.groups), device=run.device)
    shown_2G = torch.zeros(2, len(run.groups), device=run.device)
    targets = 0.0
    for n in range(config.gradient_accumulation):
        found = fed(first + n)
        if found.batch is None:
            continue
        with run.autocast():
            sums_G, counts_G = run.model(found.batch)
        sums_G.sum().backward()
        loss_sums += sums_G.detach()
        counts += counts_G
        targets += found.targets
        if run.strategy:
            shown_2G += run.strategy.shown(found.batch)
    rows_G = (loss_sums, counts, *shown_2G)
    summed = team.add_gradients([targets, *(x for row_G in rows_G for x in row_G.tolist())])
    # The mean over the whole step's tokens, which only now is known.
    targets, sums = max(1.0, summed[0]), summed[1:]
    gradients = [
        p.grad
        for group in run.optimizer.param_groups
        for p in group["params"]
        if p.grad is not None
    ]
    norm = math.sqrt(team.add(float(nn.utils.get_total_norm(gradients, foreach=True)) ** 2))
    norm /= targets
    run.updating = True
    if gradients and math.isfinite(norm):
        clip = min(1.0, config.max_grad_norm / (norm + 1e-6))
        torch._foreach_mul_(gradients, clip / targets)
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    groups = len(run.groups)
    return StepResult(sums[:groups], sums[groups : 2 * groups], norm, sums[2 * groups :])


def _rate_factor(run: Run) -> float:
    config = run.config
    factor = rate_factor(run.step, run.plan.total_steps, config.warmup_steps, config.min_lr_ratio)
    return factor * (run.strategy.rate(run.step) if run.strategy else 1.0)


def _score_if_due(run: Run, team: Team) -> None:
    """Scores before the first step, every ``log_every`` steps and after each epoch.

    Once each, also if that was interrupted.
    """
    epoch_ended = run.step % run.plan.steps_per_epoch == 0 or run.step == run.plan.total_steps
    epoch_ended = epoch_ended and run.step > 0
    due = run.step % run.config.log_every == 0 or epoch_ended
    if not due or run.step == run.state.get("scored", -1):
        return
    started = time.perf_counter()
    run.model.eval()
    # Answers grow by a token at a time: on a CPU bf16 would build kernels for each length.
    with team.resting(), run.autocast() if run.device.type == "cuda" else nullcontext():
        scores = run.score(run.step, epoch_ended)
    run.model.train()
    seconds = time.perf_counter() - started
    if scores or run.step:
        notes = run.strategy.notes(run.step, scores) if run.strategy and run.step else {}
        run.log.scores(run.step, run.plan.epoch(run.step), scores, epoch_ended, seconds, notes)
    run.state["scored"] = run.step
