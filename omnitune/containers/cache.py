"""The folder for what is made of other people's files and can be made again.

``OMNITUNE_CACHE``, else ``omnitune`` in the user's folder for caches. Nothing is ever written
beside a user's own data.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from omnitune.sample import UserError

LIMIT = 32 << 30  # bytes of copies that are kept; the longest unused go first


def cache_folder(name: str) -> Path:
    """A folder in the cache; there or not."""
    given = os.environ.get("OMNITUNE_CACHE")
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(given) if given else usual / "omnitune") / name


def keep(folder: Path, name: str, write: Callable[[Path], None], limit: int | None = LIMIT) -> Path:
    """A file of the cache: as it is there, or as ``write`` makes it under a temporary name.

    Args:
        limit: bytes of the folder's files; None: somebody else looks after that.

    Raises:
        UserError: it cannot be written.
        Whatever ``write`` raises; then nothing is left of it.
    """
    path = folder / name
    if path.exists():
        touch(path)
        return path
    thread = threading.get_ident()
    temporary = path.with_name(f"{path.name[-150:]}.{os.getpid()}-{thread}.tmp")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        failed = Path(error.filename or folder)
        # Of a cache that cannot be made, a folder above it is named.
        if folder not in (failed, *failed.parents) and failed not in folder.parents:
            raise
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room, or name another folder with "
            "OMNITUNE_CACHE"
        ) from None
    finally:
        with suppress(OSError):  # it was never there
            temporary.unlink()
    if limit is not None:
        trim(folder, limit, path)
    return path


def touch(path: Path) -> None:
    """Notes that a file was used just now; the time of its last change stays as it was."""
    with suppress(OSError):  # it is gone, or the cache may only be read
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def trim(folder: Path, limit: int, spared: Path | None = None) -> None:
    """Deletes files of a folder, the longest unused first, until the rest has no more bytes."""
    files = []
    for path in _files(folder):
        with suppress(FileNotFoundError):  # another process trims too
            stat = path.stat()
            files.append((stat.st_atime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        if path != spared:
            path.unlink(missing_ok=True)
            total -= size


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".tmp"]
