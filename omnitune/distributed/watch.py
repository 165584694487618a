"""Turns a hang, and a rank that is lost, into an error that names rank, step and call."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import torch.distributed as dist

from omnitune.distributed.pulse import Pulse
from omnitune.sample import UserError

# Seconds beyond the limit, after which a process that does not come back from a call is ended: a
# GPU's queue raises nothing where it waits.
GRACE = 30.0
EXIT_HANG = 75  # the system's "try again"
# Seconds within which the others' places have to be told. The store may be behind a cable that was
# cut, and its own calls then wait for many minutes.
ASKING = 5.0
_SPEAKS_OF_TIME = ("timed out", "timeout", "time out")
_SPEAKS_OF_LOSS = (
    *("closed by peer", "reset by peer", "broken pipe", "remote process exited"),
    "connection was likely closed",  # of the store, which ends with the process that keeps it
)


class HangError(UserError):
    """A rank waited for others longer than allowed."""


class LostRankError(UserError):
    """Another rank has ended."""


class Watch:
    """Watches the calls in which a rank waits for the others.

    Args:
        limit: seconds.
    """

    def __init__(self, rank: int, world_size: int, limit: float) -> None:
        self.rank, self.world_size, self.limit = rank, world_size, limit
        self.step, self.call = 0, ""
        self._since: float | None = None
        self._pulse: Pulse | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True, name="watch").start()

    def listen(self) -> None:
        """The ranks have met: from here on they give each other signs of life."""
        self._pulse = Pulse(_own_store(), self.rank, self.world_size, self.limit)

    def begin(self, step: int) -> None:
        """A step begins, after ``step`` others; the others can see it."""
        self.step = step
        with suppress(RuntimeError):  # what is wrong with the store shows in the step itself
            store().set(f"omnitune/step/{self.rank}", str(step + 1))

    @contextmanager
    def __call__(self, call: str, patient: bool = False) -> Iterator[None]:
        """Names a call.

        Args:
            patient: it may take as long as it likes.

        Raises:
            HangError: it waits too long for others. LostRankError: one of them has ended.
        """
        self.call, self._since = call, None if patient else time.monotonic()
        try:
            with self.explaining():
                yield
        finally:
            self._since = None

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Says what it means when torch fails to reach the others, in a named call or any other.

        Raises:
            HangError: it waits too long for others. LostRankError: one of them has ended.
        """
        try:
            yield
        except RuntimeError as error:
            told = str(error).lower()
            if any(words in told for words in _SPEAKS_OF_TIME):
                raise HangError(self.describe()) from error
            if any(words in told for words in _SPEAKS_OF_LOSS):
                raise LostRankError(
                    f"rank {self.rank} lost another rank in step {self.step + 1}, as it waited for "
                    f"{self.call}: that one ended, or was killed (is there enough memory?); see "
                    "its log"
                ) from error
            raise

    def describe(self) -> str:
        """Where this rank waits, and where the others were last."""
        return (
            f"rank {self.rank} waited more than {self.limit:g} s in step {self.step + 1} for "
            f"{self.call}; {self._others()}. Look at the logs of the others; a longer "
            "parallel.timeout bears slower ones"
        )

    def _others(self) -> str:
        places: list[str] = []
        asking = threading.Thread(target=self._ask, args=(places,), daemon=True, name="ask")
        asking.start()
        asking.join(ASKING)
        return ", ".join(places.copy()) or "nothing is heard of the others"

    def _ask(self, places: list[str]) -> None:
        """Adds where each of the others was last."""
        for other in range(self.world_size):
            key = f"omnitune/step/{other}"
            if other == self.rank or len(places) > 8:
                continue
            try:
                found = f"step {store().get(key).decode()}" if store().check([key]) else "no step"
            except (RuntimeError, ValueError):
                found = "an unknown step"
            places.append(f"rank {other} was last in {found}")

    def _look(self) -> None:
        """Ends the process where a call neither returns nor raises."""
        while not self._ended.wait(min(1.0, self.limit)):
            since = self._since
            if since is not None and time.monotonic() - since > self.limit + GRACE:
                _end(self.describe())
            other, silent = self._pulse.silent() if self._pulse else (0, 0.0)
            if silent > self.limit + GRACE:
                _end(
                    f"rank {self.rank} waited more than {self.limit:g} s for a sign of life of "
                    f"rank {other}, in step {self.step + 1}; its call was for {self.call}. The "
                    "other machine cannot be reached, or that process stands still"
                )

    def close(self) -> None:
        """Watches no longer."""
        self._ended.set()
        if self._pulse:
            self._pulse.close()


def _own_store() -> dist.Store:
    """The same store for another thread: a call of one that waits does not keep the other."""
    return store().clone()  # type: ignore[attr-defined]


def _end(why: str) -> NoReturn:
    """Ends the process, whatever it waits for."""
    print(f"error: {why}", file=sys.__stderr__, flush=True)
    os._exit(EXIT_HANG)


def store() -> dist.Store:
    """Where ranks leave each other words; it outlives each of them."""
    return dist.distributed_c10d._get_default_store()
