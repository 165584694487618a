"""The loop that stages A, B, C and E share. It knows steps, gradients, hooks and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from omnitune.data.packing import Batch
from omnitune.distributed.protocol import Share
from omnitune.training import checkpoint, precision
from omnitune.training.best import keep_best
from omnitune.training.mix import AMOUNTS
from omnitune.training.numbers import notes_of, watch_step
from omnitune.training.optim import rate_factor, scale, set_rate, total_norm
from omnitune.training.prefetch import prefetch
from omnitune.training.run import Run
from omnitune.training.stopping import patient_signals


def train(run: Run) -> None:
    """Trains from ``run.step`` to the end of the plan.

    Whatever ends it, the last whole step is saved first. A signal takes effect after the step under
    way. The last step is saved before it is scored.
    """
    config, plan = run.config, run.plan
    for note in plan.notes:
        run.log.say(note)
    precision.resolve_precision(run)
    run.model.train()
    agreed = False
    with (
        patient_signals(config.stop_after_seconds, run.ranks.world_size > 1) as asked_to_stop,
        run.log.training_bar(plan.total_steps, run.step),
        prefetch(run) as fed,
    ):
        try:
            _score_if_due(run)
            while run.step < plan.total_steps:
                if run.ranks.any(asked_to_stop()):
                    agreed = True
                    asked_to_stop.stop()
                _one_step(run, fed)
                if run.step == plan.total_steps:
                    checkpoint.save(run)
                _score_if_due(run)
                if run.step % config.save_every == 0 and run.step < plan.total_steps:
                    checkpoint.save(run)
            if run.ranks.any(bool(asked_to_stop.asked)):
                agreed = True
                asked_to_stop.stop()
        except BaseException:
            # A step that was not begun or not finished leaves the weights of the last whole one.
            # To save a divided model takes all ranks, which have to know of it.
            if not run.updating and run.saved < run.step and (agreed or not run.ranks.sharded):
                checkpoint.save(run)
            checkpoint.finish_saving(run, leaving=True)
            if agreed:  # torchrun ends the others when one has ended: rank 0 may be writing still
                run.ranks.share(None)
            raise
        checkpoint.finish_saving(run, last=True)


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
    reads = run.strategy.count(run.step, amounts if finite else None, each) if run.strategy else []
    run.updating, run.rng = False, None
    watch_step(run, sum(amounts["loss"]) / max(1.0, sum(amounts["supervised"])), norm, reads, each)
    if not finite:  # left out of the record too: a NaN would spoil every mean
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
        found, batch = fed(first + n), None
        if run.strategy and found.batch is not None:
            batch = cast(Batch, found.batch)
            by_sample = replace(batch, group_N=batch.sample_N, num_groups=most)
            found = found._replace(batch=by_sample)
        last = n == config.gradient_accumulation - 1
        if (sums := ranks.accumulate(run.model, found, last, run.autocast)) is None:
            continue
        targets += found.targets
        sums_2 = torch.stack(sums)
        if batch is not None:
            each_A2S[n] += sums_2
            shown_2G += batch.shown_2G
            sums_2 = _by_group(batch, sums_2, len(run.groups))
        learnt_2G += sums_2.flip(0)
    values = torch.cat([amounts_4G.flatten(), each_A2S.flatten()]).tolist()
    targets, *totals = ranks.sum([targets, *values])
    # Of the whole step, which only now are known. A loss that is not finite leaves it out, even
    # where its gradient is.
    norm = _apply(run, max(1.0, targets) if math.isfinite(sum(totals)) else math.nan)
    size = len(run.groups)
    amounts = {name: totals[n * size : (n + 1) * size] for n, name in enumerate(AMOUNTS)}
    rest = totals[len(AMOUNTS) * size :]
    starts = range(0, len(rest), 2 * most or 1)
    each = [(rest[k : k + most], rest[k + most : k + 2 * most]) for k in starts]
    return amounts, norm, each


def _by_group(batch: Batch, sums_2S: Tensor, groups: int) -> Tensor:
    """Sums by sample as sums by group: ``[2, G]``."""
    group_S = batch.sample_N.new_zeros(sums_2S.shape[1])
    group_S.scatter_(0, batch.sample_N, batch.group_N)
    return sums_2S.new_zeros(2, groups).index_add_(1, group_S, sums_2S)


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
    told = keep_best(run, scores, epoch_ended) if scores or run.step else ""
    run.updating = True  # a run that breaks off within this would draw its mix twice
    if scores or run.step:
        notes = run.strategy.notes(run.step, scores) if run.strategy and run.step else {}
        notes |= notes_of(run.state)
        run.log.scores(run.step, run.plan.epoch(run.step), scores, epoch_ended, seconds, notes)
    run.state["scored"] = run.step
    run.updating = False
    if told:
        run.log.say(told)
