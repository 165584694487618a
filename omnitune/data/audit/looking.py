"""Decodes many media, by as many threads as there are cores; what was seen is remembered.

A file of what was seen grows as the media pass, so that work that is stopped goes on where it was.
Decoders and hashes leave Python's lock, and threads know the media that a program registers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from omnitune import __version__
from omnitune.containers.cache import cache_folder, trim
from omnitune.media.base import Fingerprint
from omnitune.media.registry import MEDIA
from omnitune.media.segments import file_of
from omnitune.sample import Media, UserError
from omnitune.storage import file_state, usable_cores

AHEAD = 8  # media a thread that wait for their turn
KEPT_BYTES = 1 << 30  # of all files of what was seen

Seen = Fingerprint | UserError


class Looker:
    """Looks at media, each as it is now once.

    Args:
        key: stands for the data whose media these are; "" to remember nothing on disk.
        workers: threads; as many as there are cores if None.
    """

    def __init__(self, key: str = "", workers: int | None = None) -> None:
        self.workers = workers or usable_cores()
        digest = hashlib.sha256(f"{__version__} {key}".encode()).hexdigest()[:24]
        self.file = cache_folder("validate") / f"{digest}.jsonl" if key else None
        self._seen: dict[bytes, Seen] = dict(_read(self.file)) if self.file else {}

    def __call__(self, media: Iterable[Media]) -> Iterator[Seen]:
        """Yields what each medium is recognised by, or what is wrong with it, in order."""
        waiting: deque[tuple[bytes, Seen | Future[Seen]]] = deque()
        with self._open() as file, ThreadPoolExecutor(self.workers) as pool:
            try:
                for medium in media:
                    name = _name(medium)
                    known = self._seen.get(name)
                    waiting.append((name, known or pool.submit(_look, medium)))
                    if len(waiting) > AHEAD * self.workers:
                        yield self._next(waiting, file)
                while waiting:
                    yield self._next(waiting, file)
            finally:  # Ctrl-C: what is begun ends, the rest is not begun
                pool.shutdown(wait=True, cancel_futures=True)

    def _next(self, waiting: deque[tuple[bytes, Seen | Future[Seen]]], file: TextIO | None) -> Seen:
        name, found = waiting.popleft()
        if not isinstance(found, Future):
            return found
        seen = found.result()
        if name:
            self._seen[name] = seen
            if file:
                file.write(json.dumps({"of": name.hex(), **_as_json(seen)}) + "\n")
        return seen

    def _open(self) -> Any:
        """The file of what was seen, to be added to; none if it cannot be written."""
        if self.file is None:
            return nullcontext()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            trim(self.file.parent, KEPT_BYTES, self.file)
            return self.file.open("a", encoding="utf-8")
        except OSError:  # it costs time on the next start only
            return nullcontext()


def _look(medium: Media) -> Seen:
    try:
        return MEDIA[medium.modality].fingerprint(medium.path)
    except UserError as error:
        return error


def _name(medium: Media) -> bytes:
    """Stands for a medium as it is now; empty where that cannot be told."""
    try:
        state = file_state(file_of(medium.path))
    except (OSError, ValueError):
        return b""
    if not state:
        return b""
    version = MEDIA[medium.modality].reader_version
    text = f"{medium.modality}/{version}/{os.path.abspath(medium.path)}/{state}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _as_json(seen: Seen) -> dict[str, Any]:
    return {"error": str(seen)} if isinstance(seen, UserError) else vars(seen)


def _read(file: Path) -> Iterator[tuple[bytes, Seen]]:
    """What was seen before, as far as it can be read: the last line may be half."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            values = json.loads(line)
            name = bytes.fromhex(values.pop("of"))
            if "error" in values:
                yield name, UserError(values["error"])
                continue
            for key in ("perceptual_hash", "remarks"):
                values[key] = tuple(values[key])
            yield name, Fingerprint(**values)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
