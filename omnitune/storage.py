"""Files that are never half written: a temporary name, synced, renamed; a manifest of SHA-256.

And what the machine gives: how many cores.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import threading
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from omnitune.sample import UserError

MANIFEST = "manifest.json"
_EDITING = threading.Lock()  # a step's checkpoint is written while training goes on
# Seconds after which a file that is written anew has another time stamp on any file system.
SETTLED = 2.0


def write_checkpoint(path: Path, values: dict[str, Any]) -> None:
    """Writes a dictionary of tensors and JSON-able values so that no half file is ever seen.

    Raises:
        UserError: the disk is full or cannot be written to.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())
        digest = sha256(temporary)
        os.replace(temporary, path)
        edit_manifest(path.parent, path.name, digest)
    except (OSError, RuntimeError) as error:  # torch's writer tells of a full disk in its own way
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"{path}: cannot be written ({reason}); make room and go on") from None


def read_checkpoint(path: Path, command: str = "") -> dict[str, Any]:
    """Reads a checkpoint after checking it against the manifest.

    Args:
        command: the command that makes the file, for the error if it is missing.

    Raises:
        UserError: the file is missing, damaged or no checkpoint.
    """
    if not path.is_file():
        mend = f"; make it with `{command}`" if command else ""
        raise UserError(f"{path}: no such checkpoint{mend}")
    try:
        expected = _manifest(path.parent).get(path.name)
        if expected and sha256(path) != expected:
            raise UserError(f"{path}: is damaged (its SHA-256 is not the one in {MANIFEST})")
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError):
        raise UserError(f"{path}: is not a checkpoint that can be read, or is damaged") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}, expected a dictionary")
    return values


def _manifest(folder: Path) -> dict[str, str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def edit_manifest(folder: Path, name: str, digest: str | None) -> None:
    """Enters a file's digest into its folder's manifest, or takes it out."""
    with _EDITING:
        manifest = _manifest(folder)
        if digest is None:
            manifest.pop(name, None)
        else:
            manifest[name] = digest
        write_json(folder / MANIFEST, manifest)


def write_json(path: Path, values: Any) -> None:
    """Writes JSON under a temporary name, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


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
    """Writes one JSON value a line under a temporary name, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(temporary, path)


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(cores())
