"""The folder that the paths of a source's media are relative to, where nobody says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from omnitune.containers.notes import note
from omnitune.media.registry import MEDIA

ABOVE = 2  # folders above a file that are looked in
MOST_BELOW = 1000  # folders below it
OF_LISTS = ("annotations", "annotation", "questions", "captions", "labels", "json", "metadata")
USUAL = ("media", "wavs", "wav", "clips", "recordings", "files")  # folders of media


def find_media_dir(file: Path, media: Sequence[Path], source: str) -> str:
    """The folder that holds a file's media; "" for the file's own.

    Args:
        file: of records.
        media: paths of the first ones, as if they were relative to the file's folder.
        source: its name.
    """
    own = file.parent
    paths = [Path(str(path).partition("::")[0]) for path in media]  # a stretch of a sound
    relative = [path.relative_to(own) for path in paths if path.is_relative_to(own)]
    if not relative or any((own / path).is_file() for path in relative):
        return ""
    names = ["", *USUAL, *(name for kind in MEDIA for name in (kind, f"{kind}s"))]
    bases = (own, *islice(own.absolute().parents, ABOVE))
    folders = [base / name for base in bases for name in names]
    best = _fullest(folders, relative) or _fullest(_below(own), relative)
    if best is None and own.name.lower() in OF_LISTS:
        beside = (own.parent / name for name in names)
        best = _fullest(islice(_in(beside), MOST_BELOW), relative)
    if best is None:
        return ""
    note(f"{source}: its media are not beside {file}; they are taken from {best}")
    return str(best)


def folder_within(folder: str, files: Iterable[Path]) -> str:
    """What a folder of media is called in the folder of each file of several; "" if in some not.

    ChartQA's lists lie in ``train``, ``val`` and ``test``, and the pictures of each in its ``png``.
    """
    owns = list(dict.fromkeys(file.parent for file in files))
    if len(owns) < 2 or not Path(folder).is_relative_to(owns[0]):
        return ""
    name = Path(folder).relative_to(owns[0])
    return str(name) if all((own / name).is_dir() for own in owns) else ""


def _fullest(folders: Iterable[Path], media: Sequence[Path]) -> Path | None:
    """The first of the folders that hold the most of some media; None if none holds any."""
    counts = {folder: sum((folder / path).is_file() for path in media) for folder in folders}
    best = max(counts, key=lambda folder: counts[folder], default=None)
    return best if best is not None and counts[best] else None


def _in(folders: Iterable[Path]) -> Iterator[Path]:
    """Folders in some, as COCO's ``train2017`` lies beside ``annotations``."""
    for folder in folders:
        with suppress(OSError):
            yield from sorted(path for path in folder.iterdir() if path.is_dir())


def _below(folder: Path) -> Iterator[Path]:
    places = islice(os.walk(folder), 1, MOST_BELOW)
    return (Path(place) for place, _, _ in places)
