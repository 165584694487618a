"""The folder that the paths of a source's media are relative to, where nobody says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from omnitune.containers.notes import note
from omnitune.media.registry import MEDIA

ABOVE = 2  # folders above a file that are looked in
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
    counts = [sum((folder / path).is_file() for path in relative) for folder in folders]
    if not max(counts):
        return ""
    best = folders[counts.index(max(counts))]
    note(f"{source}: its media are not beside {file}; they are taken from {best}")
    return str(best)
