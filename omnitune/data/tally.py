"""What is counted while a data file is indexed: names, media, difficulties.

Shape suffix: N records.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

import numpy as np

from omnitune.sample import Media, Sample


class Codes(dict[str, int]):
    """Numbers names in the order in which they come."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


class Tally:
    """What an index holds of a file's records, under the names that it has there."""

    def __init__(self) -> None:
        self.splits, self.tasks, self.modalities = Codes(), Codes(), Codes()
        self.place_N4, self.size_N = array("q"), array("q")
        self.print_N, self.split_N = array("I"), array("i")
        self.single_N, self.task_S, self.questions_S = array("q", [0]), array("h"), array("i")
        self.media_M3, self.show_N, self.shown_R = array("q"), array("q", [0]), array("i")
        self.given_N, self.effort_N = array("d"), array("d")
        self.wrong_W2, self.wrong = array("q"), list[str]()
        self.lost_splits: dict[str, None] = {}
        self._told: dict[str, str] = {}
        self._media: dict[int, int] = {}  # by hash: a million paths would not be small

    def add(self, sample: Sample, place: tuple[int, ...], content: bytes) -> None:
        """Takes in the next record.

        Args:
            place: its file's, its number there and its place there.
            content: its bytes.
        """
        number = len(self.print_N)
        self.place_N4.extend(place)
        self.size_N.append(len(content))
        self.print_N.append(crc32(content))
        self.split_N.append(self.splits[sample.split])
        self.given_N.append(np.nan if sample.difficulty is None else sample.difficulty)
        self.effort_N.append(sample.length_score())
        for task, count in sample.task_counts():
            self.task_S.append(self.tasks[task])
            self.questions_S.append(count)
        self.single_N.append(len(self.task_S))
        for which, medium in enumerate(sample.media):
            media = self._media.setdefault(_hash(medium), len(self._media))
            if 3 * media == len(self.media_M3):
                self.media_M3.extend((number, which, self.modalities[medium.modality]))
            self.shown_R.append(media)
        self.show_N.append(len(self.shown_R))

    def leave_out(
        self, place: tuple[int, int], code: str, sentence: str, split: object = None
    ) -> None:
        """Takes in a record that is wrong.

        Args:
            place: its file's, and its number there.
            code, sentence: of what is wrong.
            split: what stands under its key.
        """
        self.wrong_W2.extend(place)
        self.wrong.append(code)
        self._told.setdefault(code, sentence)
        if isinstance(split, str):
            self.lost_splits[split] = None

    def extend(self, other: Tally) -> None:
        """Takes in what was counted of the records that follow, as if they had been added here."""
        records, singles = len(self.print_N), len(self.task_S)
        for name in ("place_N4", "size_N", "print_N", "given_N", "effort_N", "questions_S"):
            getattr(self, name).extend(getattr(other, name))
        self.split_N.extend(_recoded("i", other.split_N, other.splits, self.splits))
        self.task_S.extend(_recoded("h", other.task_S, other.tasks, self.tasks))
        self.single_N.extend(_moved("q", other.single_N[1:], singles))
        self.show_N.extend(_moved("q", other.show_N[1:], len(self.shown_R)))
        kinds, places = list(other.modalities), array("i")
        rows = zip(*(other.media_M3[n::3] for n in range(3)), strict=True)
        for key, (number, which, kind) in zip(other._media, rows, strict=True):
            media = self._media.setdefault(key, len(self._media))
            if 3 * media == len(self.media_M3):
                self.media_M3.extend((records + number, which, self.modalities[kinds[kind]]))
            places.append(media)
        if places:
            self.shown_R.extend(_taken("i", places, other.shown_R))
        self.wrong_W2.extend(other.wrong_W2)
        self.wrong.extend(other.wrong)
        self.lost_splits |= other.lost_splits
        for code, sentence in other._told.items():
            self._told.setdefault(code, sentence)

    @property
    def wrong_splits(self) -> list[str]:
        """The splits that records name which are wrong."""
        return list(self.lost_splits)

    @property
    def told(self) -> list[str]:
        """The first sentence of each code."""
        return list(self._told.values())

    @property
    def places_left_out(self) -> set[tuple[int, int]]:
        """Place of the file, and number in that, of each record that is wrong."""
        return set(zip(self.wrong_W2[::2], self.wrong_W2[1::2], strict=True))


def _hash(medium: Media) -> int:
    """The same in every process, which ``hash`` is not."""
    name = f"{medium.modality}/{medium.path}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=8).digest())


def _taken(kind: str, values: array[int], places: array[int]) -> array[int]:
    """The values at some places."""
    found = np.frombuffer(values, values.typecode)[np.frombuffer(places, places.typecode)]
    return array(kind, found.astype(kind).tobytes())


def _moved(kind: str, values: array[int], by: int) -> array[int]:
    """Values, each larger by so much."""
    return array(kind, (np.array(values, kind) + by).astype(kind).tobytes())


def _recoded(kind: str, codes: array[int], names: Iterable[str], known: Codes) -> array[int]:
    """Codes of names as another table has them."""
    table = array(kind, [known[name] for name in names])
    return _taken(kind, table, codes) if codes else codes


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
