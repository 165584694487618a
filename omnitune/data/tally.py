"""What is counted while a data file is indexed: names, media, difficulties.

Shape suffix: N records.
"""

from __future__ import annotations

from array import array

import numpy as np

from omnitune.sample import Sample


class Codes(dict[str, int]):
    """Numbers names in the order in which they come."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


class QuestionTally:
    """The questions of a file while it is indexed: task and number of each single's."""

    def __init__(self) -> None:
        self.tasks, self.counts, self.ends = array("h"), array("i"), array("q", [0])
        self.codes = Codes()

    def add(self, sample: Sample) -> None:
        """Takes in the questions of a record."""
        for task, count in sample.task_counts():
            self.tasks.append(self.codes[task])
            self.counts.append(count)
        self.ends.append(len(self.tasks))


class MediaTally:
    """The media of a file while it is indexed: each once, and which of them a record shows."""

    def __init__(self) -> None:
        self.first, self.ends, self.shown = array("q"), array("q", [0]), array("i")
        self.codes = Codes()
        self._seen: dict[int, int] = {}  # by hash: a million paths would not be small

    def add(self, number: int, sample: Sample) -> None:
        """Takes in the media of a record."""
        for which, medium in enumerate(sample.media):
            place = self._seen.setdefault(hash(medium), len(self._seen))
            if 3 * place == len(self.first):
                self.first.extend((number, which, self.codes[medium.modality]))
            self.shown.append(place)
        self.ends.append(len(self.shown))


def difficulties(given_N: np.ndarray, effort_N: np.ndarray) -> np.ndarray:
    """Difficulty of each record: as given, else its rank by effort among those without (0 to 1].

    Equals are ranked in a fixed order that is not the file's, which may go by kind.
    """
    difficulty_N = given_N.astype(np.float32)
    (unknown,) = np.nonzero(np.isnan(given_N))
    mixed = np.random.default_rng(0).permutation(len(unknown))
    order = np.lexsort((mixed, effort_N[unknown]))
    difficulty_N[unknown[order]] = np.arange(1, len(unknown) + 1) / max(1, len(unknown))
    return difficulty_N
