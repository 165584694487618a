"""A table on disk: spans of numbers by key, sorted and mapped into memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from omnitune.storage import replacing

KEY = np.dtype("S32")


class Table:
    """Finds a pair of numbers by a key of 32 ASCII characters.

    What is kept costs no memory that grows with it; what is new is held in a dictionary until
    :meth:`keep` merges it in.

    Args:
        path: its file: all keys in order, then all pairs; None for a table that is not kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._cleared = False
        self._new: dict[str, tuple[int, int]] = {}
        self._keys: np.ndarray = np.zeros(0, KEY)
        self._pairs: np.ndarray = np.zeros((0, 2), np.int64)
        self._map()

    @property
    def changed(self) -> bool:
        """Whether anything is new."""
        return bool(self._new)

    def get(self, key: str) -> tuple[int, int] | None:
        """The pair of a key."""
        if key in self._new:
            return self._new[key]
        wanted = np.array(key.encode(), KEY)
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            return None
        first, second = self._pairs[place].tolist()
        return first, second

    def put(self, key: str, pair: tuple[int, int]) -> None:
        """Enters a pair."""
        self._new[key] = pair

    def furthest(self) -> int:
        """The largest number that is kept."""
        return int(self._pairs.max(initial=0))

    def clear(self) -> None:
        """Forgets everything; the file is replaced by the next :meth:`keep`."""
        self._new, self._keys, self._pairs = {}, self._keys[:0], self._pairs[:0]
        self._cleared = True

    def keep(self) -> None:
        """Writes everything under a temporary name, then renames it; raises OSError.

        What another process has entered meanwhile is kept, if the two take turns.
        """
        if self.path is None:
            return
        if not self._cleared:
            self._map()
        keys = np.concatenate([np.array(list(self._new), KEY), self._keys])
        pairs = np.concatenate([np.array(list(self._new.values())).reshape(-1, 2), self._pairs])
        keys, first = np.unique(keys, return_index=True)  # of equal keys the newer comes first
        with replacing(self.path, f".{os.getpid()}.tmp") as file:
            file.write(keys.data)
            file.write(np.ascontiguousarray(pairs[first], np.int64).data)
        self._new, self._cleared = {}, False
        self._map()

    def _map(self) -> None:
        """Maps the file, if it is there and whole."""
        if self.path is None or not self.path.exists():
            return
        size = self.path.stat().st_size
        count, rest = divmod(size, KEY.itemsize + 16)
        if not count or rest:
            return
        keys = np.memmap(self.path, KEY, "r", 0, (count,))
        pairs = np.memmap(self.path, np.int64, "r", count * KEY.itemsize, (count, 2))
        self._keys, self._pairs = np.asarray(keys), np.asarray(pairs)
