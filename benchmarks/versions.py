"""The ways of training that are compared: the library's Trainer, omnitune, omnitune less one thing.

Shape suffixes: B rows, L longest row, E embedding width, N supervised tokens.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.trainer import IGNORED, WARM_UP, LibraryTrainer, PaddedOmni, Timing, collate
from benchmarks.workload import Bench
from omnitune.config.sft import SftConfig
from omnitune.data.loader import take
from omnitune.data.packing import WHOLE, Shard, pack, share_prefix
from omnitune.data.rounding import round_up
from omnitune.distributed.protocol import Share
from omnitune.evaluation.scoring import pick, scoreboard
from omnitune.models import attention
from omnitune.training.checkpoint import copied
from omnitune.training.loop import update
from omnitune.training.optim import build_optimizer
from omnitune.training.prefetch import Prefetcher
from omnitune.training.run import Plan, Run
from omnitune.training.strategy import headline_tasks

SCORED_FROM = 200  # samples of each source
MANY_STEPS = 10_000


class Omnitune:
    """The steps of stage E.

    Args:
        cached: encoders run once, before the first step.
        share: of the samples whose questions are one conversation; the others ask each alone.
        shared: questions alone share the tokens that all begin with.
        padded: right-padded rows and every logit, in place of one row.
        few_logits: logits at supervised positions only.
        compiled, checkpointed: as the settings of these names.
        varlen: attention without padding, where there is such.
        few_rows: of the last layer's feed-forward part only rows that are read.
    """

    def __init__(
        self,
        bench: Bench,
        share: float,
        bf16: bool = False,
        cached: bool = True,
        shared: bool = True,
        padded: bool = False,
        few_logits: bool = True,
        compiled: bool = False,
        checkpointed: bool = False,
        varlen: bool = True,
        few_rows: bool = True,
    ) -> None:
        self.bench, self.share, self.shared = bench, share, shared
        self.device = bench.model.device
        self.bf16, self.padded = bf16, padded
        self.compiled = compiled or self.device.type == "cuda"
        self.rounded = bf16 or self.compiled
        if compiled:
            bench.model.compile_decoder()
        if checkpointed:
            bench.model.checkpoint_activations()
        if not varlen:
            attention.varlen_attn = None
        if not few_rows:
            bench.model._last_layer = None
        self.encoding_seconds = 0.0
        features = None
        if cached:
            features, self.encoding_seconds = bench.encode()
        self.reader = bench.reader(features)
        self.model: nn.Module = bench.model
        if padded:
            self.model = _PaddedOnFeatures(bench)
        elif not few_logits:
            self.model = _EveryLogit(bench)
        config = bench.settings
        self.optimizer = build_optimizer(self.model, config, bench.rates)
        self.step = Run(
            model=self.model,
            optimizer=self.optimizer,
            batch_at=self._batch_at,
            plan=Plan(MANY_STEPS, MANY_STEPS),
            config=config,
            log=cast(Any, None),
            groups=["all"],
            score=lambda step, ended: {},
            state={"precision": "bf16" if bf16 else "fp32"},
        )

    def close(self) -> None:
        """Nothing is to be ended."""

    def run(self, first: int, steps: int) -> Timing:
        """Trains ``steps`` steps from sample ``first`` on."""
        timing = Timing([])
        self.model.train()
        start = first // self.bench.batch_size
        last = start + WARM_UP + steps
        clocks = []
        with self._batches(last) as batch_at:
            for number in range(start, last):
                started = time.perf_counter()
                clock = Clock(self.device)
                self._step(number, batch_at, clock)
                if number >= start + WARM_UP:
                    timing.seconds.append(time.perf_counter() - started)
                    clocks.append(clock)
        for clock in clocks:
            timing.parts += clock.parts()
        return timing

    def _step(self, number: int, batch_at: Callable[[int], Any], clock: Clock) -> None:
        """A step of the loop, with its time booked by part."""
        run, ranks, lap = self.step, self.step.ranks, clock.lap
        run.step = number

        def fed(number: int) -> Share:
            batch = batch_at(number)
            lap("data")
            return Share(batch, batch.num_targets)

        def add_up(values: Sequence[float]) -> list[float]:
            lap("backward")
            return list(values)

        forward = self.model.register_forward_hook(lambda *_: lap("forward"))
        ranks.sum = add_up  # type: ignore[method-assign]
        update(run, fed)
        forward.remove()
        lap("optimiser")

    def upkeep(self) -> dict[str, float]:
        """Seconds a step of scoring and of saving, spread over the steps between two of each.

        Of scoring an upper bound: weights that have learnt nothing answer at full length.
        """
        config = SftConfig(output_dir=Path("unused"))
        some = [s for samples in self.bench.training.values() for s in samples[:SCORED_FROM]]
        singles = pick(some, config.probe_questions, config.seed, headline_tasks())
        started = time.perf_counter()
        self.bench.model.eval()
        scoreboard(self.bench.model, self.reader, singles)
        scored = time.perf_counter()
        values = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        snapshot = copied(values, None)  # the first takes new memory, those after it do not
        copying = time.perf_counter()
        copied(values, snapshot)
        return {
            "evaluation": (scored - started) / config.log_every,
            "checkpoint": (time.perf_counter() - copying) / config.save_every,
        }

    def _batches(self, stop: int) -> Any:
        """Batches by number; on a GPU one ahead, as the loop has them."""
        if self.device.type == "cuda":
            return Prefetcher(self._batch_at, stop)
        return nullcontext(self._batch_at)

    def _batch_at(self, number: int, part: Shard = WHOLE) -> Any:
        first = number * self.bench.batch_size
        samples = []
        for k in range(first, first + self.bench.batch_size):
            samples.append(self.bench.items(self.reader, k, self.share))
            if self.shared and not self.padded:
                share_prefix(samples[-1])
        items = [item for found in take(samples, part) for item in found]
        if self.padded:
            return PaddedBatch(collate(items))
        batch = pack(items)
        return (round_up(batch, self.compiled) if self.rounded else batch).to(self.device)


class Clock:
    """Books the time between two laps; on a GPU its own time, which nothing waits for."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.laps: list[tuple[str, Any]] = []
        self.lap("")

    def lap(self, name: str) -> None:
        """What went on since the last lap was ``name``."""
        if self.cuda:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self.laps.append((name, now))

    def parts(self) -> Counter[str]:
        """Seconds by name."""
        parts: Counter[str] = Counter()
        if self.cuda:
            torch.cuda.synchronize()
        for (_, begin), (name, end) in itertools.pairwise(self.laps):
            parts[name] += begin.elapsed_time(end) / 1000 if self.cuda else end - begin
        return parts


