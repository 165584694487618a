"""Files at addresses such as ``s3://bucket/a.tar`` and ``https://host/a.jsonl``.

Each has a place in the cache, from which its address is known again. What lies beside it has one
too, so that media are named by relative paths as on a disk. A file is fetched when it is first
read: where its place is below the cache's own folder for these, and nothing is there. Nothing
else is ever fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from glob import has_magic
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from omnitune.containers.cache import cache_folder, cache_limit, keep, touch, trim
from omnitune.containers.needs import optional
from omnitune.sample import UserError

FOLDER = "remote"  # in the cache
WEB = ("http", "https")
SCHEMES = (*WEB, "s3", "gs", "gcs", "hf", "az", "abfs", "abfss", "memory", "sftp", "ftp")
AT_ONCE = 8  # files that are fetched at the same time
TRIES = 3
PATIENCE = 60.0  # seconds that a server may say nothing
TRIM_EVERY = 256 << 20  # bytes fetched between two looks at the size of the cache
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*):/{1,2}([^/].*)", re.DOTALL)
_SAFE = " !$&'()+,;=@[]{}~"  # as they are in the names of files


def address_of(text: str | Path) -> str:
    """The address that a text is, or that a path has become of one; "" for any other."""
    found = _ADDRESS.fullmatch(str(text))
    return f"{found[1]}://{found[2]}" if found and found[1] in SCHEMES else ""


def place_of(address: str) -> Path:
    """The file of an address in the cache, there or not."""
    scheme, _, rest = address.partition("://")
    parts = [quote(part, safe=_SAFE) for part in rest.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise UserError(f"{address}: expected an address without . and .. in it")
    return cache_folder(FOLDER).joinpath(scheme, *parts)


def address_at(path: Path) -> str:
    """The address of a place in the cache; "" for any other path."""
    root, normal = _root(), os.path.normpath(path)  # a record's path may hold ..
    if not normal.startswith(root + os.sep):
        return ""
    scheme, *parts = normal.removeprefix(root + os.sep).split(os.sep)
    known = scheme in SCHEMES and len(parts) > 1
    return f"{scheme}://{'/'.join(map(unquote, parts))}" if known else ""


def _root() -> str:
    return os.path.normpath(cache_folder(FOLDER))


def ensure(path: Path) -> Path:
    """Fetches a file whose place in the cache is empty; any other path is left as it is.

    Raises:
        UserError: it cannot be fetched.
    """
    if (address := address_at(path)) and not path.exists():
        _fetch(address, path)
    return path


def fetch_ahead(paths: Iterable[Path]) -> list[Future[Path]]:
    """Begins to fetch files that will be needed, several at once; returns without waiting.

    Args:
        paths: of files, media or addresses inside files; those on a disk are passed over.
    """
    files = dict.fromkeys(Path(str(path).partition("::")[0]) for path in paths)
    wanted = [path for path in files if address_at(path) and not path.exists()]
    return [_pool().submit(ensure, path) for path in wanted]


def fetch_all(addresses: Iterable[str]) -> list[Path]:
    """The files of some addresses, fetched several at once; raises UserError."""
    paths = [place_of(address) for address in addresses]
    for waiting in fetch_ahead(paths):
        waiting.result()
    for path in paths:
        touch(path)
    return paths


def find(address: str, wanted: Any) -> list[str]:
    """The addresses that one stands for: itself, a pattern's, or those of a folder's files.

    Args:
        wanted: tells by its path whether a file of a folder is.

    Raises:
        UserError: it cannot be looked up.
    """
    scheme = address.partition("://")[0]
    if scheme in WEB:  # has no folders
        return [address]
    files = _file_system(address)
    try:
        if has_magic(address):
            found = files.glob(address)
        elif files.isdir(address):
            found = [path for path in files.find(address) if wanted(Path(path))]
        else:
            return [address]
    except Exception as error:  # each file system has errors of its own
        raise _failed(address, error) from None
    return [f"{scheme}://{path.lstrip('/')}" for path in sorted(found)]


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")


_LOCKS: dict[Path, threading.Lock] = {}
_GUARD = threading.Lock()
_FETCHED = [0]  # bytes since the cache was last trimmed


def _fetch(address: str, path: Path) -> None:
    with _GUARD:
        lock = _LOCKS.setdefault(path, threading.Lock())
    with lock:  # two threads may want one file
        folder = Path(_root())
        name = str(Path(os.path.normpath(path)).relative_to(folder))
        keep(folder, name, lambda temporary: _write(address, temporary), trimmed_here=False)
        size = path.stat().st_size
    with _GUARD:
        _LOCKS.pop(path, None)
        _FETCHED[0] += size
        if _FETCHED[0] < TRIM_EVERY:
            return
        _FETCHED[0] = 0
    trim(folder, cache_limit(), path)


def _write(address: str, file: Path) -> None:
    scheme = address.partition("://")[0]
    write = _write_web if scheme in WEB else _write_stored
    for left in reversed(range(TRIES)):
        try:
            version = write(address, file)
            break
        except UserError:
            raise
        except Exception as error:  # each file system has errors of its own
            missing = isinstance(error, FileNotFoundError | PermissionError)
            gone = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if not left or missing or gone:
                raise _failed(address, error) from None
            time.sleep(0.2 * (TRIES - left))
    # The same content has the same time whenever it is fetched: what is known of it stays known.
    digest = hashlib.sha256(f"{version}/{file.stat().st_size}".encode()).digest()
    os.utime(file, (time.time(), int.from_bytes(digest[:4], "big") & 0x7FFFFFFF))


def _write_web(address: str, file: Path) -> str:
    request = urllib.request.Request(address, headers={"User-Agent": "omnitune"})
    with (
        urllib.request.urlopen(request, timeout=PATIENCE) as answer,
        file.open("wb") as copy,
    ):
        shutil.copyfileobj(answer, copy, 1 << 20)
        length = answer.headers.get("Content-Length")
        if length is not None and int(length) != copy.tell():
            raise HTTPException(f"the answer ended after {copy.tell()} of {length} bytes")
        return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def _write_stored(address: str, file: Path) -> str:
    files = _file_system(address)
    info = files.info(address)
    if info.get("type") == "directory":
        raise FileNotFoundError("it is a folder")
    with files.open(address, "rb") as stored, file.open("wb") as copy:
        shutil.copyfileobj(stored, copy, 1 << 20)
    marks = (info.get(key) for key in ("ETag", "etag", "blob_id", "LastModified", "mtime"))
    return str(next(filter(None, marks), ""))


def _file_system(address: str) -> Any:
    scheme = address.partition("://")[0]
    fsspec = optional("fsspec", f"{address}: is remote")
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise UserError(
            f"{address}: files at {scheme}:// need another package ({error}); install it, or "
            "download the files and name them"
        ) from None
    except Exception as error:  # no credentials, and the like
        raise _failed(address, error) from None


def _failed(address: str, error: Exception) -> UserError:
    said = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{address}: cannot be fetched ({said}); check the address and the network, or download "
        "it and name the file"
    )
