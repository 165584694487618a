"""Phases of a run: which parts are trained when, at what rate, and on which samples.

Everything here is a function of the step's number alone: every process of a run does the same at
the same step, and a resumed run goes on in the phase it was in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from math import ceil

import numpy as np
from torch import nn

from omnitune.config.settings import nearest
from omnitune.config.sft import Phase, SftConfig
from omnitune.data.schedule import Segment, warming_up
from omnitune.encoders.base import Encoder
from omnitune.models.adapters import ADAPTER
from omnitune.sample import UserError
from omnitune.training.optim import trainable, warmup_of

FROZEN_HERE = "frozen_by_phase"  # attribute of a weight


class Phases:
    """The phases of a run; a run without any is one phase of everything.

    Args:
        parts, modalities: of the model; modalities tell whose encoder is which part.

    Raises:
        UserError: a phase trains a part that the model does not have, or the base of an adapter.

    Attributes:
        starts: share of the run at which each begins. firsts: number of steps before it.
        named: whether the configuration has any.
    """

    def __init__(
        self,
        config: SftConfig,
        parts: Mapping[str, nn.Module],
        modalities: Mapping[str, Encoder],
        total_steps: int = 1,
    ) -> None:
        self.config, self.total_steps = config, total_steps
        self.named = bool(config.phases)
        self.phases = config.phases or [Phase(until=1.0)]
        self.starts = [0.0, *(phase.until or 1.0 for phase in self.phases[:-1])]
        self.firsts = [round(start * total_steps) for start in self.starts]
        self._parts = dict(parts)
        self._adapted = {name for name in parts if name + ADAPTER in parts}
        for n, phase in enumerate(self.phases):
            self._check_names(n, phase.train or ())
        self._encoders = {m.medium.encoder_part: name for name, m in modalities.items()}
        self._entered: int | None = None

    def _check_names(self, n: int, names: Iterable[str]) -> None:
        for name in names:
            if name in self._adapted:
                raise UserError(
                    f"phases.{n}.train: {name} has adapters (lora), beside which its own weights "
                    f"stay frozen; name {name + ADAPTER} instead, or leave lora out"
                )
            if name not in self._parts:
                near = nearest(name, self._parts)
                hint = f"; did you mean {near}?" if near else ""
                raise UserError(
                    f"phases.{n}.train: {name!r} is not one of this model's parts, which are "
                    f"{', '.join(self._parts)}{hint}"
                )

    def at(self, step: int) -> int:
        """Phase, counted from 0, of the step that is made after ``step`` steps."""
        return bisect_right(self.firsts, step) - 1

    def trained(self, phase: int) -> set[str]:
        """Parts that a phase trains."""
        named = self.phases[phase].train
        if named is not None:
            return set(named)
        frozen = set(self._encoders) if self.config.freeze_encoders else set()
        return set(self._parts) - frozen - self._adapted

    def scale(self, phase: int) -> float:
        """A phase's learning rate, as multiple of the run's."""
        rate = self.phases[phase].learning_rate or self.config.learning_rate
        return rate / self.config.learning_rate

    def rate(self, step: int) -> float:
        """Factor on the run's schedule: the phase's scale, warmed up anew where it changes things.

        A phase with other parts or another rate than the one before begins with a linear warm-up
        of ``warmup_steps``, but of no more than a tenth of its steps.
        """
        n = self.at(step)
        scale = self.scale(n)
        if n == 0 or (self.trained(n), scale) == (self.trained(n - 1), self.scale(n - 1)):
            return scale
        end = self.firsts[n + 1] if n + 1 < len(self.firsts) else self.total_steps
        warmup = warmup_of(self.config.warmup_steps, end - self.firsts[n])
        return scale * min(1.0, (step - self.firsts[n] + 1) / max(1, warmup))

    def begin(self, step: int, model: nn.Module) -> str:
        """Readies the model for the step after ``step`` steps; describes a phase that starts.

        Every rank of a run calls it.
        """
        n = self.at(step)
        if n == self._entered:
            return ""
        self._entered = n
        self.set_trainable(n)
        model.train()  # frozen encoders stay as they are when scored
        return self._describe(n, model) if self.named else ""

    def set_trainable(self, phase: int | None = None) -> None:
        """Gives gradients to the parts that a phase (or any phase) trains, to no others.

        A weight that somebody else has frozen within a part stays as it is.
        """
        chosen = range(len(self.phases)) if phase is None else [phase]
        trained = set[str]().union(*(self.trained(n) for n in chosen))
        for name, part in self._parts.items():
            for parameter in part.parameters():
                if parameter.requires_grad or getattr(parameter, FROZEN_HERE, False):
                    parameter.requires_grad_(name in trained)
                    setattr(parameter, FROZEN_HERE, name not in trained)

    def raw_from(self) -> dict[str, int]:
        """The first phase in which a modality's encoder, or its adapter, is trained, if ever.

        From there on its cached features are out of date, also where it is frozen again.
        """
        found: dict[str, int] = {}
        for n in range(len(self.phases)):
            trained = {part.removesuffix(ADAPTER) for part in self.trained(n)}
            for part in trained & self._encoders.keys():
                found.setdefault(self._encoders[part], n)
        return found

    def segments(
        self,
        samples_per_step: int,
        sizes: Mapping[str, int],
        difficulty: Callable[[str], np.ndarray],
    ) -> list[Segment]:
        """What is drawn from, from sample to sample: mix, limit of difficulty and curriculum.

        Args:
            sizes: number of training records by source.
            difficulty: that of each training record of a source; asked for only where it counts.

        Raises:
            UserError: a limit leaves nothing of a source.
        """
        warming = warming_up(self.config.curriculum, self.total_steps)
        made = []
        for first in sorted({*self.firsts, *warming}):
            share = warming[max(step for step in warming if step <= first)]
            n = self.at(first)
            weights = self.config.mixes[n].weights()
            pools = {
                name: min(ceil(share * sizes[name]), self._limit(n, name, sizes[name], difficulty))
                for name in weights
            }
            made.append(Segment(first * samples_per_step, weights, pools))
        return made

    def _limit(
        self, phase: int, source: str, size: int, difficulty: Callable[[str], np.ndarray]
    ) -> int:
        """How many of a source's records a phase's limit leaves."""
        limit = self.phases[phase].max_difficulty
        if limit is None:
            return size
        difficulty_N = difficulty(source)
        easy = int((difficulty_N <= np.float32(limit)).sum())
        if not easy:
            raise UserError(
                f"phases.{phase}.max_difficulty is {limit:g}, but no training sample of the source "
                f"{source} is so easy; the easiest has {difficulty_N.min():.2g}"
            )
        return easy

    def _describe(self, n: int, model: nn.Module) -> str:
        phase = self.phases[n]
        count = sum(p.numel() for _, p in trainable(model))
        words = [
            f"phase {n + 1} of {len(self.phases)} from step {self.firsts[n] + 1}: training "
            f"{', '.join(name for name in self._parts if name in self.trained(n))} "
            f"({count / 1e6:.2f} million weights)"
        ]
        if phase.learning_rate:
            words.append(f"learning rate {phase.learning_rate:g}")
        if phase.data_mix:
            mix = phase.data_mix.weights().items()
            words.append("mix " + ", ".join(f"{name} {weight:g}" for name, weight in mix))
        if phase.max_difficulty:
            words.append(f"difficulty up to {phase.max_difficulty:g}")
        return "; ".join(words)
