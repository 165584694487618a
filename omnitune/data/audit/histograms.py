"""How long samples are, how much is in their media, and which answers are common, by source."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from omnitune.data.audit.fingerprints import NOTHING, Fingerprints
from omnitune.data.audit.truncation import ReadLimits, count_tokens
from omnitune.media.registry import MEDIA
from omnitune.sample import Sample, UserError

BINS = 12
COMMON = 10  # answers that are named
LONGEST = 80  # letters of an answer that is counted as a whole; of a longer one it is the start
MOST_ANSWERS = 100_000  # different ones that are counted at a time
KEPT_MEDIA = 1 << 16
TOKENS, WORDS, SLOTS = "tokens", "words", "slots"


class Spread:
    """What is counted of the samples of one source, one by one.

    Args:
        reading: of a model; None: words are counted in place of tokens, and no slots.
    """

    def __init__(self, reading: ReadLimits | None) -> None:
        self.reading = reading
        self.values: dict[str, array[float]] = {}
        self.answers = Counter[str]()
        self.different = 0
        self._slots = lru_cache(maxsize=KEPT_MEDIA)(self._measure)

    def add(self, sample: Sample) -> None:
        """Counts a sample."""
        if self.reading:
            slots = sum(self._slots(m.modality, m.path) for m in sample.media)
            self._note(TOKENS, count_tokens(sample, self.reading.renderer) + slots)
            if sample.media:
                self._note(SLOTS, slots)
        else:
            self._note(WORDS, sum(len(message.text.split()) for message in sample.messages))
        for message in sample.messages:
            if message.learnt:
                text = " ".join(message.text.split())
                self.answers[text if len(text) <= LONGEST else f"{text[:LONGEST]}..."] += 1
        if len(self.answers) > MOST_ANSWERS:  # the rare ones are no common answers
            self.different = max(self.different, len(self.answers))
            self.answers = Counter(dict(self.answers.most_common(MOST_ANSWERS // 2)))

    def _note(self, name: str, value: float) -> None:
        self.values.setdefault(name, array("d")).append(value)

    def _measure(self, modality: str, path: Path) -> int:
        """Slots of a medium, at most; 0 where it cannot be used or read."""
        assert self.reading
        if not (encoder := self.reading.modalities.get(modality)):
            return 0
        try:
            return encoder.slots_for(encoder.measure(path).most)
        except UserError:
            return 0

    def found(self) -> dict[str, Any]:
        """The histograms by what they count, and ``answers``."""
        charts: dict[str, Any] = {name: histogram(values) for name, values in self.values.items()}
        common = [[text, count] for text, count in self.answers.most_common(COMMON)]
        charts["answers"] = {
            "count": self.answers.total(),
            "different": max(self.different, len(self.answers)),
            "common": common,
        }
        return charts


def media_histograms(fingerprints: Iterable[Fingerprints], source: int) -> dict[str, Any]:
    """By unit, how much is in the media of a source; broken ones are left out.

    Args:
        source: its number among the sources that were decoded.
    """
    charts = {}
    for found in fingerprints:
        amounts = found.amount_M[(found.source_M == source) & (found.amount_M > NOTHING)]
        if len(amounts):
            charts[MEDIA[found.name].unit] = histogram(amounts)
    return charts


def histogram(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Counts of values between round edges.

    Returns:
        ``count``, ``least``, ``median``, ``high`` (95 % are at most this), ``most``, ``edges`` and
        ``counts``, of which there is one less. A value on an edge counts above it.
    """
    numbers = np.asarray(values, dtype=np.float64)
    least, most = float(numbers.min()), float(numbers.max())
    width = _round_up((most - least) / BINS)
    if not (numbers % 1).any():
        width = max(1.0, math.ceil(width))
    first = math.floor(least / width)
    last = math.floor(most / width) + 1
    edges = [round(n * width, 10) for n in range(first, last + 1)]
    counts = np.bincount((numbers / width - first).astype(int).clip(0, last - first - 1))
    told = {"least": least, "most": most, "median": float(np.median(numbers))}
    told["high"] = float(np.quantile(numbers, 0.95))
    return {"count": len(numbers), **told, "edges": edges, "counts": counts.tolist()}


def _round_up(width: float) -> float:
    """The next number of the form 1, 2 or 5 times a power of ten."""
    if width <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9))


def name_of(unit: str) -> str:
    """What a histogram of a unit counts, in words."""
    media = {medium.unit: medium.noun for medium in MEDIA.values()}
    return f"{unit} a {media[unit]}" if unit in media else f"{unit} a sample"


def histograms_of(
    spreads: Mapping[str, Spread], fingerprints: Mapping[str, Fingerprints]
) -> dict[str, Any]:
    """All histograms, by source and by what they count."""
    return {
        name: spread.found() | media_histograms(fingerprints.values(), number)
        for number, (name, spread) in enumerate(spreads.items())
    }
