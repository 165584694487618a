"""Reads the data files of sources into samples; every error names file, record and field."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from omnitune.config.settings import quoted
from omnitune.containers.cache import cache_folder
from omnitune.containers.notes import note
from omnitune.containers.registry import container_of, suffixes
from omnitune.data.content_key import content_key
from omnitune.data.faults import Faults
from omnitune.data.index import INDEX_FOLDER, Index, Indexing
from omnitune.data.parts import Parse
from omnitune.data.place import DataFile, Place
from omnitune.data.samples import IndexedSource, Samples, first_shown
from omnitune.data.schema import Record, rules
from omnitune.data.sources.finding import Found, find_files, is_pattern
from omnitune.data.sources.patterns import alike, no_such
from omnitune.data.sources.unanswered import bare, completed, without_truth
from omnitune.data.splits import clash
from omnitune.media.registry import MEDIA
from omnitune.sample import Media, Sample, UserError
from omnitune.sources import SOURCES, Source, get_source, may_set_aside

SHOWN_FILES = 5  # of another layout
LAYOUT = (
    'Each is a list such as [{"image": "a.png", "question": "...", "answer": "..."}]; '
    "docs/data.md has every form of a record"
)


@dataclass(frozen=True)
class DataPlace:
    """Where records are: a folder of the embedded layout, a run's own sources, or both.

    Attributes:
        folder: of the embedded layout; None where there is none.
        own: a run's own sources, by name.
        leave_out_wrong: leave out records that are wrong; otherwise they are refused.
        unanswered: records may lack answers.
        known: what own sources were found to be, so that each is looked up once.
    """

    folder: Path | None
    own: Mapping[str, Source] = field(default_factory=dict)
    leave_out_wrong: bool = False
    unanswered: bool = False
    known: dict[str, tuple[Source, Found]] = field(default_factory=dict, compare=False, repr=False)

    def look_up(self, source: Source) -> Found:
        """What an own source is; raises UserError."""
        # The language of its answers is what a run may say beside it.
        asked, found = self.known.get(source.name, (None, None))
        if found is None or asked != replace(source, language=""):
            found = find_files(source)
            self.known[source.name] = replace(source, language=""), found
        return replace(found, source=replace(found.source, language=source.language))

    @classmethod
    def of(cls, path: Path | DataPlace) -> DataPlace:
        """What a user's path means: a folder of the embedded layout, else one source."""
        if isinstance(path, DataPlace):
            return path
        embedded = path.is_dir() and any(source_file(path, name).exists() for name in SOURCES)
        file, _, entry = str(path).partition("::")
        of_several = bool(entry) and Path(file).is_file()  # dataset_info.json::NAME
        if embedded or not (path.exists() or of_several or is_pattern(path)):
            return cls(path)
        name = entry if of_several else path.name.partition(".")[0] or "data"
        return cls(None, {name: Source(name, path=str(path))})

    @classmethod
    def to_answer(cls, path: Path, prompt: str = "") -> DataPlace:
        """The same for whoever only asks: answers may be missing, and wrong records are left out.

        Args:
            prompt: what records without a question are asked.
        """
        found, prompts = cls.of(path), (prompt,) * bool(prompt)
        own = {n: replace(s, unanswered=True, prompts=prompts) for n, s in found.own.items()}
        return cls(found.folder, own, leave_out_wrong=True, unanswered=True)

    def __str__(self) -> str:
        places = [str(self.folder)] * (self.folder is not None)
        return ", ".join([*places, *(source.path for source in self.own.values())])

    def resolved(self) -> tuple[Path | None, frozenset[str]]:
        """The places, wherever they are named from."""
        own = frozenset(str(Path(source.path).resolve()) for source in self.own.values())
        return self.folder and self.folder.resolve(), own

    @property
    def there(self) -> bool:
        """Whether there is anything at all."""
        return bool(self.own) or (self.folder is not None and self.folder.is_dir())


def source_file(data_dir: Path, source: str) -> Path:
    """The file of a source, there or not: as the registry names it, or in another container.

    Raises:
        UserError: there are several.
    """
    usual = data_dir / SOURCES[source].file
    paths = dict.fromkeys([usual, *(usual.with_suffix(suffix) for suffix in suffixes())])
    there = [path for path in paths if path.exists()]
    if len(there) > 1:
        raise UserError(
            f"{' and '.join(map(str, there))}: the source {source} has one file; keep one of them"
        )
    return there[0] if there else usual


class Located(NamedTuple):
    """The files of a source, and how they are read.

    Attributes:
        root: folder of its indices.
        found: of a run's own source.
    """

    files: list[DataFile]
    source: Source
    parse: Parse
    root: Path
    found: Found | None = None


