"""What was read of files and is kept in memory up to so many bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Kept:
    """Values by key, the last used ones; a value larger than the limit is kept alone.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.total = limit, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """A value: as it is kept, or as ``make`` gives it with its number of bytes."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        made, size = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = made, size
                self.total += size
            while self.total > self.limit and len(self._values) > 1:
                _, (_, gone) = self._values.popitem(last=False)
                self.total -= gone
        return made
