"""The samples of a source, each read from its file when it is asked for."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from typing import overload
from zlib import crc32

import numpy as np

from omnitune.containers.remote import address_at, ensure, fetch_ahead
from omnitune.data.index import Index
from omnitune.data.parts import Parse
from omnitune.data.place import DataFile, Place
from omnitune.sample import Media, Sample, UserError

KEPT_RECORDS = 1 << 14
TOGETHER = 64  # media that follow each other and are in one part
AHEAD = 64  # media of a remote source that are fetched at once
# More distinct media than this are looked at once and not at every start.
MANY_MEDIA = 20_000


class IndexedSource:
    """A source's files with their index; records that are met again in a small one stay read.

    Args:
        files: of the source.
        index: of its records.
        parse: turns a record into a sample.
        root: folder in which its index is kept, and what else is found out about it.
        left_out: numbers of records that are in no split.
    """

    def __init__(
        self,
        files: Sequence[DataFile],
        index: Index,
        parse: Parse,
        root: Path,
        left_out: Sequence[int] | np.ndarray = (),
    ) -> None:
        self.files, self.index, self.parse, self.root = list(files), index, parse, root
        self.left_out = left_out
        self.sample = lru_cache(maxsize=KEPT_RECORDS)(self._sample)

    @property
    def is_remote(self) -> bool:
        """Whether its files were fetched, so that media beside them are too."""
        return bool(address_at(self.files[0].path))

    @property
    def folder(self) -> Path:
        """The folder of its index, there or not."""
        return self.root / self.index.name

    def shown(self, path: Path) -> str:
        """A path as people are told it: from the folder that the index lies in, where it can be."""
        base = self.root.parent
        return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)

    def place(self, number: int) -> Place:
        """Where a record lies."""
        file, *rest = self.index.place_N4[number].tolist()
        return Place(number, self.files[file].path, *rest)

    def where(self, number: int) -> str:
        """Where a record lies, in words."""
        place = self.place(number)
        return f"{place.file}: record {place.within + 1}"

    def of_split(self, name: str) -> np.ndarray:
        """Numbers of the records of a split, in order, without those that are left out."""
        numbers = self.index.of_split(name)
        return numbers[~np.isin(numbers, self.left_out)] if len(self.left_out) else numbers

    def without(self, numbers: Sequence[int] | np.ndarray) -> IndexedSource:
        """The same file without some more of its records."""
        left_out = np.union1d(self.left_out, numbers).astype(np.int64)
        return IndexedSource(self.files, self.index, self.parse, self.root, left_out)

    def showing(self, places: Sequence[int]) -> np.ndarray:
        """Numbers of the records that show any of some media, in order."""
        index = self.index
        record_R = np.repeat(np.arange(len(index.size_N)), np.diff(index.show_N))
        return np.unique(record_R[np.isin(index.shown_R, places)])

    @property
    def shown_media(self) -> Sequence[int] | np.ndarray:
        """Places of the media that records show which are not left out."""
        index = self.index
        if not len(self.left_out):
            return range(len(index.media_M3))
        staying_N = np.ones(len(index.size_N), dtype=bool)
        staying_N[self.left_out] = False
        return np.unique(index.shown_R[np.repeat(staying_N, np.diff(index.show_N))])

    def medium(self, place: int) -> tuple[Media, Sample]:
        """A distinct medium, by its place in the index, with the first sample that shows it."""
        number, which, _ = self.index.media_M3[place].tolist()
        sample = self.sample(number)
        return sample.media[which], sample

    def _sample(self, number: int) -> Sample:
        """Reads one record; raises UserError if the file was changed meanwhile."""
        place = self.place(number)
        path, container = self.files[int(self.index.place_N4[number, 0])]
        try:
            content = container.content(ensure(path), place.start, place.length)
        except OSError:
            content = b""
        if crc32(content) != int(self.index.print_N[number]):
            raise UserError(
                f"{path}: record {place.within + 1} is not where it was: the file was changed "
                "since its records were first read; leave it as it is while a run reads it, and "
                "start the command again"
            )
        sample = self.parse(place, container.value(content))
        # One that was set aside is in another split than it would be by itself.
        split = self.index.splits[int(self.index.split_N[number])]
        return sample if sample.split == split else replace(sample, split=split)


class Samples(Sequence[Sample]):
    """Samples of one or more files in order, each read when it is asked for.

    Args:
        pieces: a file and the numbers of its records; a range stands for all of them.
    """

    def __init__(self, pieces: Iterable[tuple[IndexedSource, Sequence[int] | np.ndarray]]) -> None:
        self.pieces = list(pieces)
        self._ends = list(accumulate(len(numbers) for _, numbers in self.pieces))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        source, number = self._locate(place)
        return source.sample(number)

    def __iter__(self) -> Iterator[Sample]:
        return (source.sample(int(n)) for source, numbers in self.pieces for n in numbers)

    def _locate(self, place: int) -> tuple[IndexedSource, int]:
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(place)
        n = bisect_right(self._ends, place)
        source, numbers = self.pieces[n]
        return source, int(numbers[place - self._ends[n]])  # counted from the piece's end

    @property
    def splits(self) -> set[str]:
        """Names of the splits that the files hold."""
        return {name for source, _ in self.pieces for name in source.index.splits}

    def of_split(self, name: str) -> Samples:
        """The samples of one split; of whole files only."""
        assert self.whole
        return Samples((source, source.of_split(name)) for source, _ in self.pieces)

    @property
    def staying(self) -> Samples:
        """Those that are not left out."""
        return Samples((s, np.setdiff1d(numbers, s.left_out)) for s, numbers in self.pieces)

    @property
    def whole(self) -> bool:
        """Whether these are all the samples of their files."""
        return all(isinstance(numbers, range) for _, numbers in self.pieces)

    def all_task_counts(self) -> Iterator[list[tuple[str, int]]]:
        """``Sample.task_counts`` of each, without reading it."""
        return (
            source.index.task_counts(int(n)) for source, numbers in self.pieces for n in numbers
        )

    def asking(self, judge: Callable[[str], bool]) -> np.ndarray:
        """Whether each has a question of a task that passes, without reading it."""
        found = [source.index.asking(judge)[np.asarray(n)] for source, n in self.pieces]
        return np.concatenate([np.zeros(0, bool), *found])

    def difficulties(self) -> np.ndarray:
        """Difficulty of each, without reading it."""
        found = [source.index.difficulty_N[np.asarray(n)] for source, n in self.pieces]
        return np.concatenate([np.zeros(0, np.float32), *found])

    def media(self, part: int = 0, of: int = 1) -> Iterator[tuple[Media, Sample]]:
        """Each distinct medium of a file, with the first sample that shows it.

        Args:
            part: of so many parts, as even as they can be, the one that is wanted.
        """
        if not self.whole:
            for number, first in enumerate(first_shown(self)):
                if number // TOGETHER % of == part:
                    yield first
            return
        for source, _ in self.pieces:
            places = np.asarray(source.shown_media)
            places = places[np.arange(len(places)) // TOGETHER % of == part]
            found = (source.medium(place) for place in places.tolist())
            while some := list(islice(found, AHEAD if source.is_remote else 1)):
                fetch_ahead(medium.path for medium, _ in some if source.is_remote)
                yield from some

    @property
    def media_key(self) -> str | None:
        """What stands for the media if they are too many to look at each one at every start."""
        count = sum(len(source.index.media_M3) for source, _ in self.pieces)
        if count <= MANY_MEDIA or not self.whole:
            return None
        digest = hashlib.sha256()
        for source, _ in self.pieces:
            digest.update(f"{source.index.name}/".encode())
            digest.update(np.asarray(source.left_out, dtype=np.int64).tobytes())
        return digest.hexdigest()[:32]


def first_shown(samples: Iterable[Sample]) -> Iterator[tuple[Media, Sample]]:
    """Each distinct medium with the first sample that shows it."""
    seen: set[Media] = set()
    for sample in samples:
        for medium in sample.media:
            if medium not in seen:
                seen.add(medium)
                yield medium, sample
