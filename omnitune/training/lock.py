"""One run writes to a folder at a time.

The lock is the system's own (``flock``): it ends with its process, however that ends, and no stale
one is left. Beside it the file says who holds it, for the message.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import BinaryIO

from omnitune.sample import UserError

LOCK_FILE = ".lock"
# A folder's file, kept open: the lock is lost when it is closed.
_held: dict[Path, BinaryIO] = {}


def owner(folder: Path) -> str:
    """Who trains into a folder now, in words; "" for nobody, or this process."""
    path = folder / LOCK_FILE
    if path.resolve() in _held:
        return ""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _in_words(path) if error.errno in (errno.EAGAIN, errno.EACCES) else ""
    return ""


def lock(folder: Path) -> None:
    """Keeps other runs out of a folder until this process ends or unlocks it.

    A file system that knows no locks keeps nobody out.

    Raises:
        UserError: another run is in it; names its process and machine.
        OSError: the folder cannot be written to.
    """
    path = folder / LOCK_FILE
    if path.resolve() in _held:
        return
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in (errno.EAGAIN, errno.EACCES):
            refuse(folder, _in_words(path))
        return
    file.truncate(0)
    file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode())
    file.flush()
    _held[path.resolve()] = file


def unlock(folder: Path) -> None:
    """Lets other runs into a folder again."""
    if file := _held.pop((folder / LOCK_FILE).resolve(), None):
        file.close()


def refuse(folder: Path, who: str) -> None:
    """Raises the UserError of a folder that another run writes to.

    Args:
        who: holds it; nothing is raised for "".
    """
    if who:
        raise UserError(
            f"{folder}: another run is training into it ({who}); wait for it, stop it, or give "
            "--output-dir DIR"
        )


def _in_words(path: Path) -> str:
    try:
        found = json.loads(path.read_bytes())
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"
