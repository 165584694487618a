"""The loop that stages A, B, C and E share. It knows steps, gradients, hooks and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from omnitune.data.packing import Batch
from omnitune.distributed.protocol import Distributed
from omnitune.training import checkpoint, precision
from omnitune.training.best import keep_best
from omnitune.training.mix import AMOUNTS
from omnitune.training.numbers import notes_of, watch_step
from omnitune.training.optim import rate_factor, set_rate
from omnitune.training.prefetch import DeviceBatch, prefetch
from omnitune.training.ranks import choose_ranks, open_ranks
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
    with (
        patient_signals(config.stop_after_seconds) as asked_to_stop,
        open_ranks(
            choose_ranks(run), run.optimizer, partial(_follow, run), _values_of(run)
        ) as ranks,
        run.log.training_bar(plan.total_steps, run.step),
        prefetch(run, ranks.shard) as fed,
    ):
        try:
            _score_if_due(run, ranks)
            while run.step < plan.total_steps:
                if asked_to_stop():
                    asked_to_stop.stop()
                _one_step(run, fed, ranks)
                if run.step == plan.total_steps:
                    checkpoint.save(run)
                _score_if_due(run, ranks)
                if run.step % config.save_every == 0 and run.step < plan.total_steps:
                    checkpoint.save(run)
            if asked_to_stop.asked:
                asked_to_stop.stop()
        except BaseException:
            # A step that was not begun or not finished leaves the weights of the last whole one.
            if not run.updating and run.saved < run.step:
                checkpoint.save(run)
            checkpoint.finish_saving(run, leaving=True)
            raise
        checkpoint.finish_saving(run, last=True)


def _one_step(run: Run, fed: Callable[[int], DeviceBatch], ranks: Distributed) -> None:
    """One optimiser update; the step counts only once it is whole."""
    started = time.perf_counter()
    run.rng = torch.get_rng_state()
    rate = run.config.learning_rate * _rate_factor(run)
    ranks.broadcast(run.state.get("weights"))  # what was decided on the mix
    amounts, norm, each = update(run, fed, ranks)
    ranks.end_step()
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


def _follow(run: Run, ranks: Distributed) -> None:
    """The steps of a rank other than 0, until rank 0 ends."""
    with prefetch(run, ranks.shard) as fed:
        while True:
            run.state["weights"] = ranks.broadcast() or []
            # What dropout draws must differ by rank, and not depend on where the run was started.
            torch.manual_seed(hash((run.config.seed, run.step, ranks.rank)))
            update(run, fed, ranks)
            ranks.end_step()
            run.step += 1


Each = list[tuple[list[float], list[float]]]


def update(
    run: Run, fed: Callable[[int], DeviceBatch], ranks: Distributed
) -> tuple[dict[str, list[float]], float, Each]:
    """Gradients of this rank's shard, their sum over the ranks, the update of what it owns.

    Returns:
        what the step was made of on all ranks, by measure of ``AMOUNTS`` and group (samples and
        tokens are 0 without a strategy); the norm of the gradient of the mean loss: if that is
        not finite, nothing was updated; and of each micro-batch the losses and the weights of its
        samples (without a strategy nothing).
    """
    config = run.config
    first = run.step * config.gradient_accumulation
    if run.strategy:
        started = run.strategy.phases.begin(run.step, run.model)
        if started and ranks.rank == 0:
            run.log.say(started)
    set_rate(run.optimizer, _rate_factor(run))
    amounts_4G = torch.zeros(len(AMOUNTS), len(run.groups), device=run.device)
    shown_2G, learnt_2G = amounts_4G[:2], amounts_4G[2:]
    most = run.strategy.stream.most_samples if run.strategy else 0
    each_A2S = torch.zeros(config.gradient_accumulation, 2, most, device=run.device)
    targets = 0.0
    for n in range(config.gradient_accumulation):
        found = fed(first + n)
        if found.batch is None:
            continue
        if run.strategy:
            batch = cast(Batch, found.batch)
            shown_2G += batch.shown_2G
            learnt_2G += _backward_by_sample(run, batch, each_A2S[n])
        else:
            with run.autocast():
                loss_G, count_G = run.model(found.batch)
            loss_G.sum().backward()
            learnt_2G += torch.stack([count_G, loss_G.detach()])
        targets += found.targets
    values = torch.cat([amounts_4G.flatten(), each_A2S.flatten()]).tolist()
    targets, *sums = ranks.add_gradients([targets, *values])
    # Of the whole step, which only now are known. A loss that is not finite leaves it out, even
    # where its gradient is.
    norm = _apply(run, ranks, max(1.0, targets) if math.isfinite(sum(sums)) else math.nan)
    size = len(run.groups)
    amounts = {name: sums[n * size : (n + 1) * size] for n, name in enumerate(AMOUNTS)}
    rest = sums[len(AMOUNTS) * size :]
    starts = range(0, len(rest), 2 * most or 1)
    each = [(rest[k : k + most], rest[k + most : k + 2 * most]) for k in starts]
    return amounts, norm, each


def _backward_by_sample(run: Run, batch: Batch, each_2S: Tensor) -> Tensor:
    """Gradients of a micro-batch, by sample; returns its weights and losses by group.

    Args:
        each_2S: losses and weights of the samples of the whole micro-batch; added to.
    """
    most = each_2S.shape[1]
    with run.autocast():
        loss_S, count_S = run.model(replace(batch, group_N=batch.sample_N, num_groups=most))
    loss_S.sum().backward()
    found_2S = torch.stack([loss_S.detach(), count_S])
    each_2S += found_2S
    group_S = batch.sample_N.new_zeros(most).scatter_(0, batch.sample_N, batch.group_N)
    sums_2G = found_2S.new_zeros(2, len(run.groups)).index_add_(1, group_S, found_2S)
    return sums_2G.flip(0)


def _apply(run: Run, ranks: Distributed, targets: float) -> float:
    """Updates the weights by the gradients, divided once and clipped; returns their norm."""
    gradients = [
        p.grad
        for group in run.optimizer.param_groups
        for p in group["params"]
        if p.grad is not None
    ]
    norm = math.sqrt(ranks.add(float(nn.utils.get_total_norm(gradients, foreach=True)) ** 2))
    norm /= targets
    run.updating = True
    if gradients and math.isfinite(norm):
        clip = min(1.0, run.config.max_grad_norm / (norm + 1e-6))
        torch._foreach_mul_(gradients, clip / targets)
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return norm


def _values_of(run: Run) -> int:
    """Numbers that the ranks of a run add up beside the gradients."""
    samples = run.strategy.stream.most_samples if run.strategy else 0
    samples *= run.config.gradient_accumulation
    return 1 + len(AMOUNTS) * len(run.groups) + 2 * samples


def _rate_factor(run: Run) -> float:
    config = run.config
    factor = rate_factor(run.step, run.plan.total_steps, config.warmup_steps, config.min_lr_ratio)
    return factor * (run.strategy.phases.rate(run.step) if run.strategy else 1.0)


def _score_if_due(run: Run, ranks: Distributed) -> None:
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
    with ranks.resting(), run.autocast() if run.device.type == "cuda" else nullcontext():
        scores = run.score(run.step, epoch_ended)
    run.model.train()
    seconds = time.perf_counter() - started
    if scores or run.step:
        notes = run.strategy.notes(run.step, scores) if run.strategy and run.step else {}
        notes |= notes_of(run.state)
        run.log.scores(run.step, run.plan.epoch(run.step), scores, epoch_ended, seconds, notes)
        keep_best(run, scores, epoch_ended)
    run.state["scored"] = run.step
