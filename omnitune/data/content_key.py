"""What stands for the content of a source's files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from omnitune.storage import sha256

WHOLE_UP_TO = 64 << 20  # bytes of files that are known by all of their content
ENDS = 64 << 10  # bytes at both ends that larger ones are known by, beside size and time


def content_key(paths: Sequence[Path]) -> str:
    """Stands for the content of some files; raises OSError.

    Small ones are read for it. Of larger ones it is size, time of change and both ends: whether a
    record is still the same is seen when it is read.
    """
    if sum(path.stat().st_size for path in paths) <= WHOLE_UP_TO:
        if len(paths) == 1:
            return _whole(paths[0])
        return hashlib.sha256("".join(map(_whole, paths)).encode()).hexdigest()
    digest = hashlib.sha256()
    for path in paths:
        found = path.stat()
        if path.is_dir():
            digest.update(_whole(path).encode())
            continue
        digest.update(f"{path.name}/{found.st_size}/{found.st_mtime_ns}".encode())
        with path.open("rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(0, found.st_size - ENDS))
            digest.update(file.read(ENDS))
    return digest.hexdigest()


def _whole(path: Path) -> str:
    """Stands for all that a file holds, or for the names that a folder holds."""
    if not path.is_dir():
        return sha256(path)
    names = sorted(found.relative_to(path).as_posix() for found in path.rglob("*"))
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
