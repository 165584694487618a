"""An index of a data file: where each record lies, its split, its questions, its media.

A first pass reads the file piece by piece, checks every record and keeps what it found under
``<data_dir>/.index``, in a folder named by the hash of the file's content and of what it is read
by: it cannot go stale.
Later starts map it into memory, and a record is read from the file when it is asked for, so that
neither start-up nor memory grows with the number of records.

Shape suffixes: N records, S singles (what ``Sample.split_turns`` gives), M distinct media, R places
in records that show a medium.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, overload
from zlib import crc32

import numpy as np

from omnitune.console import progress_bar
from omnitune.data.faults import Faults
from omnitune.data.sources.base import Format
from omnitune.data.splits import TRAIN, VALIDATION, likely, one_to_set_aside
from omnitune.data.tally import Tally
from omnitune.data.tally import difficulties as difficulties
from omnitune.sample import Media, Sample, UserError
from omnitune.storage import sha256, write_json

VERSION = 5
INDEX_FOLDER = ".index"  # within the data folder
# Below so many bytes a file is read again sooner than its index is looked up and kept.
KEEP_FROM = 2 << 20
BAR_FROM = 32 << 20
KEPT_RECORDS = 1 << 14
IDENTITY = ("st_size", "st_mtime_ns", "st_ino")  # what changes with a file's content
# More distinct media than this are looked at once and not at every start.
MANY_MEDIA = 20_000

# Number of a record and its JSON value to its sample; raises UserError.
Parse = Callable[[int, Any], Sample]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Index:
    """What is known of a file's records without reading them.

    Attributes:
        place_N2: first byte and number of bytes.
        print_N: CRC-32 of these bytes: whether they are still the same.
        split_N: place in ``splits``.
        order_N: the numbers of the records, sorted by split, within a split in order.
        single_N: place in ``task_S`` of the record's first single; its last entry is S.
        task_S: place in ``tasks``.
        questions_S: number of answers to give.
        media_M3: the first record that shows it, which of that record's media it is, and its
            kind's place in ``modalities``.
        show_N: place in ``shown_R`` of the record's first medium; its last entry is R.
        shown_R: place in ``media_M3``.
        difficulty_N: from 0 to 1 (see :func:`difficulties`).
        aside_A: records without a split that were set aside as validation, where none is.
        name: stands for the file's content and the rules that it was read by.
    """

    place_N2: np.ndarray
    print_N: np.ndarray
    split_N: np.ndarray
    order_N: np.ndarray
    single_N: np.ndarray
    task_S: np.ndarray
    questions_S: np.ndarray
    media_M3: np.ndarray
    show_N: np.ndarray
    shown_R: np.ndarray
    difficulty_N: np.ndarray
    aside_A: np.ndarray
    splits: list[str]
    tasks: list[str]
    modalities: list[str]
    name: str

    def of_split(self, name: str) -> np.ndarray:
        """Numbers of the records of a split, in order."""
        if name not in self.splits:
            return self.order_N[:0]
        # Of another type it would have all codes copied.
        code = self.split_N.dtype.type(self.splits.index(name))
        first, last = (
            np.searchsorted(self.split_N, code, side, sorter=self.order_N)
            for side in ("left", "right")
        )
        return self.order_N[first:last]

    def task_counts(self, number: int) -> list[tuple[str, int]]:
        """Task and number of questions of each single of a record."""
        span = slice(int(self.single_N[number]), int(self.single_N[number + 1]))
        pairs = zip(self.task_S[span].tolist(), self.questions_S[span].tolist(), strict=True)
        return [(self.tasks[task], questions) for task, questions in pairs]

    def records_showing(self, modality: str) -> np.ndarray:
        """Numbers of the records that show a medium of a kind, in order."""
        if modality not in self.modalities:
            return self.order_N[:0]
        of_kind_R = self.media_M3[self.shown_R, 2] == self.modalities.index(modality)
        record_R = np.repeat(np.arange(len(self.show_N) - 1), np.diff(self.show_N))
        return np.unique(record_R[of_kind_R])

    def save(self, folder: Path) -> None:
        """Writes the index as a folder of arrays; raises OSError."""
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        temporary.mkdir(parents=True)
        try:
            for name in _ARRAYS:
                np.save(temporary / f"{name}.npy", getattr(self, name))
            write_json(temporary / "names.json", {name: getattr(self, name) for name in _NAMES})
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Index | None:
        """Maps an index that was kept; None if there is none, or it is damaged."""
        try:
            names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
            files = {name: folder / f"{name}.npy" for name in _ARRAYS}
            values: dict[str, Any] = {name: names[name] for name in _NAMES}
            values |= {name: np.asarray(np.load(p, mmap_mode="r")) for name, p in files.items()}
            return cls(**values, name=folder.name)
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None


_ARRAYS = [field.name for field in fields(Index) if field.type == "np.ndarray"]
_NAMES = [field.name for field in fields(Index) if field.type == "list[str]"]


def build_index(
    path: Path, format: Format, name: str, parse: Parse, advance: Advance = lambda n: None
) -> Index:
    """Reads a file's records one by one, checks them and notes what an index holds.

    Args:
        format: of the file.
        name: stands for the file's content and the rules that it is read by.
        advance: called with the number of bytes just read.

    Raises:
        OSError: the file cannot be read.
        UserError: the file is not of its format, or a record of it is wrong.
    """
    tally, faults = Tally(), Faults(path)
    read, free = 0, 0
    with path.open("rb", buffering=0) as file:
        for number, (start, length, values) in enumerate(format.scan(path)):
            with faults:
                sample = parse(number, values)
            if faults:  # all that is told now is what else is wrong
                continue
            tally.add(sample, (start, length), crc32(format.content(file, start, length)))
            free += "split" not in values
            advance(start + length - read)
            read = start + length
    faults.tell()
    enough = free > 0 and tally.split_N.count(tally.splits.get(TRAIN, -1)) > 1
    aside = _set_aside(path, format, tally.splits) if enough else []
    for number in aside:
        tally.split_N[number] = tally.splits[VALIDATION]
    arrays: dict[str, Any] = {
        name: np.array(getattr(tally, name)) for name in _ARRAYS if hasattr(tally, name)
    }
    arrays["place_N2"] = arrays["place_N2"].reshape(-1, 2)
    arrays["media_M3"] = arrays["media_M3"].reshape(-1, 3)
    names: dict[str, Any] = {name: list(getattr(tally, name)) for name in _NAMES}
    return Index(
        **arrays,
        **names,
        order_N=np.argsort(arrays["split_N"], kind="stable"),
        difficulty_N=difficulties(np.array(tally.given_N), np.array(tally.effort_N)),
        aside_A=np.array(aside, dtype=np.int64),
        name=name,
    )


def _set_aside(path: Path, format: Format, splits: Iterable[str]) -> list[int]:
    """The record to hold out where the share of those without a split gives none: one, or none."""
    if any(VALIDATION in (name, likely(name)) for name in splits):
        return []
    number = one_to_set_aside(values for _, _, values in format.scan(path))
    return [] if number is None else [number]


def open_index(
    path: Path, format: Format, source: str, root: Path, parse: Parse, rules: str = ""
) -> Index:
    """The index of a source's file: the one that is kept, or a new one, which is kept.

    Args:
        format: of the file.
        root: folder of the indices; a small file's index is not kept.
        rules: stands for what ``parse`` goes by, such as the tasks that are registered.
    """
    before = path.stat()
    size = before.st_size
    read_by = hashlib.sha256(f"{format.name} {rules}".encode()).hexdigest()[:12]
    folder = root / f"{source}-{VERSION}-{sha256(path)[:24]}-{read_by}"
    if size >= KEEP_FROM and (kept := Index.load(folder)):
        return kept
    if size < BAR_FROM:
        index = build_index(path, format, folder.name, parse)
    else:
        with progress_bar(f"indexing {source} (MB)", -(-size // 10**6)) as advance:
            index = build_index(path, format, folder.name, parse, lambda n: advance(n / 1e6))
    after = path.stat()
    if any(getattr(after, name) != getattr(before, name) for name in IDENTITY):
        raise UserError(f"{path}: was changed while it was read; start again when it is whole")
    if size < KEEP_FROM:
        return index
    try:
        for old in root.glob(f"{source}-*"):  # of other content, damaged or half written
            shutil.rmtree(old, ignore_errors=True)
        index.save(folder)
    except OSError as error:  # read-only, full: it costs time on the next run only
        if not folder.exists():  # else another process was faster
            print(f"warning: {folder}: the index cannot be kept ({error.strerror})")
    return Index.load(folder) or index


class IndexedFile:
    """A file with its index; so many records as are met again in a small file's passes stay read.

    Args:
        path: of the file.
        format: of its content.
        index: of its records.
        parse: turns a record into a sample.
        left_out: numbers of records that are in no split.
    """

    def __init__(
        self,
        path: Path,
        format: Format,
        index: Index,
        parse: Parse,
        left_out: Sequence[int] | np.ndarray = (),
    ) -> None:
        self.path, self.format, self.index, self.parse = path, format, index, parse
        self.left_out = left_out
        self.sample = lru_cache(maxsize=KEPT_RECORDS)(self._sample)

    def of_split(self, name: str) -> np.ndarray:
        """Numbers of the records of a split, in order, without those that are left out."""
        numbers = self.index.of_split(name)
        return numbers[~np.isin(numbers, self.left_out)] if len(self.left_out) else numbers

    def without(self, numbers: Sequence[int] | np.ndarray) -> IndexedFile:
        """The same file without some of its records."""
        return IndexedFile(self.path, self.format, self.index, self.parse, numbers)

    def medium(self, place: int) -> tuple[Media, Sample]:
        """A distinct medium, by its place in the index, with the first sample that shows it."""
        number, which, _ = self.index.media_M3[place].tolist()
        sample = self.sample(number)
        return sample.media[which], sample

    def _sample(self, number: int) -> Sample:
        """Reads one record; raises UserError if the file was changed meanwhile."""
        start, length = self.index.place_N2[number].tolist()
        try:
            with self.path.open("rb", buffering=0) as file:
                content = self.format.content(file, start, length)
        except OSError:
            content = b""
        if crc32(content) != int(self.index.print_N[number]):
            raise UserError(
                f"{self.path}: record {number + 1} is not where it was: the file was changed since "
                "its records were first read; leave it as it is while a run reads it, and start "
                "the command again"
            )
        sample = self.parse(number, self.format.value(content))
        # One that was set aside is in another split than it would be by itself.
        split = self.index.splits[int(self.index.split_N[number])]
        return sample if sample.split == split else replace(sample, split=split)


class Samples(Sequence[Sample]):
    """Samples of one or more files in order, each read when it is asked for.

    Args:
        pieces: a file and the numbers of its records; a range stands for all of them.
    """

    def __init__(self, pieces: Iterable[tuple[IndexedFile, Sequence[int] | np.ndarray]]) -> None:
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

    def _locate(self, place: int) -> tuple[IndexedFile, int]:
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
    def whole(self) -> bool:
        """Whether these are all the samples of their files."""
        return all(isinstance(numbers, range) for _, numbers in self.pieces)

    def all_task_counts(self) -> Iterator[list[tuple[str, int]]]:
        """``Sample.task_counts`` of each, without reading it."""
        return (
            source.index.task_counts(int(n)) for source, numbers in self.pieces for n in numbers
        )

    def difficulties(self) -> np.ndarray:
        """Difficulty of each, without reading it."""
        found = [source.index.difficulty_N[np.asarray(n)] for source, n in self.pieces]
        return np.concatenate([np.zeros(0, np.float32), *found])

    def media(self) -> Iterator[tuple[Media, Sample]]:
        """Each distinct medium of a file, with the first sample that shows it."""
        if not self.whole:
            yield from first_shown(self)
            return
        for source, _ in self.pieces:
            yield from map(source.medium, range(len(source.index.media_M3)))

    @property
    def media_key(self) -> str | None:
        """What stands for the media if they are too many to look at each one at every start."""
        count = sum(len(source.index.media_M3) for source, _ in self.pieces)
        if count <= MANY_MEDIA or not self.whole:
            return None
        names = "/".join(source.index.name for source, _ in self.pieces)
        return hashlib.sha256(names.encode()).hexdigest()[:32]


def first_shown(samples: Iterable[Sample]) -> Iterator[tuple[Media, Sample]]:
    """Each distinct medium with the first sample that shows it."""
    seen: set[Media] = set()
    for sample in samples:
        for medium in sample.media:
            if medium not in seen:
                seen.add(medium)
                yield medium, sample
