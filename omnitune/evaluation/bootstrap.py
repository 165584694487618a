"""How sure a score is: bootstrap confidence intervals over records.

Every measure of the scoreboard is a sum over a sum (loss over tokens, hits over questions, edits
over words), so one class serves them all. Shape suffixes: N singles or questions, G records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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
        _, group_N = np.unique(self.record_N, return_inverse=True)
        above_G = np.bincount(group_N, self.above_N)
        below_G = np.bincount(group_N, self.below_N)
        records = len(above_G)
        if records < 2:
            return None
        rng = np.random.default_rng(seed)
        at_once = max(1, DRAWN // records)
        values: list[np.ndarray] = []
        for first in range(0, RESAMPLES, at_once):
            drawn = rng.integers(records, size=(min(at_once, RESAMPLES - first), records))
            above, below = above_G[drawn].sum(axis=1), below_G[drawn].sum(axis=1)
            values.append(above[below > 0] / below[below > 0])
        found = np.concatenate(values)
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
