"""The loop that stages A, B, C and E share. It knows steps, gradients, hooks and checkpoints."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from omnitune.data.packing import Batch
from omnitune.distributed.protocol import Share, Sums
from omnitune.training import checkpoint, precision
from omnitune.training.mix import AMOUNTS
from omnitune.training.optim import rate_factor, scale, set_rate, total_norm
from omnitune.training.prefetch import prefetch
from omnitune.training.run import Run

ECHO = 2.0  # seconds within which a second signal may be the first one, sent on


def train(run: Run) -> None:
    """Trains from ``run.step`` to the end of the plan.

    Whatever ends it, the last whole step is saved first. Ctrl-C takes effect after the step under
    way. The last step is saved before it is scored.
    """
    config, plan = run.config, run.plan
    for note in plan.notes:
        run.log.say(note)
    precision.resolve_precision(run)
    run.model.train()
    agreed = False
    with (
        _patient_interrupts(run.ranks.world_size > 1) as asked_to_stop,
        run.log.training_bar(plan.total_steps, run.step),
        prefetch(run) as fed,
    ):
        try:
            _score_if_due(run)
            while run.step < plan.total_steps:
                if run.ranks.any(asked_to_stop()):
                    agreed = True
                    raise KeyboardInterrupt
                _one_step(run, fed)
                if run.step == plan.total_steps:
                    checkpoint.save(run)
                _score_if_due(run)
                if run.step % config.save_every == 0 and run.step < plan.total_steps:
                    checkpoint.save(run)
            if run.ranks.any(asked_to_stop()):
                agreed = True
                raise KeyboardInterrupt
        except BaseException:
            # A step that was not begun or not finished leaves the weights of the last whole one.
            # To save a divided model takes all ranks, which have to know of it.
            if not run.updating and run.saved < run.step and (agreed or not run.ranks.sharded):
                checkpoint.save(run)
            checkpoint.finish_saving(run)
            raise
        checkpoint.finish_saving(run, last=True)


@contextmanager
def _patient_interrupts(several: bool) -> Iterator[Callable[[], bool]]:
    """Notes the first Ctrl-C (or polite kill) and lets only the second one through at once.

    An update that is half done cannot be saved: weights and step number would disagree.

    Args:
        several: processes; what has started them sends a signal on that they have already.
    """
    asked: list[float] = []

    def note(signum: int, frame: object) -> None:
        now = time.monotonic()
        if asked and not (several and now - asked[0] < ECHO):
            raise KeyboardInterrupt
        asked.append(now)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_step(run: Run, fed: Callable[[int], Share]) -> None:
    """One optimiser update; the step counts only once it is whole."""
    started = time.perf_counter()
    run.rng = torch.get_rng_state()
    rate = run.config.learning_rate * _rate_factor(run)
    run.ranks.begin(run.step)
    if run.ranks.rank:
        # What dropout draws must differ by rank, and not depend on where the run was started.
        torch.manual_seed(hash((run.config.seed, run.step, run.ranks.rank)))
    amounts, norm, each = update(run, fed)
    run.step += 1
    finite = math.isfinite(norm)
    if run.strategy:
        run.strategy.count(run.step, amounts if finite else None, each)
    run.updating, run.rng = False, None
    if not finite:  # left out of the record too: a NaN would spoil every mean
        run.log.warn(f"step {run.step}: the gradient is not finite; the update is left out")
        amounts, norm = {name: [0.0] * len(run.groups) for name in AMOUNTS}, 0.0
    seconds = time.perf_counter() - started
    run.log.step(
        amounts["loss"],
        amounts["supervised"],
        grad_norm=norm,
        learning_rate=rate,
        seconds=seconds,
    )
    if run.compare and (line := run.compare(seconds)):
        run.log.say(line)


Each = list[tuple[list[float], list[float]]]


def update(run: Run, fed: Callable[[int], Share]) -> tuple[dict[str, list[float]], float, Each]:
    """Gradients of this rank's share, their sum over the ranks, the update.

    Returns:
        what the step was made of on all ranks, by measure of ``AMOUNTS`` and group (samples and
        tokens are 0 without a strategy); the norm of the gradient of the mean loss: if that is
        not finite, nothing was updated; and of each micro-batch the losses and the weights of its
        samples (without a strategy nothing).
    """
    config, ranks = run.config, run.ranks
    first = run.step * config.gradient_accumulation
    if run.strategy:
        started = run.strategy.phases.begin(run.step, run.model)
        if started:
            run.log.say(started)
    set_rate(run.optimizer, _rate_factor(run))
    amounts_4G = torch.zeros(len(AMOUNTS), len(run.groups), device=run.device)
    shown_2G, learnt_2G = amounts_4G[:2], amounts_4G[2:]
    most = run.strategy.stream.most_samples if run.strategy else 0
    each_A2S = torch.zeros(config.gradient_accumulation, 2, most, device=run.device)
    targets = 0.0
    for n in range(config.gradient_accumulation):
        found = fed(first + n)
        last = n == config.gradient_accumulation - 1
        share = _by_sample(found, most) if run.strategy else found
        if (sums_G := ranks.accumulate(run.model, share, last, run.autocast)) is None:
            continue
        targets += found.targets
        if run.strategy:
            shown_2G += cast(Batch, found.batch).shown_2G
            learnt_2G += _by_group(run, cast(Batch, found.batch), sums_G, each_A2S[n])
        else:
            learnt_2G += torch.stack([sums_G[1], sums_G[0]])
    values = torch.cat([amounts_4G.flatten(), each_A2S.flatten()]).tolist()
    targets, *sums = ranks.sum([targets, *values])
    norm = _apply(run, max(1.0, targets))  # of the whole step, which only now are known
    size = len(run.groups)
    amounts = {name: sums[n * size : (n + 1) * size] for n, name in enumerate(AMOUNTS)}
    rest = sums[len(AMOUNTS) * size :]
    starts = range(0, len(rest), 2 * most or 1)
    each = [(rest[k : k + most], rest[k + most : k + 2 * most]) for k in starts]
    return amounts, norm, each


def _by_sample(share: Share, most: int) -> Share:
    """A share whose losses are told by sample of the whole micro-batch, not by group."""
    if share.batch is None:
        return share
    batch = cast(Batch, share.batch)
    return share._replace(batch=replace(batch, group_N=batch.sample_N, num_groups=most))


def _by_group(run: Run, batch: Batch, sums_S: Sums, each_2S: Tensor) -> Tensor:
    """A micro-batch's weights and losses by group.

    Args:
        sums_S: its losses and weights by sample.
        each_2S: losses and weights of the samples of the whole micro-batch; added to.
    """
    found_2S = torch.stack(sums_S)
    each_2S += found_2S
    group_S = batch.sample_N.new_zeros(each_2S.shape[1])
    group_S.scatter_(0, batch.sample_N, batch.group_N)
    sums_2G = found_2S.new_zeros(2, len(run.groups)).index_add_(1, group_S, found_2S)
    return sums_2G.flip(0)


def _apply(run: Run, targets: float) -> float:
    """Updates the weights by the gradients, divided once and clipped; returns their norm."""
    gradients = [
        p.grad
        for group in run.optimizer.param_groups
        for p in group["params"]
        if p.grad is not None
    ]
    each = run.ranks.world_size / targets  # gradients are means over the ranks
    norm = total_norm(gradients) * each
    run.updating = True
    if gradients and math.isfinite(norm):
        clip = min(1.0, run.config.max_grad_norm / (norm + 1e-6))
        scale(gradients, clip * each)
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return norm


def _rate_factor(run: Run) -> float:
    config = run.config
    factor = rate_factor(run.step, run.plan.total_steps, config.warmup_steps, config.min_lr_ratio)
    return factor * (run.strategy.phases.rate(run.step) if run.strategy else 1.0)


def _score_if_due(run: Run) -> None:
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
    with run.autocast() if run.device.type == "cuda" else nullcontext():
        scores = run.ranks.scores(run.model, lambda: run.score(run.step, epoch_ended))
    run.model.train()
    seconds = time.perf_counter() - started
    if scores or run.step:
        notes = run.strategy.notes(run.step, scores) if run.strategy and run.step else {}
        run.log.scores(run.step, run.plan.epoch(run.step), scores, epoch_ended, seconds, notes)
    run.state["scored"] = run.step
