"""The folder for what is made of other people's files and can be made again.

``OMNITUNE_CACHE``, else ``omnitune`` in the user's folder for caches. ``OMNITUNE_CACHE_GB`` bounds
each kind of copies in it. Nothing is ever written beside a user's own data.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omnitune.sample import UserError

LIMIT_GB = 32.0  # of copies of a kind that are kept; the longest unused go first
FORGOTTEN = 86400.0  # seconds after which a temporary file has nobody who writes it
BESIDE = (".tmp", ".lock")  # files of the folder that are no copies


def cache_folder(name: str) -> Path:
    """A folder in the cache; there or not."""
    given = os.environ.get("OMNITUNE_CACHE")
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(given) if given else usual / "omnitune") / name


def cache_limit() -> int:
    """Bytes of each kind of copies that are kept; raises UserError if the user's number is none."""
    given = os.environ.get("OMNITUNE_CACHE_GB", "").strip()
    try:
        limit = float(given) if given else LIMIT_GB
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UserError(f"OMNITUNE_CACHE_GB is {given!r}, expected a number of GB, such as 32")
    return int(limit * 1e9)


def keep(folder: Path, name: str, write: Callable[[Path], None], trimmed_here: bool = True) -> Path:
    """A file of the cache: as it is there, or as ``write`` makes it under a temporary name.

    Args:
        trimmed_here: keep the folder within its limit; else somebody else looks after that.

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
    if trimmed_here:
        trim(folder, cache_limit(), path)
    return path


def touch(path: Path) -> None:
    """Notes that a file was used just now; the time of its last change stays as it was."""
    with suppress(OSError):  # it is gone, or the cache may only be read
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def trim(folder: Path, limit: int, spared: Path | None = None, unused: float = 0.0) -> int:
    """Deletes files of a folder, the longest unused first, until the rest has no more bytes.

    Args:
        unused: seconds that a file must not have been used for; others stay, whatever they take.

    Returns:
        The bytes of the files that are left.
    """
    files, now = [], time.time()
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process trims too
            stat = path.stat()
            if path.suffix == ".tmp" and now - stat.st_mtime > FORGOTTEN:
                path.unlink()  # its process was killed
            elif path.is_file() and path.suffix not in BESIDE:
                files.append((stat.st_atime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for used, size, path in sorted(files):
        if total <= limit or now - used / 1e9 < unused:
            break
        if path != spared:
            path.unlink(missing_ok=True)
            total -= size
    return total


@contextmanager
def taking_turns(path: Path) -> Iterator[None]:
    """Lets one process at a time do what follows; the others wait.

    The lock is the system's own and ends with its process. A file system that knows none lets all
    through.

    Args:
        path: of the lock, a file of its own.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:  # closing alone would not do: a process that was forked meanwhile has it too
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
