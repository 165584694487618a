"""Which record is sample k of a run: a pure function of the seed and k.

Nothing is drawn and nothing is remembered, so that the order is the same whatever the number of
workers or processes, and resuming at sample k costs nothing.
"""

from __future__ import annotations

import hashlib
import sys
from fractions import Fraction
from math import lcm

MAX_PERIOD = 10_000


class Mixture:
    """Interleaves sources by weight with low discrepancy.

    Among the first k samples each source has its share of k to within one sample; so any window
    has it to within two. (Within one for *every* window is impossible for three sources of
    arbitrary weights.) Inside a source each pass is a permutation of its records.

    Args:
        sizes: number of records by source.
        weights: weight by source; need not sum to one.
        seed: of the permutations.

    Attributes:
        shares: of each source, as it is drawn.
    """

    def __init__(self, sizes: dict[str, int], weights: dict[str, float], seed: int) -> None:
        self.names = [name for name, weight in weights.items() if weight > 0]
        self.sizes = {name: sizes[name] for name in self.names}
        self.seed = seed
        shares = _shares([weights[name] for name in self.names])
        self.shares = dict(zip(self.names, shares, strict=True))
        self._period = _chairman_assignment(shares)
        # How often each source came before each place of the period.
        self._before: list[list[int]] = []
        counts = [0] * len(self.names)
        for chosen in self._period:
            self._before.append(counts.copy())
            counts[chosen] += 1
        self._per_period = counts

    @property
    def epoch_size(self) -> int:
        """Samples in one epoch: as many as the sources with weight hold together."""
        return sum(self.sizes.values())

    def sample_at(self, k: int) -> tuple[str, int]:
        """Source and record index of sample k of the run."""
        name = self.source_at(k)
        return name, self.record_at(name, self.drawn_before(k)[name])

    def source_at(self, k: int) -> str:
        """Source of sample k."""
        return self.names[self._period[k % len(self._period)]]

    def drawn_before(self, k: int) -> dict[str, int]:
        """How many samples of each source come before sample k."""
        cycle, place = divmod(k, len(self._period))
        counts = zip(self._per_period, self._before[place], strict=True)
        drawn = [cycle * whole + before for whole, before in counts]
        return dict(zip(self.names, drawn, strict=True))

    def record_at(self, name: str, drawn: int) -> int:
        """Record index of a source's sample, of which so many came before it."""
        sweep, position = divmod(drawn, self.sizes[name])
        return permuted(position, self.sizes[name], f"{self.seed}/{name}/{sweep}")

    def bounds(self, k: int) -> tuple[int, int]:
        """First sample and end of the segment of the run that k is in: here the whole."""
        return 0, sys.maxsize


def permuted(position: int, size: int, key: str) -> int:
    """Image of ``position`` under a pseudo-random permutation of ``range(size)``.

    A four-round Feistel network (Luby and Rackoff 1988) on the smallest even-bit square that
    holds ``size``, walked until it lands inside: a permutation without memory.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    digest = hashlib.blake2b(key.encode(), digest_size=32).digest()
    keys = [int.from_bytes(digest[8 * r : 8 * r + 8], "little") for r in range(4)]
    while True:
        left, right = position >> half, position & mask
        for round_key in keys:
            left, right = right, left ^ (_scramble(right ^ round_key) & mask)
        position = left << half | right
        if position < size:
            return position


def _scramble(x: int) -> int:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


def _shares(weights: list[float]) -> list[Fraction]:
    """Weights as fractions of their sum, over one denominator of about ``MAX_PERIOD`` at most.

    Finer shares are rounded to it, upwards from zero: no source with weight is left out.
    """
    exact = [Fraction(w / sum(weights)).limit_denominator(10**6) for w in weights]
    shares = [w / sum(exact) for w in exact]
    if min(shares) > 0 and lcm(*(s.denominator for s in shares)) <= MAX_PERIOD:
        return shares
    rounded = [max(1, round(s * MAX_PERIOD)) for s in shares]
    return [Fraction(r, sum(rounded)) for r in rounded]


def _chairman_assignment(shares: list[Fraction]) -> list[int]:
    """One period of Tijdeman's schedule (1980): every prefix within one of its shares.

    At each place, among the sources that may still have one without running ahead, the one
    whose next sample falls due first.
    """
    period = lcm(*(s.denominator for s in shares))
    counts = [0] * len(shares)
    schedule = []
    for place in range(1, period + 1):
        due = [
            (Fraction(counts[i] + 1) / share, i)
            for i, share in enumerate(shares)
            if counts[i] < share * place
        ]
        chosen = min(due)[1]
        counts[chosen] += 1
        schedule.append(chosen)
    return schedule
