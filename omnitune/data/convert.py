"""Converts data: reads any format that is known, and writes the same samples in another."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnitune.config.commands import ConvertConfig
from omnitune.config.settings import nearest, quoted
from omnitune.console import progress_bar
from omnitune.data.converted_media import ConvertedMedia, names_of
from omnitune.data.fields import FREE_KEYS, record_keys
from omnitune.data.options import with_options
from omnitune.data.place import Place
from omnitune.data.reading import DataPlace, read_available
from omnitune.data.record_writers import WRITERS, RecordWriter
from omnitune.data.round_trip import INDEPENDENT, asked_alone, difference
from omnitune.data.samples import IndexedSource, Samples
from omnitune.data.schema import Record
from omnitune.data.sources.base import Dialect, Values
from omnitune.data.sources.finding import Found, find_files
from omnitune.data.sources.registry import DIALECTS
from omnitune.media.base import counted
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError
from omnitune.sources import SOURCES, Source
from omnitune.storage import replacing, require_target

NAMED = 5  # records that are left out, by each reason; and reasons
SPLIT = "split"
# Further keys by which samples differ, and which a format may not have.
LOST = ("task", "kind", "language", "difficulty")
# The same of keys that may stand deeper within a record.
LOST_WITHIN = ("answers", "choices", "caption", "transcript")
AS_LINES = ("openai", "trl", "swift", "manifest")  # formats that programs read as JSON Lines


class NothingSaid(UserError):
    """A format can say no record of a source."""


@dataclass
class Converted:
    """What became of the records of one source.

    Attributes:
        out: the file that was written.
        written: number of records.
        divided: records that were written as several, one for each independent question.
        left_out: by reason, the records that could not be said.
        splits: of the records that were written without one.
        lost: by key, the records that were written without it.
        changed: by what differs, the records that are not read back as they were.
    """

    out: Path
    media: ConvertedMedia
    written: int = 0
    divided: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    splits: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    changed: dict[str, list[str]] = field(default_factory=dict)

    def lines(self, to: str) -> Iterator[str]:
        """What to say of it."""
        yield f"{self.out}: {counted(self.written, 'record')} as {DIALECTS[to].title}"
        if self.divided:
            yield (
                f"  {counted(self.divided, 'record')} with independent questions: {to} has none, "
                "so each question is a record of its own, with the media"
            )
        media = self.media
        if media.written:
            yield f"  {counted(media.written, 'media file')} written to {media.copies}"
        if media.outside:
            yield (
                f"  {counted(media.outside, 'media path')} outside of {media.folder}, so written "
                'in full: a source that reads them needs "allow_outside": true; --copy-media '
                "copies them"
            )
        if len(self.splits) > 1:
            told = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
            yield (
                f"  {to} names no split, so all are in one file ({told}); --split NAME writes one "
                "of them"
            )
        if self.lost:
            told = ", ".join(f"{key} ({counted(n, 'record')})" for key, n in self.lost.items())
            yield f"  {to} does not say: {told}"
        for what, ids in self.changed.items():
            yield f"  read back otherwise: {counted(len(ids), 'record')}: {what} ({_some(ids)})"
        reasons = sorted(self.left_out.items(), key=lambda pair: -len(pair[1]))
        for reason, ids in reasons[:NAMED]:
            yield f"  left out: {counted(len(ids), 'record')}: {reason} ({_some(ids)})"
        if rest := [ids for _, ids in reasons[NAMED:]]:
            count = counted(sum(map(len, rest)), "record")
            yield f"  left out: {count} more, for {counted(len(rest), 'other reason')}"


def convert_data(config: ConvertConfig) -> int:
    """Does what ``omnitune convert`` is asked for; returns the exit status.

    Raises:
        UserError: the data cannot be read, the format is none, or the file is there.
    """
    to = _dialect(config.to, "--to")
    place, sources = _read(config)
    usual = "jsonl" if to.name in AS_LINES else "json"
    targets = _targets(config.paths[1], sources, config.container or usual)
    for out, held in targets.items():
        _check_target(out, held, config)
    told, left_out = list[str](), list[NothingSaid]()
    complete = True
    for out, held in targets.items():
        try:
            done = _convert(held, place, to, out, config)
        except NothingSaid as error:
            left_out.append(error)
            continue
        told += done.lines(config.to)
        complete &= not (done.left_out or done.changed)
    if len(left_out) == len(targets):
        raise left_out[0]
    print("\n".join([*told, *map(str, left_out)]))
    return int(config.strict and bool(left_out or not complete))


def _read(config: ConvertConfig) -> tuple[DataPlace, dict[str, Samples]]:
    """The data, and their sources with records that are to be converted."""
    data = config.paths[0]
    place = DataPlace.of(data)
    if config.from_format:
        _dialect(config.from_format, "--from")
        name = data.name.partition(".")[0] or "data"
        place = DataPlace(None, {name: Source(name, path=str(data), format=config.from_format)})
    sources = read_available(place)
    if not config.split:
        return place, sources
    found = {name: held for name, held in sources.items() if len(held.of_split(config.split))}
    if not found:
        names = ", ".join(sorted(set().union(*(held.splits for held in sources.values()))))
        raise UserError(f"--split {config.split}: {data} has no such split; it has {names}")
    return place, found


def _dialect(name: str, option: str) -> Dialect:
    if name in DIALECTS:
        return DIALECTS[name]
    written = [n for n, d in DIALECTS.items() if type(d).foreign is not Dialect.foreign]
    known = written if option == "--to" else list(DIALECTS)
    close = nearest(name, known)
    meant = f" (did you mean {close}?)" if close else ""
    raise UserError(f"{option} {name}: is no known format{meant}; known: {', '.join(known)}")


def _targets(
    out: Path, sources: Mapping[str, Samples], container: str
) -> dict[Path, dict[str, Samples]]:
    """Which sources go into which file."""
    if out.suffix and not out.is_dir():
        return {out: dict(sources)}
    return {out / f"{name}.{container}": {name: held} for name, held in sources.items()}


def _container(path: Path, asked: str | None) -> type[RecordWriter]:
    name = asked or {"ndjson": "jsonl"}.get(path.suffix[1:].lower(), path.suffix[1:].lower())
    if name not in WRITERS:
        raise UserError(
            f"{path}: no kind of file that can be written has the suffix {path.suffix}; expected "
            f"one of {', '.join(f'.{one}' for one in WRITERS)}, or --container"
        )
    return WRITERS[name]


def _check_target(out: Path, sources: Mapping[str, Samples], config: ConvertConfig) -> None:
    """Raises a UserError for a file that cannot be written, or must not be."""
    require_target(out, "OUT")
    _container(out, config.container)
    if out.exists() and not config.overwrite:
        raise UserError(f"{out}: is there already; give another name, or --overwrite")
    files = [path for held in sources.values() for path, _ in held.pieces[0][0].files]
    if any(os.path.realpath(path) == os.path.realpath(out) for path in files):
        raise UserError(f"{out}: is a file that is read; give another name to write to")


def _convert(
    sources: Mapping[str, Samples],
    place: DataPlace,
    to: Dialect,
    out: Path,
    config: ConvertConfig,
) -> Converted:
    """Writes some sources into one file."""
    writer_class = _container(out, config.container)
    media = ConvertedMedia(out.parent, out.parent / f"{out.stem}_media", config.copy_media)
    done = Converted(out, media)
    total = sum(len(held) for held in sources.values())
    with ExitStack() as stack:
        file = stack.enter_context(replacing(out))
        advance = stack.enter_context(progress_bar(f"writing {out.name}", total))
        writer = writer_class(file, out)
        for name, held in sources.items():
            [(source, _)] = held.pieces
            reader = NativeReader(source, place.own.get(name))
            numbers = source.of_split(config.split) if config.split else range(len(held))
            for number in map(int, numbers):
                _convert_record(reader, number, to, writer, done)
                advance()
        writer.close()
        if not done.written:
            why, ids = next(iter(done.left_out.items()))
            raise NothingSaid(
                f"{out}: not written, as no record can be written as {to.title}; record {ids[0]}: "
                f"{why}"
            )
    return done


def _convert_record(
    reader: NativeReader, number: int, to: Dialect, writer: RecordWriter, done: Converted
) -> None:
    """Writes one record, or notes why it is left out."""
    name = reader.source.sample(number).id
    try:
        native = reader.native(number, done.media)
        said = [(native, to.foreign(native))]
        what = difference(native, said[0][1], to, done.out)
        if what == INDEPENDENT and "qa" in native:
            said = [(one, to.foreign(one)) for one in asked_alone(native, name)]
            found = (difference(*pair, to, done.out) for pair in said)
            what = next(filter(None, found), "")
        for _, record in said:
            writer.check(record)
    except UserError as error:
        done.media.drop()
        done.left_out.setdefault(str(error), []).append(name)
        return
    if what:
        done.changed.setdefault(what, []).append(name)
    done.divided += len(said) > 1
    done.media.keep()
    for native, record in said:
        writer.write(record)
        done.written += 1
        done.splits.update([native[SPLIT]] * (SPLIT not in record))
        done.lost.update(key for key in LOST if key in native and key not in record)
        done.lost.update(_unsaid(native, record))


class NativeReader:
    """The records of a source in our own keys.

    Args:
        own: the setting of a run's own source; None for one of the embedded layout.
    """

    def __init__(self, source: IndexedSource, own: Source | None) -> None:
        self.source = source
        self.found: Found | None = find_files(own) if own else None

    def native(self, number: int, media: ConvertedMedia) -> Values:
        """A record in our keys, its split named, its media as the new file names them.

        Raises:
            UserError: a medium that has to be copied cannot be read.
        """
        place, sample = self.source.place(number), self.source.sample(number)
        # Where another format has no options, the question alone tells of them.
        values = with_options(dict(self._values(place)))
        record = self._record(place, values)
        known = (*record_keys(Source(record.source)), *FREE_KEYS)
        values = {k: v for k, v in values.items() if k in known or k.startswith("_")}
        hint = sample.id
        for kind, listed in record.listed_media().items():
            names = names_of(listed, media, hint)
            values[kind] = names if isinstance(values[kind], list) else names[0]
        if "messages" in values:
            values["messages"] = [self._message(m, record, media, hint) for m in values["messages"]]
        if sample.language:
            values["language"] = sample.language
        return values | {SPLIT: sample.split}

    def _values(self, place: Place) -> Values:
        """A record as it is read, its dialect's keys in ours."""
        container = next(file for file in self.source.files if file.path == place.file).container
        raw = container.value(container.content(place.file, place.start, place.length))
        if not self.found:
            return dict(raw)
        return self.found.native(place, raw)

    def _record(self, place: Place, values: Values) -> Record:
        name = self.source.sample(place.number).source
        return Record(
            place.file,
            self.found.source if self.found else SOURCES[name],
            place.number,
            values,
            place,
        )

    def _message(
        self, message: Mapping[str, Any], record: Record, media: ConvertedMedia, hint: str
    ) -> Values:
        """A message, its typed parts' paths as the new file has them."""
        content = message["content"]
        if not isinstance(content, list):
            return dict(message)
        parts = []
        for n, part in enumerate(content):
            if part.get("type") in MEDIA:
                found = record.message_parts([part], str(message["role"]), "")
                medium: Any = found[0]
                part = {**part, "path": media.path_of(medium, f"{hint}-{n + 1}")}
            parts.append(part)
        return {**message, "content": parts}


def _unsaid(native: Values, record: Values) -> Iterator[str]:
    """Keys of answers and media that a record has anywhere within, and what was written nowhere."""
    written = _keys_within(record)
    return (key for key in LOST_WITHIN if key in _keys_within(native) and key not in written)


def _keys_within(value: Any) -> set[str]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = set(value) if isinstance(value, dict) else set[str]()
    return own.union(*map(_keys_within, inner))


def _some(ids: list[str]) -> str:
    more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
    return ", ".join(quoted(one) for one in ids[:NAMED]) + more
