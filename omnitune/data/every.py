"""Every record of some files in order, those that are wrong among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from heapq import merge
from itertools import accumulate
from operator import itemgetter

from omnitune.containers.base import Unreadable
from omnitune.data.place import Place
from omnitune.data.samples import IndexedSource, Samples
from omnitune.sample import Sample, UserError


@dataclass(frozen=True)
class WrongRecord:
    """A record that cannot be read.

    Attributes:
        source: its name. number: its place among all records of the source.
        error: what is wrong with it, in words.
    """

    source: str
    number: int
    error: str


def every_record(name: str, samples: Samples, wrong: bool = True) -> Iterator[Sample | WrongRecord]:
    """The records of a source in the order of its files, each read when it is asked for.

    A sample's number, and its id where the record names none, count the wrong ones in: they stay
    the same when these are mended.

    Args:
        name: of the source.
        samples: of whole files, or of one split.
        wrong: give those that are wrong, too.
    """
    for source, numbers in samples.pieces:
        count = len(source.files)
        lengths = [0] * count
        for file, within in [*source.index.place_N4[:, :2].tolist(), *_wrong_places(source)]:
            lengths[file] = max(lengths[file], within + 1)
        starts = [0, *accumulate(lengths)]
        read = _read(name, source, numbers, starts)
        both = merge(read, _wrong(name, source, starts), key=itemgetter(0)) if wrong else read
        yield from (record for _, record in both)


def _wrong_places(source: IndexedSource) -> list[list[int]]:
    places: list[list[int]] = source.index.wrong_W2.tolist()
    return places


def _read(
    name: str, source: IndexedSource, numbers: Iterable[int], starts: list[int]
) -> Iterator[tuple[int, Sample | WrongRecord]]:
    for number in map(int, numbers):
        file, within = source.index.place_N4[number, :2].tolist()
        sample, place = source.sample(number), starts[file] + within
        if sample.id == f"{name}/{number}":
            sample = replace(sample, id=f"{name}/{place}")
        yield place, replace(sample, number=place)


def _wrong(
    name: str, source: IndexedSource, starts: list[int]
) -> Iterator[tuple[int, Sample | WrongRecord]]:
    """The wrong records: an index keeps their places only, so that their files are read again."""
    places = {(file, within) for file, within in _wrong_places(source)}
    for n, (path, container) in enumerate(source.files):
        left = {within for file, within in places if file == n}
        found = container.scan_stretch(path, lenient=True) if left else ()
        for within, (start, length, values, _) in enumerate(found):
            if within not in left:
                continue
            place = Place(starts[n] + within, path, within, start, length)
            try:
                if isinstance(values, Unreadable):
                    raise values.error
                source.parse(place, values)
            except UserError as error:
                yield place.number, WrongRecord(name, place.number, str(error))
            left.discard(within)
            if not left:
                break
