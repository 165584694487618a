"""Rows of decoded columns in the cache, where each is read alone.

A group of rows has a file. It begins with how many rows there are and how long the schema is. The
schema, a table of where each row lies, and the rows follow, each as Arrow writes a batch of one
row. A checksum of a row covers its place and the schema too, so that no damage is read as data.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from omnitune.containers.cache import cache_folder, cache_limit, taking_turns, touch, trim
from omnitune.containers.notes import note

FOLDER = "rows"  # in the cache
LOCKS = 64  # of which a file has one; two files with the same one wait for each other at most
LEFT_FREE = 4 << 30  # bytes of the disk: what runs write matters more
UNUSED = 3600.0  # seconds after which a file may go for another one
LOOK_EVERY = 256 << 20  # bytes written between two looks at the size of the folder
TOUCH_EVERY = 60.0  # seconds between two notes that a file is used
FULL_FOR = 60.0  # seconds for which it is not tried again
_MAGIC = b"omnirow1"
_HEAD = struct.Struct("<8sIII")  # magic, rows, bytes of the schema, checksum of these
_ENTRY = struct.Struct("<QQI")  # first byte of a row, its bytes, checksum
_USUAL = 4096  # bytes that hold the head and most schemas

Batches = Callable[[], Iterable[Any]]


class _DamagedError(Exception):
    """A file is not as it was written."""


class RowStore:
    """Files of rows, bounded by ``OMNITUNE_CACHE_GB``; safe for threads and processes at once.

    Where there is no room, a file that was used within the last hour stays and no other is written:
    in random order nothing better is known of which file comes next, and each change would cost
    a file's writing.
    """

    def __init__(self) -> None:
        self._left, self._full_until = 0, 0.0
        self._guard = threading.Lock()

    def kept(self, name: str, number: int) -> Any:
        """One row of a file as a batch; None where there is no such file.

        Raises:
            LookupError: there is a file without such a row.
        """
        path = _place(name)
        try:
            with path.open("rb", buffering=0) as file:
                found = _read(file, number)
                used = os.fstat(file.fileno()).st_atime
        except FileNotFoundError:
            return None
        except (_DamagedError, OSError) as error:
            note(f"{path}: a file of the cache is damaged ({error}); it is made anew")
            with suppress(OSError):
                path.unlink()
            return None
        if time.time() - used > TOUCH_EVERY:
            touch(path)
        return found

    def made(self, name: str, number: int, rows: int, size: int, batches: Batches) -> Any:
        """One row of a file that is written first.

        Args:
            name: of the file.
            rows, size: how many rows it has, and about how many bytes.
            batches: gives them as record batches, in order.

        Returns:
            A batch of one row; None where no file can be written.

        Raises:
            Whatever ``batches`` raises; then nothing is left of the file.
        """
        return self.kept(name, number) if self._write(name, rows, size, batches) else None

    def _write(self, name: str, rows: int, size: int, batches: Batches) -> bool:
        """Whether the file is there now."""
        path = _place(name)
        temporary = path.with_name(f"{name}.{os.getpid()}-{threading.get_ident()}.tmp")
        if time.monotonic() < self._full_until:
            return False
        try:
            lock = zlib.crc32(name.encode()) % LOCKS
            with taking_turns(path.with_name(f"{lock}.lock")):
                if path.exists():  # another process has written it
                    return True
                if not self._has_room(path.parent, size):
                    return self._none("OMNITUNE_CACHE_GB or the disk is full")
                try:
                    with temporary.open("wb") as file:
                        _write_rows(file, rows, _theirs(batches))
                    temporary.replace(path)
                finally:
                    release()
                    with suppress(OSError):
                        temporary.unlink()
        except OSError as error:
            return self._none(error.strerror or str(error))
        except _DamagedError:  # of the user's own file: whoever decodes it tells of that
            return False
        return True

    def _none(self, why: str) -> bool:
        self._full_until = time.monotonic() + FULL_FOR
        note(
            f"{cache_folder(FOLDER)}: no more rows are kept ({why}); the others are decoded each "
            "time, which is slow in random order. Make room, or name another folder with "
            "OMNITUNE_CACHE"
        )
        return False

    def _has_room(self, folder: Path, size: int) -> bool:
        """Whether a file may be written; the longest unused ones go for it."""
        with self._guard:
            if self._left < size:
                limit = cache_limit()
                held = trim(folder, max(0, limit - size), unused=UNUSED)
                self._left = min(limit - held, max(size, LOOK_EVERY))
            if self._left < size or shutil.disk_usage(folder).free - size < LEFT_FREE:
                return False
            self._left -= size
        return True


def can_keep(kind: Any) -> bool:
    """Whether a type of pyarrow needs nothing but its own batch: a dictionary lies elsewhere."""
    import pyarrow as pa

    if isinstance(kind, pa.ExtensionType):
        return can_keep(kind.storage_type)
    inner = range(kind.num_fields)
    return not pa.types.is_dictionary(kind) and all(can_keep(kind.field(n).type) for n in inner)


def release() -> None:
    """Gives what decoding took back to the system: Arrow would keep it for the next time."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def _place(name: str) -> Path:
    return cache_folder(FOLDER) / name


