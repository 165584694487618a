"""Containers that are read through a copy in another form, which the cache keeps."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnitune.containers.base import WHOLE_FILE, Container, Stretch, Unreadable
from omnitune.containers.cache import cache_folder, keep
from omnitune.containers.jsonl import JsonLinesContainer
from omnitune.sample import UserError

FOLDER = "copies"  # in the cache
_JSONL = JsonLinesContainer()


class DerivedContainer(Container):
    """Records of a copy that is made once; every error names the user's own file."""

    @abstractmethod
    def write(self, path: Path, copy: Path) -> None:
        """Makes the copy of a file; raises OSError, UserError."""

    @abstractmethod
    def inner(self, copy: Path) -> Container:
        """What the copy is; raises OSError, UserError."""

    def copy_name(self, path: Path) -> str:
        """What the copy is called; its end tells what it is."""
        return path.name

    def copy(self, path: Path) -> Path:
        """The copy of a file, made now if there is none; raises OSError, UserError."""
        name = hashlib.sha256(self.key(path).encode(errors="replace")).hexdigest()
        return keep(
            cache_folder(FOLDER),
            f"{name[:24]}-{self.copy_name(path)[-100:]}",
            lambda temporary: self.write(path, temporary),
        )

    def key(self, path: Path) -> str:
        """Stands for all that the copy is made of; raises OSError."""
        found = [(part.resolve(), part.stat()) for part in self.parts(path)]
        says = [f"{part}/{stat.st_size}/{stat.st_mtime_ns}" for part, stat in found]
        if beside := self.beside(path):
            says.append(beside)
        return "/".join([self.name, *says])

    def scan(self, path: Path) -> Iterator[tuple[int, int, Any]]:
        """Yields the place in the copy and the value of each record."""
        with self._own_words(path) as (copy, inner):
            yield from inner.scan(copy)

    def scan_contents(self, path: Path) -> Iterator[tuple[int, int, Any, bytes]]:
        """:meth:`scan` with the :meth:`content` of each record."""
        with self._own_words(path) as (copy, inner):
            yield from inner.scan_contents(copy)

    def stretches(self, path: Path, size: int) -> list[Stretch]:
        """Parts of the copy."""
        with self._own_words(path) as (copy, inner):
            return inner.stretches(copy, size)

    def scan_stretch(
        self, path: Path, stretch: Stretch = WHOLE_FILE, lenient: bool = False
    ) -> Iterator[tuple[int, int, Any, bytes]]:
        """A part of the copy."""
        with self._own_words(path) as (copy, inner):
            for start, length, value, content in inner.scan_stretch(copy, stretch, lenient):
                if isinstance(value, Unreadable):
                    value = Unreadable(_renamed(value.error, copy, path))
                yield start, length, value, content

    def content(self, path: Path, start: int, length: int) -> bytes:
        """As the copy's container has it."""
        with self._own_words(path) as (copy, inner):
            return inner.content(copy, start, length)

    def stored(self, path: Path, start: int, length: int, keys: list[str]) -> Any:
        """As the copy's container has it."""
        with self._own_words(path) as (copy, inner):
            return inner.stored(copy, start, length, keys)

    def read_up_to(self, start: int, length: int) -> int:
        """Nothing is known: a place is one of the copy."""
        return 0

    @contextmanager
    def _own_words(self, path: Path) -> Iterator[tuple[Path, Container]]:
        """The copy and its container; what is wrong with it is said of the user's file."""
        copy = self.copy(path)
        try:
            yield copy, self.inner(copy)
        except UserError as error:
            raise _renamed(error, copy, path) from None


class JoinedLines(DerivedContainer):
    """Records that are joined from several places, into a copy with one a line."""

    @abstractmethod
    def join(self, path: Path) -> Iterator[Mapping[str, Any]]:
        """Yields the records; raises OSError, UserError."""

    def copy_name(self, path: Path) -> str:
        """A file of JSON lines."""
        return f"{path.stem}.jsonl"

    def inner(self, copy: Path) -> Container:
        """JSON lines."""
        return _JSONL

    def write(self, path: Path, copy: Path) -> None:
        """Joins them."""
        with copy.open("wb") as joined:
            for record in self.join(path):
                joined.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _renamed(error: UserError, copy: Path, path: Path) -> UserError:
    return UserError(str(error).replace(str(copy), str(path)))
