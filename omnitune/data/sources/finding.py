"""From a source's setting to its files, the dialect of their records, and samples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from omnitune.config.settings import nearest, quoted
from omnitune.containers.address import INSIDE, parse
from omnitune.containers.base import Container, Unreadable
from omnitune.containers.chosen import ChosenContainer
from omnitune.containers.delimited import CsvContainer
from omnitune.containers.media_folder import MediaFolderContainer, media_below
from omnitune.containers.registry import CONTAINERS, container_of
from omnitune.containers.vqa_pair import VqaPairContainer, VqaQuestionsContainer
from omnitune.data.place import DataFile, Place
from omnitune.data.schema import Record
from omnitune.data.sources.base import Dialect, Origin, Values
from omnitune.data.sources.columns import ColumnsDialect
from omnitune.data.sources.layouts import Layout, layout_of
from omnitune.data.sources.media_dir import find_media_dir, folder_within
from omnitune.data.sources.native import NativeDialect
from omnitune.data.sources.parts import is_web
from omnitune.data.sources.patterns import is_pattern as is_pattern
from omnitune.data.sources.readdressed import RenamedDialect
from omnitune.data.sources.registry import DIALECTS, dialect_of
from omnitune.data.sources.speech_sets import LINES
from omnitune.data.sources.unanswered import bare, completed, without_truth
from omnitune.data.splits import by_content
from omnitune.media.base import counted
from omnitune.media.registry import MEDIA
from omnitune.sample import Sample, UserError
from omnitune.sources import AUTO, Source
from omnitune.tasks import TASKS

_FETCH = "nothing is fetched for a record: fetch them (img2dataset does) and give what it writes"
LOOKED_AT = 20  # records by which a dialect is recognised
MEDIA_LOOKED_AT = 100  # records whose media are looked for


@dataclass(frozen=True)
class Found:
    """What a source is made of.

    Attributes:
        files: in order.
        dialect: of their records.
        source: with the folder of its media.
        splits: by file, where the layout says.
        unread: by key that the dialect does not read, how many records have something under it.
    """

    files: list[DataFile]
    dialect: Dialect
    source: Source
    splits: Mapping[Path, str]
    unread: Counter[str] = field(default_factory=Counter)

    def parse(self, place: Place, values: Any) -> Sample:
        """A record as a sample; raises UserError."""
        self.unread.update(self.dialect.unread(values) if isinstance(values, dict) else ())
        native = self.native(place, values)
        sample = Record(place.file, self.source, place.number, native, place).sample()
        sample = bare(sample) if self.source.unanswered else sample
        language = sample.language or self.source.language
        return replace(sample, language=language) if language != sample.language else sample

    def native(self, place: Place, values: Any) -> Values:
        """A record in our keys; raises UserError."""
        values = completed(values) if self.source.unanswered else values
        record = Record(place.file, self.source, place.number, values, place)
        origin = Origin(place.file, self.source, record.wrong)
        own = "task" in record.values
        native = self.dialect.native(record.values, origin)
        if self.files[0].container.has_columns:
            native = without_empty(native)
        native = without_truth(native) if self.source.unanswered else native
        return self.settled(native, place, own)

    def settled(self, native: Values, place: Place, own_task: bool = True) -> Values:
        """A record in our keys with what the source's settings say of it.

        Args:
            own_task: the record itself names its task; else the source's goes before the dialect's.
        """
        source, found = self.source, dict(native)
        if source.task and not (own_task and "task" in found):
            found["task"] = source.task
        split = source.split or self._split_by_name(place)
        if source.split == AUTO:
            found.pop("split", None)
        elif source.split or (split and "split" not in found):
            found["split"] = split
        asked = "messages" in found or "qa" in found or found.get("question")
        if not asked and (prompts := source.prompts or self._usual_question(found)):
            found["question"] = self._draw(place).choice(prompts)
        if "split" not in found and INSIDE in str(native):
            # Records whose media lie in them may be alike but for these.
            found["split"] = by_content({"record": native, "place": place[2:]})
        return found

    def _draw(self, place: Place) -> random.Random:
        """Chance that knows a record by its place: what is wrong with others changes nothing."""
        number = self._numbers.get(place.file, 0)
        name = f"{self.source.seed}/{self.source.name}/{place.within}"
        return random.Random(f"{name}/{number}" if number else name)

    @cached_property
    def _numbers(self) -> dict[Path, int]:
        return {file.path: n for n, file in enumerate(self.files)}

    def first_media(self) -> list[Path]:
        """Paths of media of the first file's first records, as far as these can be read."""
        path, container = self.files[0]
        paths: dict[Path, None] = {}
        scan = container.scan_stretch(path, lenient=True)
        # What is wrong with a file or record is told when all of them are read.
        with suppress(OSError, UserError):
            for number, (start, length, values, _) in enumerate(islice(scan, MEDIA_LOOKED_AT)):
                with suppress(UserError):
                    if isinstance(values, Unreadable):
                        raise values.error
                    sample = self.parse(Place(number, path, number, start, length), values)
                    own = (medium.path for medium in sample.media if not parse(medium.path))
                    paths |= dict.fromkeys(own)
        return list(paths)

    def _split_by_name(self, place: Place) -> str:
        """The split that the name of a record's file stands for, or of the folder of its medium."""
        file, container = place.file, self.files[0].container
        if self.splits and container.name == MediaFolderContainer.name:
            file = file / media_below(file)[place.start].partition("/")[0]
        return self.splits.get(file, "")

    def _usual_question(self, found: Values) -> tuple[str, ...]:
        """What a record of another format is asked where nobody says."""
        if self.dialect.name == NativeDialect.name:
            return ()
        name, kinds = found.get("task"), [m for m in MEDIA.values() if m.name in found]
        of_any = (t for t in TASKS.values() if t.media is None and name in (t.name, *t.aliases))
        task = TASKS.get(str(name))
        if task is None or (task.media or set()) != {medium.name for medium in kinds}:
            task = next(of_any, task)
        question = task.question if task else ""
        return (question.format(noun=kinds[0].noun if kinds else ""),) if question else ()

    @property
    def note(self) -> str:
        """What the dialect did not read, for the log; "" if it has read all."""
        told = [f"{quoted(key)} ({counted(n, 'record')})" for key, n in self.unread.items()]
        return f"{self.source.name}: not read: {', '.join(told)}" if told else ""

    @property
    def rules(self) -> str:
        """Stands for what records are read by: the source's settings, dialect and splits."""
        splits = sorted((str(path), split) for path, split in self.splits.items())
        beside = [said for path, container in self.files if (said := container.beside(path))]
        return repr((self.source, self.dialect.name, self.dialect.title, splits, *beside))

    @property
    def line(self) -> str:
        """What was recognised, for the log."""
        return f"{self.source.name}: {self.read_as}"

    @property
    def read_as(self) -> str:
        """The dialect, the number of files and their containers."""
        kinds = sorted({container.name for _, container in self.files})
        many = f"{len(self.files):,} files" if len(self.files) > 1 else "1 file"
        return f"{self.dialect.title} ({many}, {', '.join(kinds)})"


