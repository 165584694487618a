"""An index of a source's files: where each record lies, its split, its questions, its media.

A first pass reads the files piece by piece, checks every record and keeps what it found in a
folder named by what stands for the files' content and for what they are read by: it cannot go
stale. Of the embedded layout it lies under ``<data_dir>/.index``.
Later starts map it into memory, and a record is read from its file when it is asked for, so that
neither start-up nor memory grows with the number of records.

Shape suffixes: N records, S singles (what ``Sample.split_turns`` gives), M distinct media, R places
in records that show a medium.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from omnitune.console import progress_bar
from omnitune.data.faults import Faults
from omnitune.data.place import DataFile, Place
from omnitune.data.reasons import reason_of
from omnitune.data.splits import TRAIN, VALIDATION, likely, one_to_set_aside
from omnitune.data.tally import Tally
from omnitune.data.tally import difficulties as difficulties
from omnitune.sample import Sample, UserError
from omnitune.storage import sha256, write_json

VERSION = 7
INDEX_FOLDER = ".index"  # within the data folder
# Below so many bytes a file is read again sooner than its index is looked up and kept.
KEEP_FROM = 2 << 20
BAR_FROM = 32 << 20
IDENTITY = ("st_size", "st_mtime_ns", "st_ino")  # what changes with a file's content

WHOLE_UP_TO = 64 << 20  # bytes of files that are known by all of their content
ENDS = 64 << 10  # bytes at both ends that larger ones are known by, beside size and time


T = TypeVar("T")
# Place of a record and its JSON value to its sample; raises UserError.
Parse = Callable[[Place, Any], Sample]
Advance = Callable[[int], None]


class Lenient(NamedTuple):
    """What is told of what is wrong with some files, in place of an error.

    Attributes:
        on_record: of a record, which is left out.
        on_file: of a file that cannot be read on; None: that is an error all the same.
    """

    on_record: Callable[[Place, UserError], None]
    on_file: Callable[[Path, UserError | OSError], None] | None = None


@dataclass(frozen=True)
class Index:
    """What is known of a file's records without reading them.

    Attributes:
        place_N4: place of its file, its number in that, and the two numbers by which its container
            finds it there.
        size_N: number of bytes.
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
        wrong_W2: of records that are left out because they are wrong, the place of the file and the
            number in that.
        wrong: the code of what is wrong with each of these. told: a sentence on each such code.
        name: stands for the file's content and the rules that it was read by.
    """

    place_N4: np.ndarray
    size_N: np.ndarray
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
    wrong_W2: np.ndarray
    splits: list[str]
    tasks: list[str]
    modalities: list[str]
    wrong: list[str]
    told: list[str]
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


def _sound(
    path: Path,
    records: Iterator[T],
    on_file: Callable[[Path, UserError | OSError], None] | None,
) -> Iterator[T]:
    """The records of a file up to where it is broken, if anybody wants to be told of that."""
    try:
        yield from records
    except (UserError, OSError) as error:
        if on_file is None:
            raise
        on_file(path, error)


def build_index(
    files: Sequence[DataFile],
    name: str,
    parse: Parse,
    advance: Advance = lambda n: None,
    limit: int | None = None,
    lenient: Lenient | None = None,
) -> Index:
    """Reads the records of some files one by one, checks them and notes what an index holds.

    Args:
        name: stands for the files' content and the rules that they are read by.
        advance: called with the number of bytes just read.
        limit: so many records at most.
        lenient: told of records that are wrong, which then are left out; None: they are an error.

    Raises:
        OSError: a file cannot be read.
        UserError: a file is not what it seems, or a record of it is wrong.
    """
    tally, faults = Tally(), Faults(files[0].path if len(files) == 1 else None)
    free, numbers = 0, {file.path: n for n, file in enumerate(files)}
    on_file = lenient.on_file if lenient else None
    for place, content, values in islice(_records(files, advance, on_file), limit):
        number = numbers[place.file]
        try:
            # Where some are left out, a record's number is its place among the others.
            sample = parse(place._replace(number=len(tally.print_N)) if lenient else place, values)
        except UserError as error:
            if lenient is None:
                faults.take(error)
            else:
                lenient.on_record(place, error)
                tally.leave_out(number, place.within, reason_of(str(error)), str(error))
            continue
        if faults:  # all that is told now is what else is wrong
            continue
        tally.add(sample, (number, *place[2:]), content)
        free += "split" not in values
    faults.tell()
    enough = free > 0 and tally.split_N.count(tally.splits.get(TRAIN, -1)) > 1
    aside = _set_aside(files, tally.splits, limit, tally.places_left_out) if enough else []
    for number in aside:
        tally.split_N[number] = tally.splits[VALIDATION]
    arrays: dict[str, Any] = {
        name: np.array(getattr(tally, name)) for name in _ARRAYS if hasattr(tally, name)
    }
    arrays["place_N4"] = arrays["place_N4"].reshape(-1, 4)
    arrays["media_M3"] = arrays["media_M3"].reshape(-1, 3)
    arrays["wrong_W2"] = arrays["wrong_W2"].reshape(-1, 2)
    names: dict[str, Any] = {name: list(getattr(tally, name)) for name in _NAMES}
    return Index(
        **arrays,
        **names,
        order_N=np.argsort(arrays["split_N"], kind="stable"),
        difficulty_N=difficulties(np.array(tally.given_N), np.array(tally.effort_N)),
        aside_A=np.array(aside, dtype=np.int64),
        name=name,
    )


def _records(
    files: Sequence[DataFile],
    advance: Advance = lambda n: None,
    on_file: Callable[[Path, UserError | OSError], None] | None = None,
) -> Iterator[tuple[Place, bytes, Any]]:
    """Place, bytes and value of each record of some files; tells how many bytes were read."""
    number = 0
    for path, container in files:
        size, told = path.stat().st_size, 0
        for within, found in enumerate(_sound(path, container.scan_contents(path), on_file)):
            start, length, values, content = found
            yield Place(number, path, within, start, length), content, values
            number += 1
            now = min(size, container.read_up_to(start, length))
            advance(now - told)
            told = now
        advance(size - told)


def _set_aside(
    files: Sequence[DataFile],
    splits: Iterable[str],
    limit: int | None,
    left_out: Container[tuple[int, int]],
) -> list[int]:
    """The record to hold out where the share of those without a split gives none: one, or none."""
    if any(VALIDATION in (name, likely(name)) for name in splits):
        return []
    numbers = {file.path: n for n, file in enumerate(files)}
    number = one_to_set_aside(
        values
        for place, _, values in islice(_records(files), limit)
        if (numbers[place.file], place.within) not in left_out
    )
    return [] if number is None else [number]


def content_key(paths: Sequence[Path]) -> str:
    """Stands for the content of some files; raises OSError.

    Small ones are read for it. Of larger ones it is size, time of change and both ends: whether a
    record is still the same is seen when it is read.
    """
    if sum(path.stat().st_size for path in paths) <= WHOLE_UP_TO:
        if len(paths) == 1:
            return _whole(paths[0])
        return hashlib.sha256("".join(map(_whole, paths)).encode()).hexdigest()
    digest = hashlib.sha256()
    for path in paths:
        found = path.stat()
        if path.is_dir():
            digest.update(_whole(path).encode())
            continue
        digest.update(f"{path.name}/{found.st_size}/{found.st_mtime_ns}".encode())
        with path.open("rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(0, found.st_size - ENDS))
            digest.update(file.read(ENDS))
    return digest.hexdigest()


def _whole(path: Path) -> str:
    """Stands for all that a file holds, or for the names that a folder holds."""
    if not path.is_dir():
        return sha256(path)
    names = sorted(found.relative_to(path).as_posix() for found in path.rglob("*"))
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def open_index(
    files: Sequence[DataFile],
    source: str,
    root: Path,
    parse: Parse,
    rules: str = "",
    limit: int | None = None,
    leave_out: bool = False,
) -> Index:
    """The index of a source's files: the one that is kept, or a new one, which is kept.

    Args:
        root: folder of the indices; that of small files is not kept.
        rules: stands for what ``parse`` goes by, such as the tasks that are registered.
        limit: so many records at most.
        leave_out: leave out records that are wrong; otherwise they are refused.
    """
    before = [path.stat() for path, _ in files]
    size = sum(found.st_size for found in before)
    parts = [part for file in files for part in file.parts]
    kinds = " ".join(container.name for _, container in files)
    read_by = hashlib.sha256(f"{kinds} {limit} {leave_out} {rules}".encode()).hexdigest()[:12]
    folder = root / f"{source}-{VERSION}-{content_key(parts)[:24]}-{read_by}"
    if size >= KEEP_FROM and (kept := Index.load(folder)):
        return kept
    lenient = Lenient(lambda place, error: None) if leave_out else None
    if size < BAR_FROM:
        index = build_index(files, folder.name, parse, limit=limit, lenient=lenient)
    else:
        with progress_bar(f"indexing {source} (MB)", -(-size // 10**6)) as advance:
            index = build_index(
                files, folder.name, parse, lambda n: advance(n / 1e6), limit, lenient
            )
    for (path, _), then in zip(files, before, strict=True):
        after = path.stat()
        if any(getattr(after, name) != getattr(then, name) for name in IDENTITY):
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
