"""Where a converted record finds its media: beside the new file, as before, or copied there."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import cast

from omnitune.containers.address import parse
from omnitune.media.base import open_file
from omnitune.sample import Media
from omnitune.storage import replacing, sha256

STRETCH = re.compile(r"::t=[^/]*$")  # of a sound, behind its path
# By how a file begins (from a byte on): its suffix. Of what lies in a record no name may tell.
BEGINNINGS = (
    (0, b"\x89PNG", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (0, b"BM", ".bmp"),
    (0, b"II*\0", ".tiff"),
    (0, b"MM\0*", ".tiff"),
    (8, b"WEBP", ".webp"),
    (8, b"WAVE", ".wav"),
    (0, b"fLaC", ".flac"),
    (0, b"OggS", ".ogg"),
    (0, b"ID3", ".mp3"),
    (0, b"\xff\xfb", ".mp3"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftypM4A", ".m4a"),
    (4, b"ftyp", ".mp4"),
)
HEAD = 64  # bytes that tell what a file is
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass
class ConvertedMedia:
    """Names the media of a new data file, and writes those that have to be written.

    Attributes:
        folder: of the new data file.
        copies: folder for copies.
        copy: whether media that lie elsewhere are copied; those inside a record always are.
        written: number of files that were written. outside: of paths that leave the folder.
    """

    folder: Path
    copies: Path
    copy: bool = False
    written: int = 0
    outside: int = 0
    _names: dict[str, str] = field(default_factory=dict)
    _waiting: dict[str, Path] = field(default_factory=dict)

    def path_of(self, medium: Media, hint: str) -> str:
        """How the new file names a medium; what has to be written waits for :meth:`keep`.

        Args:
            hint: for the name of one that has none.

        Raises:
            UserError: it has to be copied and cannot be read.
        """
        text = str(medium.path)
        stretch = STRETCH.search(text)
        behind = stretch[0] if stretch and not medium.path.exists() else ""
        base = Path(text.removesuffix(behind))
        if base.exists():
            shown = _below(base, self.folder)
            if shown:
                return shown + behind
            if not self.copy:
                self.outside += 1
                return os.path.abspath(base) + behind
        elif not parse(base):
            # Nothing is there, and nothing is made up: the new file says the same.
            shown = _below(base, self.folder)
            self.outside += not shown
            return (shown or os.path.abspath(base)) + behind
        return self._copied(base, medium.modality, hint) + behind

    def _copied(self, base: Path, kind: str, hint: str) -> str:
        if known := self._names.get(str(base)):
            return known
        with open_file(base, f"{kind} file") as file:  # no pipe is waited for
            head = file.read(HEAD)
            file.seek(0)
            digest = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
        own = base.name if base.exists() else ""
        name = own or _UNSAFE.sub("-", hint).strip("-.")[-80:] + suffix_of(head)
        target = self._free(name, digest)
        shown = target.relative_to(self.folder).as_posix()
        self._names[str(base)] = shown
        self._waiting[str(base)] = target
        return shown

    def _free(self, name: str, digest: str) -> Path:
        """A name that no other file has; a file of the same content keeps its own."""
        taken = set(self._names.values())
        stem, suffix = Path(name).stem, Path(name).suffix
        for number in itertools.count(1):
            target = self.copies / (name if number == 1 else f"{stem}-{number}{suffix}")
            if target.relative_to(self.folder).as_posix() in taken:
                continue
            if not target.exists() or sha256(target) == digest:
                return target
        raise AssertionError

    def keep(self) -> None:
        """Writes what the record that was just converted shows; raises OSError."""
        for base, target in self._waiting.items():
            if not target.exists():
                with open_file(Path(base), "file") as source, replacing(target) as file:
                    shutil.copyfileobj(source, file)
                self.written += 1
        self._waiting.clear()

    def drop(self) -> None:
        """Forgets what a record that is left out would have needed."""
        for base in self._waiting:
            del self._names[base]
        self._waiting.clear()


def suffix_of(content: bytes) -> str:
    """The suffix of a file of this content; "" where it is not known."""
    found = (end for at, start, end in BEGINNINGS if content[at:].startswith(start))
    return next(found, "")


def _below(path: Path, folder: Path) -> str:
    """A path from a folder that it lies below; "" if it does not."""
    whole, base = os.path.abspath(path), os.path.abspath(folder)
    return Path(whole).relative_to(base).as_posix() if whole.startswith(f"{base}{os.sep}") else ""


def names_of(media: Sequence[Media], moved: ConvertedMedia, hint: str) -> list[str]:
    """How the new file names some media."""
    return [
        moved.path_of(medium, f"{hint}-{n + 1}" if len(media) > 1 else hint)
        for n, medium in enumerate(media)
    ]
