"""A small file system in memory, whose size can be changed while it is in use."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# Of the system's own headers.
_OWN_MOUNTS, _REMOUNT, _PRIVATE, _RECURSIVE, _DETACH = 0x20000, 32, 1 << 18, 1 << 14, 2
ROOMY = 256_000_000  # bytes


def can_mount() -> bool:
    """Gives this process mounts of its own, which end with it; False where that is not allowed."""
    try:
        system = ctypes.CDLL(None, use_errno=True)
        if system.unshare(_OWN_MOUNTS):
            return False
        return not system.mount(None, b"/", None, _PRIVATE | _RECURSIVE, None)
    except (AttributeError, OSError):  # not Linux
        return False


def mount(folder: Path) -> None:
    """Lays a file system with much room over an empty folder; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount(folder, 0, ROOMY)


def set_room(folder: Path, size: int | None) -> None:
    """Leaves so many bytes free, or much room again; raises OSError."""
    found = os.statvfs(folder)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    _mount(folder, _REMOUNT, ROOMY if size is None else used + size)


def unmount(folder: Path) -> None:
    """Takes the file system away, with all that is on it."""
    ctypes.CDLL(None).umount2(os.fsencode(folder), _DETACH)


def _mount(folder: Path, flags: int, size: int) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    if system.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, b"size=%d" % size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
