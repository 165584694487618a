"""A folder of media without a list: the names of files and folders are all that is known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnitune.containers.base import RowContainer

FILE, LABEL = "file", "label"  # keys of a record
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".heif"),
    *(".wav", ".flac", ".mp3", ".ogg", ".opus", ".oga", ".m4a", ".aac", ".aif", ".aiff", ".wma"),
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"),
)


class MediaFolderContainer(RowContainer):
    """Records ``{"file": PATH, "label": FOLDER}`` of all media below a folder, sorted by path.

    The path is relative to the folder. The label is the folder that the file lies in; "" where it
    lies in the folder itself. A place is the number in the list and 0.
    """

    name = "media folder"
    suffixes = ()

    def recognises(self, head: bytes) -> bool:
        """Never: it is no file."""
        return False

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields number, 0 and value of each file."""
        media_below.cache_clear()  # a first pass sees what is there now
        for number in range(len(media_below(path))):
            yield number, 0, self.row(path, number, 0)

    def row(self, path: Path, start: int, length: int) -> Any:
        """The file of a number."""
        file = media_below(path)[start]
        folders = file.split("/")[:-1]
        return {FILE: file, LABEL: folders[-1] if folders else ""}

    def read_up_to(self, start: int, length: int) -> int:
        """Nothing is known."""
        return 0


def is_medium(name: str) -> bool:
    """Whether a file's name is that of a medium."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


@lru_cache(maxsize=64)
def media_below(folder: Path) -> list[str]:
    """Relative paths of all media below a folder, sorted; hidden folders are passed over."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(place).relative_to(folder)
        found += [(relative / name).as_posix() for name in files if is_medium(name)]
    return sorted(found)