def without_empty(native: Values) -> Values:
    """A record of a table without the keys that have no value in its row.

    A row has all columns of its table. An empty answer stays: it is one that is missing.
    """
    found = {key: _without_none(value) for key, value in native.items()}
    return {k: v for k, v in found.items() if k == "answer" or (v is not None and v != "")}


def _without_none(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def find_files(source: Source) -> Found:
    """The files of a run's own source, and the dialect of their records.

    Raises:
        UserError: there is nothing, or nothing that is known.
    """
    layout = layout_of(source)
    try:
        files = [_data_file(path, source, layout) for path in layout.files]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    dialect = _dialect(source, files, layout)
    if type(dialect).passes_over is not Dialect.passes_over:
        chosen = dialect.passes_over
        files = [DataFile(path, ChosenContainer(inner, chosen)) for path, inner in files]
    media_dir = source.media_dir or layout.media_dir
    found = Found(files, dialect, replace(source, media_dir=media_dir), layout.splits)
    if media_dir:
        return found
    media_dir = find_media_dir(files[0].path, found.first_media(), source.name)
    within = folder_within(media_dir, (file.path for file in files)) if media_dir else ""
    source = replace(source, media_dir="" if within else media_dir, media_within=within)
    return replace(found, source=source, unread=Counter())


def _data_file(path: Path, source: Source, layout: Layout) -> DataFile:
    """A file with its container: what the layout says, else the format, else the file itself."""
    try:
        container = layout.container or container_of(path)
        if source.unanswered and container.name == VqaPairContainer.name:
            container = VqaQuestionsContainer()
        return DataFile(path, container)
    except UserError:
        if source.format in DIALECTS and DIALECTS[source.format].container:
            return DataFile(path, CONTAINERS[DIALECTS[source.format].container])
        if path.suffix.lower() != ".txt":
            raise
        return DataFile(path, _of_text(path, source))


def _of_text(path: Path, source: Source) -> Container:
    """The container of a text, which is made of lines: it is a list if a dialect knows them."""
    for container in (CONTAINERS[LINES], CONTAINERS[CsvContainer.name]):
        first: list[Any] = []
        with suppress(UserError):  # of a text that is no table
            first = [values for _, _, values in islice(container.scan(path), LOOKED_AT)]
        known = dialect_of(first, path) if first else None
        is_table = container.has_columns and bool(first) and len(first[0]) > 1
        if known is not None and (known.container == LINES) != is_table:
            return container
    raise UserError(
        f"{path}: is in none of the known formats; if each of its lines is a record to "
        f'be learnt, give the source {source.name} "format": "text"'
    )


def _dialect(source: Source, files: list[DataFile], layout: Layout) -> Dialect:
    if isinstance(layout.dialect, Dialect):
        return layout.dialect
    name = source.format or layout.dialect
    if source.columns and not name:
        return ColumnsDialect()
    if name and name not in DIALECTS:
        close = nearest(name, DIALECTS)
        meant = f" (did you mean {quoted(close)}?)" if close else ""
        known = ", ".join(DIALECTS)
        raise UserError(
            f"source {source.name}: format is {quoted(name)}, which is none that is known{meant}; "
            f"known: {known}"
        )
    if name:
        inner = DIALECTS[name]
        return RenamedDialect(inner, dict(source.columns)) if source.columns else inner
    path, first, broken = files[0].path, list[Any](), list[UserError]()
    scans = (container.scan_stretch(path, lenient=True) for path, container in files)
    try:
        for _, _, values, _ in islice(chain.from_iterable(scans), LOOKED_AT):
            if isinstance(values, Unreadable):
                broken.append(values.error)
            else:
                first.append(values)
    except UserError as error:
        broken.append(error)
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
    if not first and broken:  # else it is told when all of the file is read
        raise broken[0]
    if not first:
        raise UserError(f"{path}: is empty; the source {source.name} needs records")
    records = [record for record in first if isinstance(record, dict)]
    records = [completed(record) for record in records] if source.unanswered else records
    if not records:
        return DIALECTS["native"]  # its error says what a record is
    if found := dialect_of(records, path):
        return found
    raise UserError(
        f"{path}: its records have the fields {', '.join(map(str, records[0]))}, which are those "
        f"of no known format ({', '.join(DIALECTS)}); {_mend(records[0], source)}"
    )


def _mend(record: Values, source: Source) -> str:
    """What to do about records of no known format."""
    if any(map(is_web, record)):
        return "its first line is no header, and names media by web addresses; " + _FETCH
    words = {str(key).lower() for key in record} & {"caption", "text", "alt", "alt_text"}
    if words and any(map(is_web, record.values())):
        return "its media are web addresses; " + _FETCH
    example = f'"sources": {{{quoted(source.name)}: {{"columns": {{"answer": "..."}}}}}}'
    return f"say which is which with columns, such as {example}"
