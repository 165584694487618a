"""A sign of life of each rank, so that nobody waits for ever behind a cable that was cut.

Where a process ends, its connections do, and all who wait for it hear of that. Where a cable is cut
nothing is heard. Most waiting has a limit; that for what takes rank 0 long has none. So each rank
counts on in the store, in a thread: rank 0 looks at all others, and they look at rank 0.
"""

from __future__ import annotations

import math
import threading
import time

import torch.distributed as dist

SECONDS = 5.0  # between two signs, at most
_LEFT = "left"  # the last sign of a rank that needs the others no more


class Pulse:
    """Gives signs of life, and notes those of others.

    Args:
        store: for this thread alone; its calls may wait long. limit: seconds of silence that are
            borne.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, limit: float) -> None:
        self.rank = rank
        self._store, self._pause = store, min(SECONDS, limit / 4)
        others = range(1, world_size) if rank == 0 else range(1)
        self._heard = {other: ("", time.monotonic()) for other in others}
        self._ended, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._beat, daemon=True, name="pulse")
        self._thread.start()

    def silent(self) -> tuple[int, float]:
        """The rank that was silent for longest, and the seconds; none where there is no store."""
        if self._lost:
            return 0, 0.0
        other, (_, since) = min(self._heard.copy().items(), key=lambda heard: heard[1][1])
        return other, time.monotonic() - since

    def _beat(self) -> None:
        try:
            count = 0
            while not self._ended.wait(self._pause):
                count += 1
                self._store.set(f"omnitune/pulse/{self.rank}", str(count))
                for other in self._heard:
                    self._listen(other)
        except RuntimeError:  # whoever kept the store has ended, and all who wait hear of that
            self._lost = True

    def _listen(self, other: int) -> None:
        key = f"omnitune/pulse/{other}"
        found = self._store.get(key).decode() if self._store.check([key]) else ""
        before, _ = self._heard[other]
        if found == _LEFT:
            self._heard[other] = found, math.inf
        elif found != before:
            self._heard[other] = found, time.monotonic()

    def close(self) -> None:
        """Says that this rank needs the others no more."""
        self._ended.set()
        self._thread.join(1.0)
        if self._thread.is_alive() or self._lost:
            return
        try:
            self._store.set(f"omnitune/pulse/{self.rank}", _LEFT)
        except RuntimeError:
            self._lost = True
