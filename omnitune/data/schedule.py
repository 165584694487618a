"""Which record is sample k of a run whose mix, or whose pool of samples, changes on the way.

Still a pure function, of the seed, k and what was decided before k: a run is cut into segments,
and every prefix of each holds the mix to within one sample, as in a :class:`Mixture`.
A source's passes go on from segment to segment as long as its pool stays the same.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from omnitune.data.mixture import Mixture, permuted

CURRICULUM_STAGES = 10
EASIEST = 0.5  # share of each source that a curriculum begins with
GRAIN = 1000  # adapted weights are rounded to so many parts of the whole, for a short period

# First sample that it holds for, and the factor on each source's weight.
Decision = tuple[int, dict[str, float]]


@dataclass(frozen=True)
class Segment:
    """What is asked from one sample on.

    Attributes:
        first: number of its first sample.
        weights: of the sources, as configured.
        pools: how many of each source's records, from the easiest on, it draws from.
    """

    first: int
    weights: Mapping[str, float]
    pools: Mapping[str, int]


@dataclass(frozen=True)
class _Piece:
    """A segment between two decisions; ``before`` is what was drawn of its pools earlier."""

    first: int
    mixture: Mixture
    asked: Mapping[str, float]
    before: Mapping[str, int]


class SamplingSchedule:
    """The order of samples of a run.

    Args:
        sizes: number of records by source.
        segments: known from the start, in order; the first begins at 0.
        seed: of the permutations.
        ranked: record indices of a source, from the easiest to the hardest; asked for where a
            pool is smaller than its source.
        decisions: what was decided so far, in order; it may grow by decisions that hold for
            samples which were not yet asked for.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        segments: Sequence[Segment],
        seed: int,
        ranked: Callable[[str], np.ndarray] | None = None,
        decisions: Callable[[], Sequence[Decision]] = tuple,
    ) -> None:
        self.sizes, self.segments, self.seed = dict(sizes), list(segments), seed
        self.names = list(sizes)
        self.decisions = decisions
        self._ranked = lru_cache(maxsize=None)(ranked) if ranked else None
        self._mixture = lru_cache(maxsize=256)(self._make_mixture)
        self._cut = lru_cache(maxsize=1)(self._make_pieces)

    @property
    def epoch_size(self) -> int:
        """Samples in one epoch: as many as the sources hold together."""
        return sum(self.sizes.values())

    def sample_at(self, k: int) -> tuple[str, int]:
        """Source and record index of sample k of the run."""
        pieces = self._pieces()
        piece = pieces[_place(pieces, k)]
        mixture, within = piece.mixture, k - piece.first
        name = mixture.source_at(within)
        drawn = piece.before[name] + mixture.drawn_before(within)[name]
        pool = mixture.sizes[name]
        if pool == self.sizes[name]:
            return name, mixture.record_at(name, drawn)
        sweep, position = divmod(drawn, pool)
        assert self._ranked, "a pool smaller than its source needs a ranking"
        rank = permuted(position, pool, f"{self.seed}/{name}/{pool}/{sweep}")
        return name, int(self._ranked(name)[rank])

    def bounds(self, k: int) -> tuple[int, int]:
        """First sample of the segment that k is in, and of the next one, as far as is decided."""
        pieces = self._pieces()
        n = _place(pieces, k)
        return pieces[n].first, pieces[n + 1].first if n + 1 < len(pieces) else sys.maxsize

    def asked_at(self, k: int) -> dict[str, float]:
        """Share of each source as configured where sample k is."""
        pieces = self._pieces()
        return _shares(pieces[_place(pieces, k)].asked)

    def shares_at(self, k: int) -> dict[str, float]:
        """Share of each source as it is drawn where sample k is, what was decided included."""
        pieces = self._pieces()
        mixture = pieces[_place(pieces, k)].mixture
        return {name: float(share) for name, share in mixture.shares.items()}

    def _pieces(self) -> list[_Piece]:
        """All pieces; made anew when something was decided, the old ones as they were."""
        return self._cut(len(self.decisions()))

    def _make_pieces(self, count: int) -> list[_Piece]:
        decisions = self.decisions()[:count]
        firsts = sorted({s.first for s in self.segments} | {first for first, _ in decisions})
        drawn: Counter[tuple[str, int]] = Counter()
        pieces: list[_Piece] = []
        for first in firsts:
            if pieces:
                last = pieces[-1].mixture
                for name, count in last.drawn_before(first - pieces[-1].first).items():
                    drawn[name, last.sizes[name]] += count
            segment = [s for s in self.segments if s.first <= first][-1]
            factors = [found for begin, found in decisions if begin <= first][-1:]
            weights = adapted(segment.weights, factors[0]) if factors else dict(segment.weights)
            mixture = self._mixture(tuple(weights.items()), tuple(segment.pools.items()))
            before = {name: drawn[name, mixture.sizes[name]] for name in mixture.names}
            pieces.append(_Piece(first, mixture, segment.weights, before))
        return pieces

    def _make_mixture(
        self, weights: tuple[tuple[str, float], ...], pools: tuple[tuple[str, int], ...]
    ) -> Mixture:
        return Mixture(dict(pools), dict(weights), self.seed)


def warming_up(curriculum: float, total_steps: int) -> dict[int, float]:
    """The share of each source, from the easiest on, that is drawn from, by the first step of it.

    Args:
        curriculum: share of the run over which it rises to the whole.
    """
    length = curriculum * total_steps / CURRICULUM_STAGES
    return {
        round(n * length): 1 - (1 - EASIEST) * (1 - n / CURRICULUM_STAGES)
        for n in range(CURRICULUM_STAGES + 1)
    }


def adapted(weights: Mapping[str, float], factors: Mapping[str, float]) -> dict[str, float]:
    """Weights times factors, as whole parts of ``GRAIN``; none falls to 0."""
    scaled = {name: weight * factors.get(name, 1.0) for name, weight in weights.items()}
    return {name: max(1, round(GRAIN * share)) for name, share in _shares(scaled).items()}


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _place(pieces: list[_Piece], k: int) -> int:
    return bisect_right(pieces, k, key=lambda piece: piece.first) - 1