def _write_rows(file: BinaryIO, rows: int, batches: Iterable[Any]) -> None:
    """Writes the rows of some batches; raises OSError, _DamagedError if they are not so many."""
    table, schema = bytearray(), b""
    for batch in batches:
        if not schema:
            schema = batch.schema.remove_metadata().serialize().to_pybytes()
            file.write(_head(rows, len(schema)) + schema)
            file.write(bytes(rows * _ENTRY.size))
        for number in range(batch.num_rows):
            content = batch.slice(number, 1).serialize()
            start = file.tell()
            crc = _checksum(schema, len(table) // _ENTRY.size, start, content)
            table += _ENTRY.pack(start, len(content), crc)
            file.write(content)
    if len(table) != rows * _ENTRY.size:
        raise _DamagedError(f"{len(table) // _ENTRY.size} rows in place of {rows}")
    file.seek(_HEAD.size + len(schema))
    file.write(table)


def _theirs(batches: Batches) -> Iterator[Any]:
    """The batches; an error of reading them is that of the user's file, and not of the cache."""
    try:
        yield from batches()
    except OSError as error:
        raise _DamagedError(str(error)) from None


def _read(file: Any, number: int) -> Any:
    """One row, as a batch; raises OSError, LookupError, _DamagedError."""
    import pyarrow as pa

    descriptor = file.fileno()
    try:
        head = os.pread(descriptor, _USUAL, 0)
        _, rows, length, _ = _HEAD.unpack_from(head)
        if not head.startswith(_head(rows, length)):
            raise _DamagedError("its beginning")
        if not 0 <= number < rows:
            raise LookupError(number)
        end = _HEAD.size + length
        schema = (head if end <= _USUAL else os.pread(descriptor, end, 0))[_HEAD.size : end]
        entry = os.pread(descriptor, _ENTRY.size, end + number * _ENTRY.size)
        start, size, crc = _ENTRY.unpack(entry)
        if start + size > os.fstat(descriptor).st_size:
            raise _DamagedError("its end is missing")
        content = os.pread(descriptor, size, start)
        if crc != _checksum(schema, number, start, content):
            raise _DamagedError("a checksum")
        known = pa.ipc.read_schema(pa.py_buffer(schema))
        return pa.ipc.read_record_batch(pa.py_buffer(content), known)
    except (struct.error, pa.ArrowException) as error:
        raise _DamagedError(str(error)) from None


def _head(rows: int, length: int) -> bytes:
    crc = zlib.crc32(_MAGIC + struct.pack("<II", rows, length))
    return _HEAD.pack(_MAGIC, rows, length, crc)


def _checksum(schema: bytes, number: int, start: int, content: Any) -> int:
    place = struct.pack("<QQQ", number, start, len(content))
    return zlib.crc32(content, zlib.crc32(schema + place))