@dataclass
class PaddedBatch:
    """Padded rows as the loop takes a batch."""

    columns: dict[str, Any]

    @property
    def num_targets(self) -> int:
        """Supervised tokens; the library does not predict a row's first."""
        return int((self.columns["labels"][:, 1:] != IGNORED).sum())


class _PaddedOnFeatures(nn.Module):
    """Padded rows whose media are encoded already."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.padded = PaddedOmni(bench, cached=True)

    def forward(self, batch: PaddedBatch) -> tuple[Tensor, Tensor]:
        """The library's loss as the loop takes it."""
        loss = self.padded(**batch.columns)["loss"]
        count = loss.new_tensor([batch.num_targets])
        return loss * count, count


class _EveryLogit(nn.Module):
    """Packed rows, but logits of every token of the row, as libraries compute them."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.omni = bench.model

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The same losses from all logits."""
        places = torch.arange(len(batch.tokens_T), device=batch.tokens_T.device)
        logits_TV = self.omni._logits(replace(batch, predict_N=places))
        logits_NV = logits_TV.index_select(0, batch.predict_N)
        nll_N = self.omni._nll(logits_NV, batch.labels_N)
        return nll_N.sum()[None], batch.weight_N.sum()[None]


def _omnitune(**options: Any) -> Callable[[Bench, bool, bool], Omnitune]:
    return lambda bench, share, bf16: Omnitune(bench, share, bf16, **options)


TRAINER = "Trainer, padded rows"
VERSIONS: dict[str, Callable[[Bench, float, bool], Any]] = {
    TRAINER: LibraryTrainer,
    "omnitune": _omnitune(),
    "  without the feature cache": _omnitune(cached=False),
    "  with padded rows": _omnitune(padded=True),
    "  with every logit": _omnitune(few_logits=False),
    "  without shared questions": _omnitune(shared=False),
    "  with every row of the last layer": _omnitune(few_rows=False),
    "omnitune, compiled": _omnitune(compiled=True),
    "  with checkpointed activations": _omnitune(compiled=True, checkpointed=True),
    "  with padded attention": _omnitune(compiled=True, varlen=False),
    "  compiled, without the cache": _omnitune(compiled=True, cached=False),
    "Trainer, encoding in each step": lambda bench, share, bf16: LibraryTrainer(
        replace(bench, peer=replace(bench.peer, cached=False)), share, bf16
    ),
}


def choose(text: str) -> list[str]:
    """The versions that are named between bars, with or without the blanks before them.

    Raises:
        SystemExit: there is none of a name.
    """
    there = {name.strip(): name for name in VERSIONS}
    asked = [name.strip() for name in text.split("|")]
    if unknown := [name for name in asked if name not in there]:
        known = ", ".join(map(repr, there))
        raise SystemExit(f"--versions: there is no {unknown[0]!r}; there are {known}")
    return [there[name] for name in asked]
