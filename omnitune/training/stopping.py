"""How a run ends early on request: by a signal, or when its time is up.

The request is heard between two steps, so that what is saved is whole: an update that is half done
cannot be, as weights and step number would disagree. A second signal ends the run at once.

Exit status of a command that was stopped: 130 by Ctrl-C, 143 by SIGTERM, and 75 ("try again later")
by SIGUSR1, Slurm's warning, or ``stop_after``: a script may start the command again with --resume.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

GO_ON = 75  # EX_TEMPFAIL of sysexits.h
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: GO_ON}
WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1"}
# Seconds within which a second signal may be the first one, sent on by what started the processes.
ECHO = 2.0
_begun: list[float] = []  # when the command began, on the clock that nobody sets
_stopped: list[StoppedError] = []  # the newest request that was let through


class StoppedError(KeyboardInterrupt):
    """A command that was asked to stop.

    Attributes:
        why: who asked, in words. status: exit status of the command.
    """

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.why, self.status = why, status


def begin() -> None:
    """Notes that a command begins: ``stop_after`` counts from here."""
    _begun[:] = [time.monotonic()]
    _stopped.clear()


def stopped() -> StoppedError | None:
    """The request that was let through to end the command.

    It may come out as another error: some libraries make one of their own of whatever is raised
    while they call back.
    """
    return _stopped[-1] if _stopped else None


def stop_now(signum: int, frame: FrameType | None = None) -> NoReturn:
    """As a signal's handler: ends what is under way, as Ctrl-C does."""
    number = signal.Signals(signum)
    _stopped[:] = [StoppedError(WORDS[number], STATUS[number])]
    raise _stopped[-1]


def ignore_echoes() -> None:
    """Of several processes that end: a signal that comes now is the first one, sent on.

    It would interrupt what Python does last, and print where.
    """
    for number in STATUS:
        signal.signal(number, signal.SIG_IGN)


class Stopping:
    """Whether a run was asked to stop.

    Args:
        seconds: after which it shall; None for no limit.
        several: processes share the run.
    """

    def __init__(self, seconds: float | None = None, several: bool = False) -> None:
        self.limit, self.several = seconds, several
        self.began = _begun[0] if _begun else time.monotonic()
        self.asked: list[tuple[int, float]] = []

    def note(self, signum: int, frame: FrameType | None = None) -> None:
        """As a signal's handler: the first one is noted, the second one is let through."""
        now = time.monotonic()
        if self.asked and not (self.several and now - self.asked[0][1] < ECHO):
            stop_now(signum)
        self.asked.append((signum, now))

    def __call__(self) -> bool:
        """Whether the run shall stop before its next step."""
        return bool(self.asked) or self.late

    @property
    def late(self) -> bool:
        """Whether the run's time is up."""
        return self.limit is not None and time.monotonic() - self.began >= self.limit

    def stop(self) -> NoReturn:
        """Ends the run; raises a StoppedError that says who asked for it."""
        if self.asked:
            stop_now(self.asked[0][0])
        why = f"stop_after, {self.limit:g} s" if self.late else "another process of the run"
        raise StoppedError(why, GO_ON)


@contextmanager
def patient_signals(seconds: float | None = None, several: bool = False) -> Iterator[Stopping]:
    """Notes the first request to stop and lets only the second one through at once.

    Args:
        seconds: after which the run shall stop; None for no limit.
        several: processes share the run.
    """
    stopping = Stopping(seconds, several)
    if threading.current_thread() is not threading.main_thread():
        yield stopping  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, stopping.note) for number in STATUS}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
