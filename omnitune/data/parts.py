"""Reads and checks the records of a source in parts, and joins what was found of these.

What is found does not depend on how the files are cut, nor on who reads which part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from omnitune.containers.base import Stretch, Unreadable
from omnitune.data.faults import Faults
from omnitune.data.place import DataFile, Place
from omnitune.data.reasons import reason_of
from omnitune.data.splits import SPLIT, TRAIN, VALIDATION, likely, one_to_set_aside
from omnitune.data.tally import Tally
from omnitune.sample import Sample, UserError

T = TypeVar("T")
PART = 8 << 20  # bytes that are read at once by one process, about

# Place of a record and its JSON value to its sample; raises UserError.
Parse = Callable[[Place, Any], Sample]
Advance = Callable[[int], None]
Record = tuple[Place, bytes, Any]  # its place, bytes and value


class Lenient(NamedTuple):
    """What is told of what is wrong with some files, in place of an error.

    Attributes:
        on_record: of a record, which is left out.
        on_file: of a file that cannot be read on; None: that is an error all the same.
    """

    on_record: Callable[[Place, UserError], None]
    on_file: Callable[[Path, UserError | OSError], None] | None = None


class Piece(NamedTuple):
    """A part of a source's files.

    Attributes:
        file: place of its file among these. size: bytes of that file.
    """

    file: int
    stretch: Stretch
    size: int


@dataclass
class Part:
    """What was found in a part of a source's files.

    Attributes:
        free: number of records that name no split.
        broken: what ended the reading.
        unread: what ``parse`` has counted meanwhile.
    """

    tally: Tally = field(default_factory=Tally)
    faults: Faults = field(default_factory=Faults)
    free: int = 0
    broken: UserError | OSError | None = None
    unread: Counter[str] = field(default_factory=Counter)


def cut(files: Sequence[DataFile]) -> list[Piece]:
    """The pieces of some files, in order; raises OSError, UserError."""
    return [
        Piece(number, stretch, path.stat().st_size)
        for number, (path, container) in enumerate(files)
        for stretch in container.stretches(path, PART)
    ]


def read_records(
    part: Part,
    files: Sequence[DataFile],
    records: Iterable[Record],
    parse: Parse,
    lenient: Lenient | None = None,
) -> None:
    """Checks records, and notes in a part what an index holds of them.

    Args:
        lenient: told of records that are wrong, which then are left out; None: they are faults.

    Raises:
        OSError, UserError: reading them does, or very many are wrong.
    """
    numbers = {file.path: n for n, file in enumerate(files)}
    tally, faults = part.tally, part.faults
    for place, content, values in records:
        number = numbers[place.file]
        try:
            if isinstance(values, Unreadable):
                raise values.error
            # Where some are left out, a record's number is its place among the others.
            sample = parse(place._replace(number=len(tally.print_N)) if lenient else place, values)
        except UserError as error:
            if lenient is None:
                faults.take(error)
                continue
            lenient.on_record(place, error)
            named = values.get(SPLIT) if isinstance(values, dict) else None
            told = str(error)
            tally.leave_out((number, place.within), reason_of(told), told, named)
            continue
        if faults:  # all that is told now is what else is wrong
            continue
        tally.add(sample, (number, *place[2:]), content)
        part.free += SPLIT not in values


def read_piece(
    files: Sequence[DataFile],
    piece: Piece,
    parse: Parse,
    leave_out: bool,
    unread: Counter[str],
) -> Part:
    """What is found in a piece; what is wrong with it is in the part, and raised by :func:`joined`.

    Args:
        leave_out: leave out records that are wrong.
        unread: what ``parse`` counts; of the piece it is moved into the part.
    """
    path, container = files[piece.file]
    part, before = Part(faults=faults_of(files)), unread.copy()
    try:
        if path.is_file() and (size := path.stat().st_size) != piece.size:
            raise UserError(
                f"{path}: has {size:,} bytes here, and {piece.size:,} where the first process "
                "found it; all processes of a run need the same files"
            )
        found = container.scan_stretch(path, piece.stretch, leave_out)
        records = (
            (Place(n, path, n, start, length), content, values)
            for n, (start, length, values, content) in enumerate(found, piece.stretch.records)
        )
        read_records(part, files, records, parse, SILENT if leave_out else None)
    except (UserError, OSError) as error:
        part.broken = error
    part.unread = unread - before
    unread -= part.unread
    return part


def joined(files: Sequence[DataFile], parts: Iterable[Part]) -> Part:
    """All parts of some files, in order, as one.

    Raises:
        OSError, UserError: what reading the files from end to end would have.
    """
    whole = Part(faults=faults_of(files))
    for part in parts:
        whole.faults.join(part.faults)
        if part.broken is not None:
            raise part.broken
        if not whole.faults:
            whole.tally.extend(part.tally)
            whole.free += part.free
            whole.unread += part.unread
    return whole


def faults_of(files: Sequence[DataFile]) -> Faults:
    """What collects the faults of some files."""
    return Faults(files[0].path if len(files) == 1 else None)


def scan_files(
    files: Sequence[DataFile],
    advance: Advance = lambda n: None,
    lenient: Lenient | None = None,
) -> Iterator[Record]:
    """Each record of some files; tells how many bytes were read."""
    number = 0
    on_file = lenient.on_file if lenient else None
    for path, container in files:
        size, told = path.stat().st_size, 0
        found = container.scan_stretch(path, lenient=lenient is not None)
        for within, (start, length, values, content) in enumerate(_sound(path, found, on_file)):
            yield Place(number, path, within, start, length), content, values
            number += 1
            now = min(size, container.read_up_to(start, length))
            advance(now - told)
            told = now
        advance(size - told)


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


def set_aside(
    files: Sequence[DataFile], part: Part, limit: int | None, lenient: Lenient | None
) -> list[int]:
    """The record to hold out where the share of those without a split gives none: one, or none.

    A record may say no split and be in another than train all the same, as its file's name tells.

    Args:
        part: all of the files. lenient: as they were read; nobody is told again.
    """
    tally = part.tally
    if not part.free or tally.split_N.count(tally.splits.get(TRAIN, -1)) < 2:
        return []
    if any(VALIDATION in (name, likely(name)) for name in tally.splits):
        return []
    left_out, numbers = tally.places_left_out, {file.path: n for n, file in enumerate(files)}
    again = None
    if lenient:
        again = SILENT._replace(on_file=lenient.on_file and (lambda path, error: None))
    kept = (
        values
        for place, _, values in islice(scan_files(files, lenient=again), limit)
        if (numbers[place.file], place.within) not in left_out
    )
    train = tally.splits[TRAIN]
    number = one_to_set_aside(
        values if split == train else {SPLIT: ""}
        for values, split in zip(kept, tally.split_N, strict=True)
    )
    return [] if number is None else [number]


SILENT = Lenient(lambda place, error: None)
