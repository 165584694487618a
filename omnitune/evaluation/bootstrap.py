"""How sure a score is: bootstrap confidence intervals over records.

Nearly every measure of the scoreboard is a sum over a sum (loss over tokens, hits over questions,
edits over words); ``Pooled`` is for the few that are another formula of sums. Shape suffixes: N
singles or questions, G records, K counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from omnitune.sample import Sample

RESAMPLES = 1000
CONFIDENCE = 0.95
DRAWN = 1 << 16  # draws at once: few enough to stay in the processor's cache


@dataclass(frozen=True)
class Ratio:
    """A measure: the sum of ``above_N`` over the sum of ``below_N``; each entry has its record.

    Attributes:
        above_N: what is counted (edits, hits, nats), float.
        below_N: out of how much (words, questions, tokens), float.
        record_N: number of the record that each entry belongs to, integer.
    """

    above_N: np.ndarray
    below_N: np.ndarray
    record_N: np.ndarray

    @property
    def value(self) -> float:
        """The measure; with nothing below, 1 if there is anything above, else 0."""
        above, below = float(self.above_N.sum()), float(self.below_N.sum())
        return above / below if below else float(above > 0)

    def of(self, places: Sequence[int]) -> Ratio:
        """The measure of some of the entries."""
        return Ratio(self.above_N[places], self.below_N[places], self.record_N[places])

    def minus(self, other: Ratio) -> Ratio:
        """The difference to another measure of the same entries (what is below is the same)."""
        return Ratio(self.above_N - other.above_N, self.below_N, self.record_N)

    def interval(self, seed: int = 0) -> list[float] | None:
        """The 95 % percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

        Records are drawn with replacement, each with all that belongs to it: questions about one
        picture are right or wrong together, and would make an interval too narrow if they were
        drawn apart (the cluster bootstrap: Davison and Hinkley 1997, section 3.8). In each
        resample the sums are formed anew, so a word error rate is never a mean of rates.

        Args:
            seed: of the draws; the same seed gives the same interval.

        Returns:
            low and high, or None of fewer than two records, which show no spread.
        """
        above, below = self._record_sums(self.above_N, self.below_N)
        drawn = _drawn_sums([above, below], seed)
        return _percentiles([a[b > 0] / b[b > 0] for a, b in drawn])

    def _record_sums(self, *columns_N: np.ndarray) -> list[np.ndarray]:
        """Of each column the sums of the entries of a record ``[G]``."""
        _, group_N = np.unique(self.record_N, return_inverse=True)
        return [np.bincount(group_N, column_N) for column_N in columns_N]


@dataclass(frozen=True)
class Pooled(Ratio):
    """A measure that is a formula of sums over all entries, such as a BLEU score.

    Attributes:
        above_N, below_N: the measure of each entry by itself, and 1.
        counts_NK: what is summed, float.
        formula: of the sums of K counts the measure.
    """

    counts_NK: np.ndarray
    formula: Callable[[Sequence[float]], float]

    @classmethod
    def of_counts(
        cls,
        counts_NK: np.ndarray,
        record_N: np.ndarray,
        formula: Callable[[Sequence[float]], float],
    ) -> Pooled:
        """The measure of some entries by their counts."""
        alone_N = np.array([formula(counts) for counts in counts_NK.tolist()])
        return cls(alone_N, np.ones(len(alone_N)), record_N, counts_NK, formula)

    @property
    def value(self) -> float:
        """The measure of all entries together."""
        return self.formula(self.counts_NK.sum(axis=0).tolist())

    def of(self, places: Sequence[int]) -> Pooled:
        """The measure of some of the entries."""
        some = super().of(places)
        return Pooled(
            some.above_N, some.below_N, some.record_N, self.counts_NK[places], self.formula
        )

    def minus(self, other: Ratio) -> Pooled:
        """The difference to another measure of the same kind and entries."""
        assert isinstance(other, Pooled)
        split, mine, theirs = self.counts_NK.shape[1], self.formula, other.formula
        return Pooled(
            self.above_N - other.above_N, self.below_N, self.record_N,
            np.hstack([self.counts_NK, other.counts_NK]),
            lambda sums: mine(sums[:split]) - theirs(sums[split:]),
        )  # fmt: skip

    def interval(self, seed: int = 0) -> list[float] | None:
        """As of ``Ratio``: the formula is applied to the sums of each resample."""
        drawn = _drawn_sums(self._record_sums(*self.counts_NK.T), seed)
        return _percentiles(
            [np.array([self.formula(sums) for sums in np.stack(some, 1).tolist()])
             for some in drawn]
        )  # fmt: skip


def _drawn_sums(columns_G: Sequence[np.ndarray], seed: int) -> Iterator[list[np.ndarray]]:
    """Of resamples of the records, some at a time, the sum of each column; none of one record."""
    records = len(columns_G[0])
    if records < 2:
        return
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWN // records)
    for first in range(0, RESAMPLES, at_once):
        drawn = rng.integers(records, size=(min(at_once, RESAMPLES - first), records))
        yield [column_G[drawn].sum(axis=1) for column_G in columns_G]


def _percentiles(values: Sequence[np.ndarray]) -> list[float] | None:
    found = np.concatenate([np.zeros(0), *values])
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(found, [tail, 1 - tail]).tolist() if len(found) else None


class Records:
    """Numbers the records that samples come from, in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: defaultdict[object, int] = defaultdict(count().__next__)

    def __call__(self, sample: Sample) -> int:
        """The record's number; what shows the same first medium is one record."""
        if sample.media:
            return self._numbers[sample.media[0]]
        if sample.number < 0:
            return self._numbers[sample.record or sample.id]
        return self._numbers[(sample.source, sample.number)]
