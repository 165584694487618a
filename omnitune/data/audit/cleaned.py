"""Writes a copy of data without the records that are wrong; the original stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omnitune.data.audit.checked import Checked
from omnitune.data.audit.findings import Findings
from omnitune.data.audit.validate import Checks, Validation, validate
from omnitune.data.convert import NativeReader
from omnitune.data.converted_media import ConvertedMedia
from omnitune.data.reading import DataPlace
from omnitune.data.sources.unanswered import without_marks
from omnitune.sample import Media, UserError
from omnitune.sources import SOURCES, Source
from omnitune.storage import write_json, write_json_lines

SETTINGS_FILE = "sources.json"
ROUNDS = 10  # what is left out may leave something else to be told of
Where = tuple[str, str, int]


def require_new(out: Path, data: DataPlace) -> None:
    """Raises a UserError unless a folder is new or empty, and not among the data's own files."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; give --fix the name of a new folder")
    places = [data.folder, *(Path(source.path) for source in data.own.values())]
    for place in places:
        if place is not None and place.is_dir() and out.resolve().is_relative_to(place.resolve()):
            raise UserError(
                f"{out}: lies in {place}, whose records it would then be; give --fix a folder "
                "outside of it"
            )


def write_clean(found: Validation, checks: Checks, out: Path) -> dict[str, Any]:
    """Writes a JSONL file a source without the records that have errors, and settings to read it.

    Paths of media are absolute. Each copy is checked again until it is clean.

    Returns:
        ``kept`` and ``left_out``: numbers of records by source.

    Raises:
        UserError: no record is left, or the folder cannot be written.
    """
    left_out = {one.where for one in found.findings.errors if one.record}
    for _ in range(ROUNDS):
        try:
            kept = {own.name: _write(own, left_out, out) for own in found.checked}
        except OSError as error:
            raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None
        kept = {name: places for name, places in kept.items() if places}
        if not kept:
            raise UserError(f"{out}: no record is free of errors, so nothing was written")
        own = {_name(name): _source(name, out) for name in kept}
        again = validate(DataPlace(None, own), checks, look=found.look)
        places = {_name(name): some for name, some in kept.items()}
        more = _wrong_places(again.findings, places)
        if not more:
            break
        left_out |= more
    settings = {name: {"path": s.path, "allow_outside": True} for name, s in own.items()}
    write_json(out / SETTINGS_FILE, {"sources": settings})
    total = found.findings.records
    return {
        "kept": {name: len(kept.get(name, ())) for name in total},
        "left_out": {name: total[name] - len(kept.get(name, ())) for name in total},
    }


def _name(source: str) -> str:
    """What the copy of a source is called: the embedded layout's names are taken."""
    return f"clean_{source}" if source in SOURCES else source


def _source(name: str, out: Path) -> Source:
    path = (out / f"{_name(name)}.jsonl").absolute()
    return Source(_name(name), path=str(path), format="native", allow_outside=True)


def _wrong_places(findings: Findings, places: Mapping[str, Sequence[Where]]) -> set[Where]:
    """Of the errors in a copy, the places of their records in the original."""
    return {places[one.source][one.record - 1] for one in findings.errors if one.record}


def _write(own: Checked, left_out: set[Where], out: Path) -> list[Where]:
    """Writes the records of a source that are kept; returns their places in the original."""
    path, places = out / f"{_name(own.name)}.jsonl", list[Where]()
    if own.held is not None:
        write_json_lines(path, _records(own, left_out, places))
    if not places:
        path.unlink(missing_ok=True)
    return places


def _records(own: Checked, left_out: set[Where], places: list[Where]) -> Iterator[dict[str, Any]]:
    source = own.source
    reader = NativeReader(source, own.located.source if own.located.found else None)
    media = _InPlace(Path(), Path())
    for number in range(len(source.index.size_N)):
        place = source.place(number)
        where = own.name, str(place.file), place.within + 1
        if where not in left_out:
            places.append(where)
            record = reader.native(number, media)
            record = without_marks(record) if own.asked_only else record
            yield {**record, "id": source.sample(number).id}


class _InPlace(ConvertedMedia):
    """Media stay where they are, and inside the record where they are in one."""

    def path_of(self, medium: Media, hint: str) -> str:
        """The medium's path, from the root on."""
        return str(medium.path.absolute())
