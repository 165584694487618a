"""Frozen features: with frozen encoders each medium is encoded once and its rows are kept.

A store is a file of half-precision rows that only grows, and a table of where each medium's lie,
in a folder keyed by the encoder's weights and settings; a medium is found by the hash of its
content. Neither can go stale: a changed encoder is another folder, a changed file another entry.
That a file is unchanged is seen from its size and times, so that it is not read at every start.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from omnitune.containers.cache import taking_turns
from omnitune.data.feature_table import Table
from omnitune.data.packing import of_like_length
from omnitune.encoders.base import Encoder
from omnitune.media.base import open_file
from omnitune.media.segments import file_of, split_time
from omnitune.sample import UserError
from omnitune.storage import file_state, usable_cores

FEATURES_FOLDER = ".features"
ENCODE_BATCH = 64
WINDOW_NUMBERS = 1 << 28  # a gigabyte of inputs
READERS = 8  # threads, where there are as many cores
KEEP_EVERY = 20.0  # seconds between two times that the table is written while encoding
VERSION = 2


class FeatureStore:
    """Feature rows of one modality's media under one encoder.

    Args:
        modality: how to read and encode.
        encoder: in evaluation mode; its weights are part of the key.
        root: folder of the stores, or None to keep the rows in memory only.
        lenient: media that cannot be read are passed over until their rows are asked for.
    """

    def __init__(
        self, modality: Encoder, encoder: nn.Module, root: Path | None, lenient: bool = False
    ) -> None:
        self.modality, self.encoder = modality, encoder
        self._broken: dict[Path, UserError] | None = {} if lenient else None
        self.folder = (
            root / f"{modality.medium.name}-{encoder_key(modality, encoder)}" if root else None
        )
        self._writable = self.folder is not None
        self._row_bytes = 2 * modality.feature_dim
        self._in_memory: dict[str, np.ndarray] = {}  # by content; what no folder takes
        self._digest = lru_cache(maxsize=1 << 16)(_digest)
        self._kept = time.monotonic()
        self._table = Table(self.folder / "places.bin" if self.folder else None)
        size = self._file.stat().st_size if self.folder and self._file.exists() else 0
        if self._table.furthest() * self._row_bytes > size:
            self._table.clear()  # half deleted: everything is encoded anew

    def __call__(self, path: Path) -> Tensor:
        """Feature rows ``[R, D]`` (float32) of a medium; encodes it if it is new."""
        rows = self._find(path)
        if rows is None:
            self.prepare([path])
            if self._broken and path in self._broken:
                raise self._broken[path]
            rows = self._find(path)
            assert rows is not None
        return torch.from_numpy(rows.astype(np.float32))

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        """Media that are not in the store, each content once."""
        new: dict[str, Path] = {}
        for path in paths:
            if self._place(path) is None:
                digest = self._content(path)
                if digest not in self._in_memory:
                    new.setdefault(digest, path)
        self._keep()
        return list(new.values())

    def prepare(
        self, paths: Iterable[Path], on_progress: Callable[[int], None] = lambda n: None
    ) -> None:
        """Encodes what is missing, in batches of like length, and keeps it.

        An interruption loses what was encoded in the last ``KEEP_EVERY`` seconds at most.

        Args:
            tick: called with the number of media just done.
        """
        todo = self.missing(paths)
        try:
            for chunk, features in self._encode(todo):
                self._add(chunk, features)
                on_progress(len(chunk))
                if time.monotonic() - self._kept > KEEP_EVERY:
                    self._keep()
        finally:
            self._keep()

    def holds(self, key: str) -> bool:
        """Whether all the media are here that :meth:`hold` was told of under a key."""
        return self._table.get(key) is not None

    def hold(self, key: str) -> None:
        """Notes under a key of 32 characters that all the media it stands for are here."""
        if self.folder:
            self._table.put(key, (0, 0))
            self._keep()

    def _encode(self, paths: list[Path]) -> Iterator[tuple[list[Path], list[np.ndarray]]]:
        """Reads a window of media, sorts it by length and encodes it in batches."""
        device = next(self.encoder.parameters()).device
        for inputs in self._windows(paths):
            read = list(inputs)
            sizes = [self.modality.size(inputs[path]) for path in read]
            for numbers in of_like_length(sizes, ENCODE_BATCH):
                chunk = [read[n] for n in numbers]
                with torch.inference_mode():
                    batch = [inputs[path].to(device) for path in chunk]
                    rows = self.modality.encode_checked(self.encoder, batch)
                yield chunk, [r.half().cpu().numpy() for r in rows]

    def _windows(self, paths: list[Path]) -> Iterator[dict[Path, Tensor]]:
        """Media read, by several threads, as many as have no more than about so many numbers."""
        inputs: dict[Path, Tensor] = {}
        with ThreadPoolExecutor(min(READERS, usable_cores())) as pool:
            for start in range(0, len(paths), ENCODE_BATCH):
                some = paths[start : start + ENCODE_BATCH]
                read = zip(some, pool.map(self._read, some), strict=True)
                inputs |= {path: tensor for path, tensor in read if tensor is not None}
                numbers = sum(tensor.numel() for tensor in inputs.values())
                if len(inputs) >= 16 * ENCODE_BATCH or numbers >= WINDOW_NUMBERS:
                    yield inputs
                    inputs = {}
        if inputs:
            yield inputs

    def _read(self, path: Path) -> Tensor | None:
        """The encoder's input; None for what cannot be read, where that is passed over."""
        try:
            return self.modality.read(path)
        except UserError as error:
            if self._broken is None:
                raise
            self._broken[path] = error
            return None

    def _find(self, path: Path) -> np.ndarray | None:
        place = self._place(path)
        if place is None:
            return self._in_memory.get(self._content(path)) if self._in_memory else None
        assert self.folder is not None
        start, stop = place
        with self._file.open("rb", buffering=0) as file:
            size = (stop - start) * self._row_bytes
            data = os.pread(file.fileno(), size, start * self._row_bytes)
        return np.frombuffer(data, np.float16).reshape(-1, self.modality.feature_dim)

    def _place(self, path: Path) -> tuple[int, int] | None:
        """First row of a medium in the file and the one after its last."""
        state = self._state(path)
        unchanged = _key(f"{path}/{state}") if state else None
        place = self._table.get(unchanged) if unchanged else None
        if place is None:
            place = self._table.get(self._content(path))
            if place and unchanged:
                self._table.put(unchanged, place)
        return place

    def _state(self, path: Path) -> str:
        try:
            return file_state(file_of(path))
        except (OSError, ValueError) as error:
            self.modality.medium.check(path)  # says what is wrong
            raise UserError(f"{path}: cannot be read ({error})") from None

    def _content(self, path: Path) -> str:
        """Hash of a medium's content; its file is read once if it is unchanged."""
        state = self._state(path)
        whole, *times = split_time(path)
        content = self._digest(whole, state) if state else _digest(whole, state)
        return content if whole == path else _key(f"{content}/{times}")

    @property
    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / "rows-f16.bin"

    @property
    def _lock(self) -> Path:
        return self._file.with_name(".lock")

    def _add(self, paths: list[Path], features: list[np.ndarray]) -> None:
        """Appends the rows of some media to the file, or to what is in memory."""
        digests = [self._content(path) for path in paths]
        if self._writable:
            try:
                start = self._append(b"".join(rows.tobytes() for rows in features))
                for digest, rows in zip(digests, features, strict=True):
                    self._table.put(digest, (start, start + len(rows)))
                    start += len(rows)
                for path in paths:  # enters that it is unchanged
                    self._place(path)
                return
            except OSError as error:
                self._cannot_keep(error)
        self._in_memory |= zip(digests, features, strict=True)

    def _append(self, data: bytes) -> int:
        """Appends rows to the file; returns the number of the first. Processes take turns."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with taking_turns(self._lock), self._file.open("ab") as file:
            torn = -file.seek(0, os.SEEK_END) % self._row_bytes  # by a process that was killed
            file.write(bytes(torn) + data)
            file.flush()
            return (file.tell() - len(data)) // self._row_bytes

    def _keep(self) -> None:
        """Writes the table, the rows it speaks of first."""
        self._kept = time.monotonic()
        if not self._table.changed or not self._writable:
            return
        try:
            if self._file.exists():
                with self._file.open("rb") as file:
                    os.fsync(file.fileno())
            with taking_turns(self._lock):
                self._table.keep()
        except OSError as error:
            self._cannot_keep(error)

    def _cannot_keep(self, error: OSError) -> None:
        """A full or read-only disk costs time on the next run only."""
        print(f"warning: {self.folder}: features cannot be kept ({error.strerror})")
        self._writable = False


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _digest(path: Path, state: str) -> str:
    with open_file(path, "media file") as file:
        return hashlib.blake2b(file.read(), digest_size=16).hexdigest()


def encoder_key(modality: Encoder, encoder: nn.Module) -> str:
    """Hash of an encoder's settings and weights, and of the way its modality reads files."""
    digest = hashlib.sha256(
        f"{VERSION}/{modality.medium.name}/{modality.medium.reader_version}".encode()
    )
    digest.update(json.dumps(modality.config, sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
