"""Files that are compressed as a whole: gzip, bzip2, xz and Zstandard.

They have no random access, so that each is unpacked once into the cache.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from omnitune.containers.base import Container
from omnitune.containers.derived import DerivedContainer
from omnitune.containers.needs import optional
from omnitune.sample import UserError

CHUNK = 1 << 20
PIECE = 1 << 10  # bytes of Zstandard at once: each may become thirty thousand times as many
# What may come out of a file: so many bytes, and so many for each that is packed. Text of records
# seldom shrinks to less than a fiftieth.
FREE, MOST = 1 << 30, 250
LARGEST_WINDOW = 1 << 31  # bytes; as zstd --long=31 writes


@dataclass(frozen=True)
class Compression:
    """A way to compress files.

    Attributes:
        title: as people call it.
        magic: how such files begin.
        suffixes: what their names end in; a short form stands for ``.tar`` and this.
        unpack: writes what is packed in a file into another.
    """

    title: str
    magic: bytes
    suffixes: tuple[str, ...]
    short: tuple[str, ...]
    unpack: Callable[[Path, IO[bytes]], None]


def _with(open_packed: Callable[[Path], Any]) -> Callable[[Path, IO[bytes]], None]:
    def unpack(path: Path, file: IO[bytes]) -> None:
        with open_packed(path) as packed:
            shutil.copyfileobj(packed, file, CHUNK)

    return unpack


def _unpack_zstd(path: Path, file: IO[bytes]) -> None:
    zstd = optional("zstandard", f"{path}: is compressed with Zstandard")
    packer = zstd.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
    frame = None
    try:
        with path.open("rb") as packed:
            while data := packed.read(PIECE):
                while data:
                    frame = frame or packer.decompressobj()
                    file.write(frame.decompress(data))
                    data = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
    except zstd.ZstdError as error:
        raise EOFError(str(error)) from None
    if frame is not None:
        raise EOFError("it ends in the middle of a frame")


COMPRESSIONS = (
    Compression("gzip", b"\x1f\x8b\x08", (".gz",), (".tgz",), _with(gzip.open)),
    Compression("zstd", b"\x28\xb5\x2f\xfd", (".zst", ".zstd"), (), _unpack_zstd),
    Compression("bzip2", b"BZh", (".bz2",), (".tbz2",), _with(bz2.open)),
    Compression("xz", b"\xfd7zXZ\x00", (".xz",), (".txz",), _with(lzma.open)),
)


class _Bounded:
    """A file that is written up to a limit: what is made to fill a disk ends in a sentence."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.left = FREE + MOST * path.stat().st_size

    def write(self, data: bytes) -> int:
        """Writes, or raises a UserError."""
        self.left -= len(data)
        if self.left < 0:
            raise UserError(
                f"{self.path}: unpacks to more than {MOST} times its size, as no records do; "
                "unpack it by hand if you trust it"
            )
        return self.file.write(data)


class CompressedContainer(DerivedContainer):
    """A compressed file of any other container.

    Args:
        find: tells the container of what was unpacked.
        endings: of the other containers' names.
    """

    def __init__(
        self,
        compression: Compression,
        find: Callable[[Path], Container],
        endings: Sequence[str],
    ) -> None:
        self.compression, self._find = compression, lru_cache(maxsize=1024)(find)
        self.name = compression.title  # type: ignore[misc]
        long = tuple(end + suffix for suffix in compression.suffixes for end in endings)
        self.suffixes = (*long, *compression.short)  # type: ignore[misc]

    def recognises(self, head: bytes) -> bool:
        """Whether it begins as such files do."""
        return head.startswith(self.compression.magic)

    def copy_name(self, path: Path) -> str:
        """The name without the last suffix."""
        if path.suffix.lower() in self.compression.short:
            return f"{path.stem}.tar"
        return path.stem if path.suffix.lower() in self.compression.suffixes else path.name

    def write(self, path: Path, copy: Path) -> None:
        """Unpacks the file."""
        try:
            with copy.open("wb") as file:
                self.compression.unpack(path, cast(IO[bytes], _Bounded(path, file)))
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise self._damaged(path, error) from None
        except OSError as error:
            if error.errno is None:  # the packers' own, not the system's
                raise self._damaged(path, error) from None
            raise

    def inner(self, copy: Path) -> Container:
        """As the copy's content shows."""
        return self._find(copy)

    def _damaged(self, path: Path, error: Exception) -> UserError:
        said = str(error).rstrip(".") or type(error).__name__
        return UserError(
            f"{path}: is no whole {self.compression.title} file ({said}); fetch or write it again"
        )
