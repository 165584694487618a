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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from omnitune.console import progress_bar
from omnitune.data.content_key import content_key
from omnitune.data.forks import forked
from omnitune.data.parts import (
    SILENT,
    Advance,
    Lenient,
    Parse,
    Part,
    Piece,
    cut,
    faults_of,
    joined,
    read_piece,
    read_records,
    scan_files,
    set_aside,
)
from omnitune.data.place import DataFile
from omnitune.data.splits import VALIDATION
from omnitune.data.tally import Tally
from omnitune.data.tally import difficulties as difficulties
from omnitune.sample import UserError
from omnitune.storage import write_json

VERSION = 11
INDEX_FOLDER = ".index"  # within the data folder
# Below so many bytes a file is read again sooner than its index is looked up and kept.
KEEP_FROM = 2 << 20
BAR_FROM = 32 << 20
IDENTITY = ("st_size", "st_mtime_ns", "st_ino")  # what changes with a file's content


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
        wrong_splits: the splits that such records name.
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
    wrong_splits: list[str]
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

    def asking(self, judge: Callable[[str], bool]) -> np.ndarray:
        """Whether each record has a question of a task that passes."""
        of_task_S = np.array([judge(task) for task in self.tasks], bool)[self.task_S]
        record_S = np.repeat(np.arange(len(self.single_N) - 1), np.diff(self.single_N))
        asking_N = np.zeros(len(self.single_N) - 1, bool)
        asking_N[record_S[of_task_S]] = True
        return asking_N

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
    files: Sequence[DataFile],
    name: str,
    parse: Parse,
    advance: Advance = lambda n: None,
    limit: int | None = None,
    lenient: Lenient | None = None,
    aside: bool = True,
) -> Index:
    """Reads the records of some files one by one, checks them and notes what an index holds.

    Args:
        name: stands for the files' content and the rules that they are read by.
        advance: called with the number of bytes just read.
        limit: so many records at most.
        lenient: told of records that are wrong, which then are left out; None: they are an error.
        aside: whether a record may be held out where none is.

    Raises:
        OSError: a file cannot be read.
        UserError: a file is not what it seems, or a record of it is wrong.
    """
    part = Part(faults=faults_of(files))
    records = islice(scan_files(files, advance, lenient), limit)
    read_records(part, files, records, parse, lenient)
    return index_of(part, files, name, limit, lenient, aside)


def index_of(
    part: Part,
    files: Sequence[DataFile],
    name: str,
    limit: int | None = None,
    lenient: Lenient | None = None,
    aside: bool = True,
) -> Index:
    """The index of what was found in some files; arguments and errors are those of build_index."""
    part.faults.tell()
    held_out = set_aside(files, part, limit, lenient) if aside else []
    for number in held_out:
        part.tally.split_N[number] = part.tally.splits[VALIDATION]
    return _of_tally(part.tally, held_out, name)


def _of_tally(tally: Tally, held_out: Sequence[int], name: str) -> Index:
    """The index of what was noted.

    Args:
        held_out: numbers of records that were set aside. name: of the index.
    """
    arrays: dict[str, Any] = {
        name: np.array(getattr(tally, name)) for name in _ARRAYS if hasattr(tally, name)
    }
    for key, width in (("place_N4", 4), ("media_M3", 3), ("wrong_W2", 2)):
        arrays[key] = arrays[key].reshape(-1, width)
    names: dict[str, Any] = {name: list(getattr(tally, name)) for name in _NAMES}
    return Index(
        **arrays,
        **names,
        order_N=np.argsort(arrays["split_N"], kind="stable"),
        difficulty_N=difficulties(np.array(tally.given_N), np.array(tally.effort_N)),
        aside_A=np.array(held_out, dtype=np.int64),
        name=name,
    )


