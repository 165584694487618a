"""Files that are never half written: a temporary name, synced, renamed; a manifest of SHA-256.

And what the machine gives: how many cores.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import struct
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch

from omnitune.sample import UserError

MANIFEST = "manifest.json"
_EDITING = threading.Lock()  # a step's checkpoint is written while training goes on
# Seconds after which a file that is written anew has another time stamp on any file system.
SETTLED = 2.0
WORKERS_A_CORE = 4  # processes; more of them only wait for each other
DEEPEST = 64  # values of a checkpoint within each other
SMALL = 1 << 26  # bytes that a tensor may claim beyond those it has: some are views of one number
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoomError(UserError):
    """A file could not be written because the disk, a quota or a limit is full."""


@contextmanager
def replacing(path: Path, ending: str = ".tmp") -> Iterator[BinaryIO]:
    """A file that takes another's place when it is whole and synced; else nothing is left of it.

    Args:
        ending: of the temporary name; one of the process where several may write the same file.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ending)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (
        BaseException
    ):  # Ctrl-C too leaves no half file, which would keep the room that is missing
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlast a power cut, where the system can."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(number)
    except OSError:  # some network file systems sync files only
        pass
    finally:
        os.close(number)


def write_checkpoint(path: Path, values: dict[str, Any]) -> None:
    """Writes a dictionary of tensors and JSON-able values so that no half file is ever seen.

    Raises:
        NoRoomError: the disk is full. UserError: the folder cannot be written to.
    """
    try:
        edit_manifest(path.parent, path.name, None)  # an old digest beside the new file would lie
        with replacing(path) as file:
            torch.save(values, file)
            file.flush()
            digest = sha256(Path(file.name))
        edit_manifest(path.parent, path.name, digest)
    except (OSError, RuntimeError) as error:  # torch's writer tells of a full disk in its own way
        full = isinstance(error, RuntimeError) or error.errno in NO_ROOM
        told = error.strerror if isinstance(error, OSError) else "the disk seems to be full"
        reason = told or str(error)
        mend = "make room and go on" if full else "make the folder writable and go on"
        raise (NoRoomError if full else UserError)(
            f"{path}: cannot be written ({reason}); {mend}"
        ) from None


def read_checkpoint(path: Path, command: str = "") -> dict[str, Any]:
    """Reads a checkpoint after checking that every byte is as it was written.

    By its digest in the manifest; where there is none, by the checksums in the file itself. What is
    in it has to be plain: no code, nothing packed, no tensor larger than its bytes.

    Args:
        command: the command that makes the file, for the error if it is missing.

    Raises:
        UserError: the file is missing, damaged or no checkpoint.
    """
    if not path.is_file():
        mend = f"; make it with `{command}`" if command else ""
        raise UserError(f"{path}: no such checkpoint{mend}")
    try:
        expected = read_manifest(path.parent).get(path.name)
        if expected and sha256(path) != expected:
            raise UserError(f"{path}: is damaged (its SHA-256 is not the one in {MANIFEST})")
        _require_own_size(path)
        if not expected and (wrong := _damaged_member(path)):
            raise UserError(f"{path}: is damaged (the checksum of its {wrong} is another)")
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        struct.error,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ):
        raise UserError(f"{path}: is not a checkpoint that can be read, or is damaged") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}, expected a dictionary")
    require_finite(path, values)
    return values


def require_finite(path: Path, value: Any, name: str = "", depth: int = 0) -> None:
    """Raises a UserError if any tensor of a checkpoint holds what is no finite number.

    Or if it is no plain one: a tensor that claims more numbers than the file holds would fill the
    memory here or later, and so would values that hold themselves.
    """
    if depth > DEEPEST:
        raise UserError(f"{path}: holds values deeper than {DEEPEST}, as no checkpoint does")
    if isinstance(value, torch.Tensor):
        plain = value.layout is torch.strided and value.device.type == "cpu"
        if not plain or value.nbytes > max(SMALL, value.untyped_storage().nbytes()):
            raise UserError(
                f"{path}: its {name} claims {value.numel():,} numbers that are not in the file; "
                "take the file from where it was made"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(
                f"{path}: its {name} holds values that are not finite (NaN or infinity), so "
                "nothing sensible can come of it; take an earlier checkpoint"
            )
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            require_finite(path, inner, f"{name}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            require_finite(path, inner, name, depth + 1)


def _require_own_size(path: Path) -> None:
    """Raises a UserError if a checkpoint would grow when it is read: torch packs nothing in it."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        claimed = sum(member.file_size for member in file.infolist())
    if claimed > path.stat().st_size:
        raise UserError(
            f"{path}: would become {claimed / 1e6:,.0f} MB when it is read, of "
            f"{path.stat().st_size / 1e6:,.0f} MB; omnitune and torch write none of this kind"
        )


def _damaged_member(path: Path) -> str:
    """The first piece of a checkpoint whose content is not that of its checksum; "" for none.

    A checkpoint is a ZIP file with a CRC-32 of each piece, which torch does not look at. Its older
    format has none.
    """
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as file:
        return file.testzip() or ""


def read_manifest(folder: Path) -> dict[str, str]:
    """The digests of a folder's files, by name; empty where there is no list of them."""
    try:
        if not (folder / MANIFEST).is_file():  # a pipe would wait for who writes to it
            return {}
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def edit_manifest(folder: Path, name: str, digest: str | None) -> None:
    """Enters a file's digest into its folder's manifest, or takes it out."""
    with _EDITING:
        manifest = read_manifest(folder)
        if digest is None:
            manifest.pop(name, None)
        else:
            manifest[name] = digest
        write_json(folder / MANIFEST, manifest)


def write_json(path: Path, values: Any) -> None:
    """Writes JSON under a temporary name, then renames it; raises OSError."""
    write_lines(path, [json.dumps(values, indent=1) + "\n"])


def require_target(path: Path, option: str) -> None:
    """Finds out before the work whether a file can be written in the end; raises UserError."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if path.is_dir():
        problem = "is a folder, expected a file to write"
    elif not folder.is_dir():
        problem = f"{folder} is a file, expected a folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"{folder} cannot be written to"
    else:
        return
    raise UserError(f"{path}: {problem}; give {option} FILE")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; of an unchanged file found once in a process."""
    state = file_state(path)
    return _sha256(path, state) if state else _sha256.__wrapped__(path, state)


@lru_cache(maxsize=64)
def _sha256(path: Path, state: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_state(path: Path) -> str:
    """What changes whenever a file's content does; "" for one that was changed just now.

    Raises:
        OSError: there is no such file.
    """
    found = path.stat()
    changed = max(found.st_mtime_ns, found.st_ctime_ns)
    if time.time_ns() - changed < SETTLED * 1e9:
        return ""  # the next change might bear the same time
    return f"{found.st_size}/{found.st_mtime_ns}/{found.st_ctime_ns}"


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes one JSON value a line under a temporary name, then renames it; raises OSError."""
    write_lines(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes text under a temporary name, syncs it, then renames it; raises OSError."""
    with replacing(path) as file:
        file.writelines(line.encode() for line in lines)


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(cores())


def check_workers(asked: int | None) -> None:
    """Raises UserError for more processes than the machine could bear."""
    limit = WORKERS_A_CORE * usable_cores()
    if asked is not None and asked > limit:
        raise UserError(
            f"workers is {asked}, but there are {usable_cores()} cores here; give {limit} at most, "
            "or leave workers out"
        )


def machine_memory() -> int:
    """Bytes of memory that the machine, or the container that this runs in, has."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return found
    return min(found, int(limit)) if limit.isdigit() else found
