"""From a source's setting to its files, the dialect of their records, and samples."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from omnitune.config.settings import nearest, quoted
from omnitune.containers.registry import container_of
from omnitune.data.place import DataFile, Place
from omnitune.data.schema import Record
from omnitune.data.sources.base import Dialect, Origin, Values
from omnitune.data.sources.columns import ColumnsDialect
from omnitune.data.sources.layouts import Layout, layout_of
from omnitune.data.sources.registry import DIALECTS, dialect_of
from omnitune.sample import Sample, UserError
from omnitune.sources import Source

LOOKED_AT = 20  # records by which a dialect is recognised
TRANSCRIPTION = "transcription"


@dataclass(frozen=True)
class Found:
    """What a source is made of.

    Attributes:
        files: in order.
        dialect: of their records.
        source: with the folder of its media.
        splits: by file, where the layout says.
    """

    files: list[DataFile]
    dialect: Dialect
    source: Source
    splits: Mapping[Path, str]

    def parse(self, place: Place, values: Any) -> Sample:
        """A record as a sample; raises UserError."""
        record = Record(place.file, self.source, place.number, values, place)
        origin = Origin(place.file, self.source, record.wrong)
        native = self.settled(self.dialect.native(record.values, origin), place)
        sample = Record(place.file, self.source, place.number, native, place).sample()
        return sample if sample.language else replace(sample, language=self.source.language)

    def settled(self, native: Values, place: Place) -> Values:
        """A record in our keys with what the source's settings say of it."""
        source, found = self.source, dict(native)
        if source.task:
            found.setdefault("task", source.task)
        split = source.split or self.splits.get(place.file, "")
        if source.split or (split and "split" not in found):
            found["split"] = split
        asked = "messages" in found or "qa" in found or found.get("question")
        if not asked and (prompts := source.prompts):
            draw = random.Random(f"{source.seed}/{source.name}/{place.number}")
            found["question"] = draw.choice(prompts)
        return found

    @property
    def line(self) -> str:
        """What was recognised, for the log."""
        kinds = sorted({container.name for _, container in self.files})
        many = f"{len(self.files):,} files" if len(self.files) > 1 else "1 file"
        return f"{self.source.name}: {self.dialect.title} ({many}, {', '.join(kinds)})"


def is_pattern(path: Path) -> bool:
    """Whether a path stands for several files."""
    return any(sign in str(path) for sign in "*?[{")


def find_files(source: Source) -> Found:
    """The files of a run's own source, and the dialect of their records.

    Raises:
        UserError: there is nothing, or nothing that is known.
    """
    layout = layout_of(source)
    try:
        files = [DataFile(path, layout.container or container_of(path)) for path in layout.files]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    dialect = _dialect(source, files, layout)
    media_dir = source.media_dir or layout.media_dir
    return Found(files, dialect, replace(source, media_dir=media_dir), layout.splits)


def _dialect(source: Source, files: list[DataFile], layout: Layout) -> Dialect:
    if source.columns:
        return ColumnsDialect()
    name = source.format or layout.dialect
    if name and name not in DIALECTS:
        close = nearest(name, DIALECTS)
        meant = f" (did you mean {quoted(close)}?)" if close else ""
        known = ", ".join(DIALECTS)
        raise UserError(
            f"source {source.name}: format is {quoted(name)}, which is none that is known{meant}; "
            f"known: {known}"
        )
    if name:
        return DIALECTS[name]
    path, container = files[0]
    try:
        first = [values for _, _, values in islice(container.scan(path), LOOKED_AT)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not first:
        raise UserError(f"{path}: is empty; the source {source.name} needs records")
    records = [record for record in first if isinstance(record, dict)]
    if not records:
        return DIALECTS["native"]  # its error says what a record is
    if found := dialect_of(records, path):
        return found
    example = f'"sources": {{{quoted(source.name)}: {{"columns": {{"answer": "..."}}}}}}'
    raise UserError(
        f"{path}: its records have the fields {', '.join(map(str, records[0]))}, which are those "
        f"of no known format ({', '.join(DIALECTS)}); say which is which with columns, such as "
        f"{example}"
    )