def locate_source(
    data: Path | DataPlace | None,
    source: str | Source,
    given: str = "",
    language: str = "",
    unanswered: bool = False,
) -> Located:
    """Where the records of a source are, and how they are read.

    Args:
        data: folder of the embedded layout, or what is known of it; of no use to a run's own
            source.
        given: what gave the source its weight, for the error where there is no file.
        language: of the answers of records that do not say.
        unanswered: its records may lack answers.

    Raises:
        UserError: a file is missing or in no known format.
    """
    of = get_source(source)
    of = replace(of, language=of.language or language, unanswered=of.unanswered or unanswered)
    place = data if isinstance(data, DataPlace) else DataPlace(data)
    if of.path:
        found = place.look_up(of)
        # Sources of one name may lie in several places, and one place be read in several ways.
        where = hashlib.sha256(str(Path(of.path).absolute()).encode()).hexdigest()[:12]
        root = cache_folder(INDEX_FOLDER) / where
        return Located(found.files, found.source, found.parse, root, found)
    data_dir = place.folder
    assert data_dir is not None
    path = source_file(data_dir, of.name)

    def parse(place: Place, values: Any) -> Sample:
        values = without_truth(completed(values)) if of.unanswered else values
        sample = Record(path, of, 0, values, place).sample()
        sample = bare(sample) if of.unanswered else sample
        language = sample.language or of.language
        return replace(sample, language=language) if language != sample.language else sample

    try:
        if not (path.is_file() or path.is_dir()) and path.exists():
            raise UserError(f"{path}: is no regular file; expected a JSON list of records")
        files = [DataFile(path, container_of(path))]
    except FileNotFoundError:
        raise UserError(_no_file(path, data_dir, of.name, given)) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return Located(files, of, parse, data_dir / INDEX_FOLDER)


def read_source(
    data: Path | DataPlace | None,
    source: str | Source,
    given: str = "",
    language: str = "",
    leave_out: bool = False,
    unanswered: bool = False,
) -> Samples:
    """The samples of one source, in the order of its files; every record is checked.

    Args:
        data, given, language, unanswered: as of :func:`locate_source`.
        leave_out: leave out records that are wrong; otherwise they are refused.

    Raises:
        UserError: a file is missing, empty or in no known format, or records are wrong.
    """
    located = locate_source(data, source, given, language, unanswered)
    files, found = located.files, located.found
    if found:
        note(found.line)
    try:
        indexing = indexing_of(located, leave_out)
        index = indexing.kept() or indexing.made()
    except OSError as error:
        path = error.filename or files[0].path
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    check_index(index, located)
    if found and found.note:
        note(found.note)
    held = IndexedSource(files, index, located.parse, located.root)
    return Samples([(held, range(len(index.size_N)))])


def indexing_of(located: Located, leave_out: bool) -> Indexing:
    """The index of a source, kept or to be made; raises OSError."""
    files, of, parse, root, found = located
    read_by, unread = rules(of) + (found.rules if found else ""), found.unread if found else None
    aside = may_set_aside(of)
    return Indexing(files, of.name, root, parse, read_by, of.limit, leave_out, aside, unread)


def check_index(index: Index, located: Located) -> None:
    """Raises a UserError if there is nothing in an index, or its splits are told by case alone."""
    path = located.files[0].path
    if not len(index.size_N) and index.wrong:
        raise UserError(
            f"{path}: every record of the source {located.source.name} is wrong; the first: "
            f"{index.told[0]}"
        )
    if not len(index.size_N):
        raise UserError(f"{path}: is an empty list; the source {located.source.name} needs records")
    if two := clash(index.splits):
        raise UserError(
            f"{path}: the splits {quoted(two[0])} and {quoted(two[1])} differ by case alone; "
            "give them one name"
        )


def _no_file(path: Path, data_dir: Path, source: str, given: str) -> str:
    """What to do where a source has weight and no file."""
    there = ", ".join(name for name in SOURCES if source_file(data_dir, name).exists())
    return (
        f"{path}: no such file, but the source {source} has weight"
        f"{f' ({given})' if given else ''}; give it the weight 0, put the file there, or make it "
        f"with `omnitune corpus`. Sources with a file in {data_dir}: {there or 'none'}"
    )


def _check_folder(data_dir: Path) -> None:
    if data_dir.is_dir():
        return
    if data_dir.exists():
        raise UserError(
            f"{data_dir}: is a file; expected the folder that holds "
            f"{SOURCES['image_text'].file} or others. {LAYOUT}"
        )
    if data_dir.suffix:  # a file is meant
        raise UserError(no_such(data_dir, ""))
    close = alike(data_dir)
    hint = f" (did you mean {close}?)" if close else ""
    raise UserError(
        f"{data_dir}: no such data folder{hint}; name yours, or make it with `omnitune corpus`"
    )


