"""A thread that decodes, for a server whose requests are coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from omnitune.data.packing import Item
from omnitune.serving.decoding import Sampling
from omnitune.serving.scheduler import BusyError, Job, Scheduler

# So long the next tokens wait for the last ones to be sent, at most. Python runs one thread at a
# time: two that take turns at every operator both lose more than this.
SEND_SECONDS = 0.002


class Change(NamedTuple):
    """Something new of a job.

    Attributes:
        piece: text since the change before. spelled: tokens that are in the text so far; 0 where
            it is not asked which they are.
        done: nothing more will come.
    """

    job: Job
    piece: str
    spelled: int
    done: bool


class Engine:
    """Takes the scheduler's turns in a thread, and hands what is new to the event loop.

    What one turn brought is handed over at once: the loop is woken once a token, however many
    answers there are.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        scheduler.on_drawn = self._wake_loop
        self._wake, self._sent = threading.Event(), threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[Job, asyncio.Queue[Change]] = {}
        self._streams: set[Job] = set()
        self._changes: list[Change] = []

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread; to be called from the event loop."""
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="omnitune-decoder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its turn; what is not answered by then never will be."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.scheduler.leave(RuntimeError("the server stops"))

    def job(self, item: Item, sampling: Sampling, stops: Sequence[str], streams: bool) -> Job:
        """A job of which ``answers`` will tell; not submitted yet.

        Args:
            streams: whether each piece is told, or the end only.
        """
        job = self.scheduler.job(item, sampling, stops, streams, self._note)
        if streams:
            self._streams.add(job)
        return job

    def submit(self, jobs: Sequence[Job]) -> None:
        """Puts jobs in line, all or none of them; ``answers`` tells what becomes of them.

        Raises:
            BusyError: the line is full.
        """
        queue: asyncio.Queue[Change] = asyncio.Queue()
        self._queues |= dict.fromkeys(jobs, queue)
        try:
            self.scheduler.submit(jobs)
        except BusyError:
            self._forget(jobs)
            raise
        self._wake.set()

    async def answers(self, jobs: Sequence[Job]) -> AsyncIterator[Change]:
        """What is new of jobs that were submitted together, until all are done.

        Whoever stops listening cancels them, so that their places are free at the next token.
        """
        queue, left = self._queues[jobs[0]], len(jobs)
        try:
            while left:
                change = await queue.get()
                left -= change.done
                yield change
        finally:
            for job in jobs:
                job.cancel()
            self._forget(jobs)

    def _forget(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._queues.pop(job, None)
            self._streams.discard(job)

    def _note(self, job: Job, piece: str) -> None:
        if job.done or job in self._streams:
            spelling, spelled = job.wording.spelling, 0
            if spelling:
                spelled = len(job.told) if job.done else spelling.within(job.text)
            self._changes.append(Change(job, piece, spelled, job.done))

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if self.scheduler.idle:
                self._wake.wait()
                continue
            self.scheduler.turn()
            self._wake_loop()  # of what went wrong

    def _wake_loop(self) -> None:
        """Hands over what is new, and lets the loop send it before the next tokens."""
        if self._changes and self._loop is not None:
            changes, self._changes = self._changes, []
            self._sent.clear()
            self._loop.call_soon_threadsafe(self._hand_over, changes, self._loop)
            self._sent.wait(SEND_SECONDS)

    def _hand_over(self, changes: Sequence[Change], loop: asyncio.AbstractEventLoop) -> None:
        for change in changes:
            if queue := self._queues.get(change.job):
                queue.put_nowait(change)
        # Who listens is woken in the round after this one, and has sent by the end of it.
        loop.call_soon(loop.call_soon, self._sent.set)
