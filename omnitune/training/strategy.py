"""What stage E changes while it runs: phases, the mix; and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnitune.config.sft import SftConfig
from omnitune.data.loader import WINDOW, BatchStream, SampleReader
from omnitune.data.reading import all_task_counts, split_of
from omnitune.data.samples import Samples
from omnitune.data.schedule import SamplingSchedule
from omnitune.models.omni import OmniModel
from omnitune.tasks import headlines
from omnitune.training import mix
from omnitune.training.adaptive_mix import AdaptiveMix
from omnitune.training.phases import Phases
from omnitune.training.receipt import add_reads, receipt_of
from omnitune.training.record_losses import RecordLosses
from omnitune.training.run_hash import RunHash


@dataclass
class Strategy:
    """Follows a run from step to step.

    Attributes:
        readers: first step before which each takes over, and the reader, in order.
        samples_per_step: of the whole step.
        state: the run's: ``mix`` (sums), ``receipt`` (sums by phase), ``weights`` (decisions),
            ``left_out`` (steps) and ``adaptive_mix``.
        probed: tasks that are scored between epochs.
        hash: of what the run reads.
        losses: of its records.
    """

    phases: Phases
    schedule: SamplingSchedule
    stream: BatchStream
    readers: list[tuple[int, SampleReader]]
    samples_per_step: int
    adaptive_mix: AdaptiveMix | None
    state: dict[str, Any]
    probed: tuple[str, ...]
    hash: RunHash
    losses: RecordLosses

    def count(
        self,
        step: int,
        amounts: Mapping[str, Sequence[float]] | None,
        each: Sequence[tuple[Sequence[float], Sequence[float]]] = (),
    ) -> None:
        """Takes in what step ``step`` (counted from 1) was made of, by measure and group.

        Args:
            amounts: None where the update was left out.
            each: of each micro-batch the losses of its samples, and their weights.
        """
        batches = self.hash.end_step(step)
        reads = [read for batch in batches for read in batch]
        if amounts is None:
            self.state.setdefault("left_out", []).append(step)
            return
        asked = self.schedule.asked_at((step - 1) * self.samples_per_step)
        mix.add_step(self.state.setdefault("mix", {}), asked, self.schedule.names, amounts)
        phase = self.phases.at(step - 1)
        add_reads(self.state.setdefault("receipt", {}), phase, asked, reads)
        for batch, (losses, weights) in zip(batches, each, strict=False):
            self.losses.add(step, batch, losses[: len(batch)], weights[: len(batch)])

    def proof(self, steps: int) -> dict[str, Any]:
        """What ``results.json`` says of the run's order: its hash, and what replaying it needs."""
        if not self.hash.value:
            return {}
        return {
            "hash": self.hash.value,
            "steps": steps,
            "left_out": self.state.get("left_out", []),
            "weights": self.state.get("weights", []),
        }

    @property
    def receipt(self) -> dict[str, Any]:
        """What was asked of each source, and what was got."""
        return receipt_of(self.state.get("receipt", {}), self.schedule.names)

    def notes(self, step: int, scores: Mapping[str, Any]) -> dict[str, Any]:
        """What a moment's log says beside the scores; decides on the mix where it adapts."""
        notes: dict[str, Any] = {"mix": self.mix, **self.hash.notes()}
        if self.phases.named:
            notes["phase"] = self.phases.at(max(0, step - 1)) + 1
        if self.adaptive_mix:
            first = self.decide(step, self.adaptive_mix.factors(scores))
            notes["weights"] = self.schedule.shares_at(first)
        return notes

    @property
    def mix(self) -> dict[str, dict[str, float]]:
        """The realised mix of the run so far."""
        return mix.shares(self.state.get("mix", {}))

    def decide(self, step: int, factors: dict[str, float]) -> int:
        """Notes factors on the weights, made after ``step`` steps; returns their first sample.

        They hold from the second step on: samples of the next one may have been read ahead.
        """
        size = WINDOW * self.stream.batch_size if self.stream.balanced else self.samples_per_step
        _, first = self.stream.window((step + 1) * self.samples_per_step - 1, size)
        decisions = self.state.setdefault("weights", [])
        if not decisions or decisions[-1][1] != factors:
            decisions.append([first, factors])
        return first

    def reader_at(self, step: int) -> SampleReader:
        """The reader that knows which encoders were trained before, after ``step`` steps."""
        return [reader for first, reader in self.readers if first <= step][-1]


def plan_strategy(
    config: SftConfig,
    model: OmniModel,
    reader: SampleReader,
    samples: Mapping[str, Samples],
    stream: BatchStream,
    total_steps: int,
    state: dict[str, Any] | None = None,
) -> Strategy:
    """Makes the strategy of a configuration and lets the stream follow it.

    Args:
        samples: of every split, by source.
        stream: of the training samples; its mixture is replaced.
        state: of a run that is gone on with.
    """
    phases = Phases(config, model.parts(), model.modalities, total_steps)
    state = {} if state is None else state
    training = {source: split_of(found, "train") for source, found in samples.items()}
    per_step = stream.batch_size * config.gradient_accumulation
    sizes = {source: len(found) for source, found in training.items()}
    schedule = SamplingSchedule(
        sizes,
        phases.segments(per_step, sizes, lambda name: training[name].difficulties()),
        config.seed,
        ranked=lambda name: training[name].difficulties().argsort(kind="stable"),
        decisions=lambda: state.get("weights", ()),
    )
    raw_from = {name: phases.firsts[n] for name, n in phases.raw_from().items()}
    readers = _readers(raw_from, reader)
    stream.follow(schedule, [(step * per_step, found) for step, found in readers])
    tasks, adaptive_mix = held_out_tasks(samples), None
    if config.adaptive_mix != "none":
        adaptive_mix = AdaptiveMix(config.adaptive_mix, tasks, state)
    # Where a source has none of the usual tasks, the others stand for it: else the loss between
    # epochs would be that of the other sources alone. Tasks of any media are probed where they are.
    probed = tuple(task.name for task in headlines().values() if task.media is not None)
    probed += tuple(sorted(set[str]().union(*tasks.values()) - set(probed)))
    chain = RunHash(training, state, config.gradient_accumulation)
    stream.watch = chain.note
    losses = RecordLosses(sizes, state, total_steps)
    return Strategy(
        phases, schedule, stream, readers, per_step, adaptive_mix, state, probed, chain, losses
    )


def held_out_tasks(samples: Mapping[str, Samples]) -> dict[str, set[str]]:
    """The held-out tasks that judge each source: those that are probed, else all it has."""
    printed, tasks = set(headline_tasks()), {}
    for source, found in samples.items():
        counts = all_task_counts(split_of(found, "validation"))
        own = {task for of_record in counts for task, _ in of_record}
        tasks[source] = own & printed or own
    return tasks


def headline_tasks() -> tuple[str, ...]:
    """What is scored between epochs: the tasks whose scores are printed."""
    return tuple(task.name for task in headlines().values())


def _readers(raw_from: Mapping[str, int], reader: SampleReader) -> list[tuple[int, SampleReader]]:
    """A reader for each step from which another encoder's features are out of date."""
    readers = [(0, reader)]
    for step in sorted(set(raw_from.values())):
        raw = {name for name, first in raw_from.items() if first <= step}
        readers.append((step, reader.without_features(raw)))
    return readers