class Indexing:
    """The index of a source's files: the one that is kept, or a new one, which is kept.

    Args:
        root: folder of the indices; that of small files is not kept.
        rules: stands for what ``parse`` goes by, such as the tasks that are registered.
        limit: so many records at most.
        leave_out: leave out records that are wrong; otherwise they are refused.
        aside: whether a record may be held out where none is.
        unread: what ``parse`` counts.

    Raises:
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        files: Sequence[DataFile],
        source: str,
        root: Path,
        parse: Parse,
        rules: str = "",
        limit: int | None = None,
        leave_out: bool = False,
        aside: bool = True,
        unread: Counter[str] | None = None,
    ) -> None:
        self.files, self.source, self.root, self.parse = files, source, root, parse
        self.limit, self.leave_out, self.aside = limit, leave_out, aside
        self.unread = Counter() if unread is None else unread
        self._before = [path.stat() for path, _ in files]
        self.size = sum(found.st_size for found in self._before)
        kinds = " ".join(container.name for _, container in files)
        read_by = f"{kinds} {limit} {leave_out} {aside} {rules}"
        read_by = hashlib.sha256(read_by.encode()).hexdigest()[:12]
        content = content_key([part for file in files for part in file.parts])[:24]
        self.folder = root / f"{source}-{VERSION}-{content}-{read_by}"

    @property
    def is_kept(self) -> bool:
        """Whether the files are so large that their index is kept."""
        return self.size >= KEEP_FROM

    def kept(self) -> Index | None:
        """The index that is kept, if there is one."""
        return Index.load(self.folder) if self.is_kept else None

    def pieces(self) -> list[Piece]:
        """The pieces that the files can be read in, by several; none where they cannot be cut."""
        return cut(self.files) if self.limit is None else []

    def read(self, piece: Piece) -> Part:
        """What is found in a piece."""
        return read_piece(self.files, piece, self.parse, self.leave_out, self.unread)

    def made(self) -> Index:
        """A new index, by as many processes as there are cores where the files are large.

        Raises:
            OSError, UserError: as of :func:`build_index`; or a file was changed meanwhile.
        """
        lenient = SILENT if self.leave_out else None
        build = partial(
            build_index,
            self.files,
            self.folder.name,
            self.parse,
            limit=self.limit,
            lenient=lenient,
            aside=self.aside,
        )
        if self.size < BAR_FROM:
            index = build()
        else:
            with progress_bar(f"indexing {self.source} (MB)", -(-self.size // 10**6)) as advance:
                pieces = self.pieces()
                if len(pieces) > 1:
                    share = self.size / len(pieces) / 1e6
                    index = self.of_parts(_told(forked(self.read, pieces), advance, share))
                else:
                    index = build(advance=lambda n: advance(n / 1e6))
        return self.keep(index)

    def of_parts(self, parts: Iterable[Part]) -> Index:
        """The index of all pieces; raises what reading them one by one would have."""
        whole = joined(self.files, parts)
        self.unread.update(whole.unread)
        lenient = SILENT if self.leave_out else None
        return index_of(whole, self.files, self.folder.name, None, lenient, self.aside)

    def keep(self, index: Index) -> Index:
        """Keeps a new index; raises UserError if a file was changed while it was made."""
        for (path, _), then in zip(self.files, self._before, strict=True):
            after = path.stat()
            if any(getattr(after, name) != getattr(then, name) for name in IDENTITY):
                raise UserError(
                    f"{path}: was changed while it was read; start again when it is whole"
                )
        if not self.is_kept:
            return index
        try:
            for old in self.root.glob(
                f"{self.source}-*"
            ):  # of other content, damaged, half written
                shutil.rmtree(old, ignore_errors=True)
            index.save(self.folder)
        except OSError as error:  # read-only, full: it costs time on the next run only
            if not self.folder.exists():  # else another process was faster
                print(f"warning: {self.folder}: the index cannot be kept ({error.strerror})")
        return Index.load(self.folder) or index


def _told(parts: Iterable[Part], advance: Callable[..., None], share: float) -> Iterator[Part]:
    """The parts; tells of each."""
    for part in parts:
        advance(share)
        yield part