def read_sources(
    data: Path | DataPlace,
    given: Mapping[str, str],
    languages: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Samples]:
    """Reads several sources; tells of all of them what is wrong.

    Args:
        given: by source, what gave it its weight.
        languages: by source, of the answers of records that do not say.
    """
    data = data if isinstance(data, DataPlace) else DataPlace(data)
    if data.folder is not None and any(name not in data.own for name in given):
        _check_folder(data.folder)
    samples: dict[str, Samples] = {}
    faults = Faults()
    for source, where in given.items():
        with faults:
            of, language = data.own.get(source, source), languages.get(source, "")
            lenience = data.leave_out_wrong, data.unanswered
            samples[source] = read_source(data, of, where, language, *lenience)
    faults.tell()
    return samples


def read_available(
    data: Path | DataPlace,
    sources: Iterable[str] | None = None,
    languages: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Samples]:
    """Reads each of the sources whose file is there (a folder with only some of them will do).

    Args:
        data: a folder of the embedded layout, a file or folder of another format, or both.
        sources: all that are known if None.
        languages: by source, of the answers of records that do not say.
    """
    data = DataPlace.of(data)
    names = [*(SOURCES if data.folder else ()), *data.own] if sources is None else list(sources)
    own = [name for name in names if name in data.own]
    if data.folder is None:
        return read_sources(data, dict.fromkeys(own, ""), languages)
    files = {name: SOURCES[name].file for name in names if name not in data.own}
    if files:
        _check_folder(data.folder)
    present = [source for source in files if source_file(data.folder, source).exists()]
    if not present and not own:
        paths = (path for suffix in suffixes() for path in data.folder.glob(f"*{suffix}"))
        others = sorted(path.name for path in islice(paths, SHOWN_FILES))
        found = f"; {', '.join(others)} in it would have to be one of these" if others else ""
        raise UserError(
            f"{data.folder}: holds none of the data files ({', '.join(files.values())}){found}. "
            f"{LAYOUT}"
        )
    return read_sources(data, dict.fromkeys([*present, *own], ""), languages)


def data_files(
    data: Path | DataPlace, sources: Iterable[str] | None = None
) -> dict[str, Path | str]:
    """The files of sources (of all if None), there or not, by their names within the folder.

    Of a run's own source it is a digest that stands for the content of all its files.
    """
    data = data if isinstance(data, DataPlace) else DataPlace(data)
    files: dict[str, Path | str] = {}
    for name in SOURCES if sources is None else sources:
        if name in data.own:
            found = data.look_up(data.own[name]).files
            files[name] = content_key([part for file in found for part in file.parts])
        elif data.folder is not None:
            path = source_file(data.folder, name)
            files[path.relative_to(data.folder).as_posix()] = path
    return files


def join(parts: Iterable[Samples]) -> Samples:
    """The samples of several sources, one after the other."""
    return Samples(piece for part in parts for piece in part.pieces)


def split_of(samples: Samples, split: str) -> Samples:
    """The samples of one split, in order."""
    return samples.of_split(split)


def media_of(samples: Sequence[Sample]) -> Iterator[tuple[Media, Sample]]:
    """Distinct media, each with the first sample that shows it."""
    return samples.media() if isinstance(samples, Samples) else first_shown(samples)


def media_key(samples: Sequence[Sample]) -> str | None:
    """What stands for the media if they are too many to look at each one at every start."""
    return samples.media_key if isinstance(samples, Samples) else None


def all_task_counts(samples: Sequence[Sample]) -> Iterator[list[tuple[str, int]]]:
    """``Sample.task_counts`` of each sample; those of an indexed file are not read for it."""
    if isinstance(samples, Samples):
        return samples.all_task_counts()
    return (sample.task_counts() for sample in samples)


def asking(samples: Sequence[Sample], judge: Callable[[str], bool]) -> np.ndarray:
    """Places of the samples with a question of a task that passes; of a file none is read."""
    if isinstance(samples, Samples):
        return np.flatnonzero(samples.asking(judge))
    return np.array(
        [n for n, one in enumerate(samples) if any(judge(task) for task, _ in one.task_counts())]
    )


def check_media(samples: Sequence[Sample]) -> None:
    """Checks the header of every medium once; a UserError names the first that is unusable."""
    for medium, sample in media_of(samples):
        try:
            MEDIA[medium.modality].check(medium.path)
        except UserError as error:
            raise UserError(f"sample {sample.id} ({sample.source}): {error}") from None
