"""Kaldi's and ESPnet's folders of data: ``wav.scp`` and ``text``, perhaps with ``segments``."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from omnitune.config.settings import quoted
from omnitune.containers.notes import note
from omnitune.data.sources.base import Values
from omnitune.data.sources.file_splits import splits_of
from omnitune.data.sources.kinds import modality_of
from omnitune.data.sources.layout import Layout
from omnitune.data.sources.manifest import AUDIO
from omnitune.data.sources.spoken_sets.joined import joined, spoken
from omnitune.data.sources.spoken_sets.name_lists import text_lines
from omnitune.media.base import counted
from omnitune.media.registry import MEDIA
from omnitune.media.segments import with_time
from omnitune.sample import UserError

SCP, TEXT, SEGMENTS = "wav.scp", "text", "segments"
ABOVE = 4  # folders above in which a recipe may have been started
_PROGRAMS = ("sph2pipe", "flac", "sox", "ffmpeg", "mpg123", "lame", "opusdec", "wget")
_ONE_CHANNEL = re.compile(r" -c *(\d)\b")
_MEND = "write the sounds as files, and wav.scp with their paths"


def layout_of_kaldi(folder: Path, files: Iterable[Path]) -> Layout | None:
    """The layout of all such folders below one; None if there are none."""
    there = {path.parent for path in files if path.name == SCP}
    places = sorted(place for place in there if (place / TEXT).is_file())
    if not places:
        return None
    media_dir = _base(places[0])
    parts = {p / TEXT: [p / SCP, *([p / SEGMENTS] * (p / SEGMENTS).is_file())] for p in places}
    splits = splits_of(list(parts), folder.parent)
    return joined("a folder of Kaldi's", parts, media_dir, partial(_records, media_dir), splits)


def _base(place: Path) -> Path:
    """The folder that the paths of a ``wav.scp`` are relative to; raises UserError."""
    scp = place / SCP
    _, first = next(iter(text_lines(scp)), (0, ""))
    path = _file(scp, 1, first.partition(" ")[2].strip()) if first else ""
    bases = [place, *place.absolute().parents[:ABOVE]]
    if os.path.isabs(path):
        return next((base for base in bases if Path(path).is_relative_to(base.absolute())), place)
    return next((base for base in bases if (base / path).is_file()), place)


def _file(scp: Path, number: int, given: str) -> str:
    """The file of a sound that ``wav.scp`` names, or decodes by a program; raises UserError."""
    at = f"{scp}: line {number}: {quoted(given)}"
    if not given.endswith("|"):
        if re.search(r"\.ark(\.gz)?:\d+$", given):
            raise UserError(f"{at} lies in an archive of Kaldi's, which is not read; {_MEND}")
        return given
    try:
        words = shlex.split(given[:-1])
    except ValueError:
        words = []
    found = [word for word in words if modality_of(word) == AUDIO and word != "wav"]
    after = words[words.index("-") + 1 :] if "-" in words else []
    plain = words and Path(words[0]).name in _PROGRAMS and "|" not in words and not after
    if len(found) != 1 or not plain or "remix" in words or "-map_channel" in words:
        raise UserError(
            f"{at} is a command, and none that only decodes one file; commands are never run: "
            f"{_MEND}"
        )
    return found[0]


def _records(media_dir: Path, text: Path) -> Iterator[Values]:
    scp, segments = text.with_name(SCP), text.with_name(SEGMENTS)
    sounds = {}
    for number, line in text_lines(scp):
        name, _, given = line.partition(" ")
        sounds[name] = _relative(_file(scp, number, given.strip()), media_dir)
        chosen = _ONE_CHANNEL.search(given) if given.endswith("|") and "sph2pipe" in given else None
        if chosen:
            _check_channels(media_dir / sounds[name], f"{scp}: line {number}")
    cuts = dict(_cuts(segments, sounds)) if segments.is_file() else None
    used = set()
    for number, line in text_lines(text):
        name, _, words = line.partition(" ")
        path = (sounds if cuts is None else cuts).get(name)
        if path is None:
            where = scp if cuts is None else segments
            raise UserError(
                f"{text}: line {number}: {where} has no utterance {name}; name it there"
            )
        used.add(name)
        yield spoken(path, words.strip(), name=name)
    if left := len((sounds if cuts is None else cuts).keys() - used):
        note(f"{text}: has no words for {counted(left, 'utterance')}, which are passed over")


def _relative(path: str, media_dir: Path) -> str:
    if os.path.isabs(path) and Path(path).is_relative_to(media_dir.absolute()):
        return os.path.relpath(path, media_dir)
    return path


def _check_channels(path: Path, at: str) -> None:
    if path.is_file() and MEDIA[AUDIO].header(path)["channels"] > 1:
        raise UserError(
            f"{at}: takes one channel of {path}, which has several; all of them would be heard: "
            f"{_MEND}"
        )


def _cuts(segments: Path, sounds: dict[str, str]) -> Iterator[tuple[str, str]]:
    """By utterance, the stretch of its recording."""
    for number, line in text_lines(segments):
        fields = line.split()
        try:
            name, recording, start, stop = fields
            begin, end = float(start), float(stop)
        except ValueError:
            raise UserError(
                f"{segments}: line {number} is {quoted(line)}; expected an utterance, its "
                "recording, and two times in seconds"
            ) from None
        if recording not in sounds:
            raise UserError(
                f"{segments}: line {number}: {segments.with_name(SCP)} has no recording {recording}"
            )
        path = Path(sounds[recording])
        yield name, str(with_time(path, begin, end if end >= 0 else None))
