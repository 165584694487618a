"""Sets whose sounds and words lie in different files: joined once, into a copy of our own records.

What is joined is written by a function that knows the set. From then on it is read as any other
file of records is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from omnitune.containers.derived import JoinedLines
from omnitune.data.sources.base import Dialect, Origin, Values
from omnitune.data.sources.layout import Layout
from omnitune.data.sources.manifest import AUDIO, TRANSCRIPTION
from omnitune.sample import UserError

VERSION = 1  # raised whenever the same files are joined differently
Join = Callable[[Path], Iterator[Values]]


class JoinedContainer(JoinedLines):
    """Records that a function makes of several files.

    Args:
        title: of the set; copies of the same files under another title are others.
        join: yields the records of a file or folder in our keys; raises OSError, UserError.
        parts: by file, others whose change changes its records.
    """

    name = "joined"
    suffixes = ()

    def __init__(self, title: str, join: Join, parts: Mapping[Path, Sequence[Path]]) -> None:
        self._parts, self._join = parts, join
        self._title = f"{title} {VERSION}"

    def recognises(self, head: bytes) -> bool:
        """Never: the folder tells."""
        return False

    def parts(self, path: Path) -> list[Path]:
        """The files that are joined."""
        return list(dict.fromkeys([path, *self._parts.get(path, ())]))

    def key(self, path: Path) -> str:
        """The set, and where it lies: its paths are relative to that."""
        return f"{super().key(path)}/{self._title}/{path.absolute()}"

    def join(self, path: Path) -> Iterator[Values]:
        """The files, joined."""
        count = 0
        for count, record in enumerate(self._join(path), 1):  # noqa: B007
            yield record
        if not count:
            raise UserError(f"{path}: no sound of it has words; expected some")


class JoinedDialect(Dialect):
    """Records that were made here, in our own keys.

    Args:
        title: of the set that they are of.
    """

    name = "joined"

    def __init__(self, title: str) -> None:
        self.title = title  # type: ignore[misc]

    def recognises(self, records: Sequence[Values], file: Path) -> bool:
        """Never: the folder tells."""
        return False

    def native(self, record: Values, origin: Origin) -> Values:
        """The record itself."""
        return record


def joined(
    title: str,
    files: Mapping[Path, Sequence[Path]],
    media_dir: Path,
    join: Join,
    splits: Mapping[Path, str] | None = None,
) -> Layout:
    """The layout of a set that is joined.

    Args:
        files: by the file or folder that errors name, the others that it is joined with.
        media_dir: that the paths of the records' sounds are relative to.
        splits: by file, where its name says.
    """
    container = JoinedContainer(title, join, files)
    dialect = JoinedDialect(title)
    return Layout(list(files), dialect, container, str(media_dir), splits or {})


def spoken(path: str, words: str, split: str = "", name: str = "", language: str = "") -> Values:
    """A transcription in our keys."""
    optional = {"id": name, "split": split, "language": language}
    filled = {key: value for key, value in optional.items() if value}
    return {**filled, AUDIO: path, "answer": words, "task": TRANSCRIPTION}
