"""Who is decoded when: requests wait in line, join the running batch, and are told each token."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from omnitune.data.packing import Item
from omnitune.data.template import ChatRenderer
from omnitune.generation import CACHED_POSITIONS
from omnitune.models.omni import OmniModel
from omnitune.sample import UserError
from omnitune.serving.decoding import STOP, Drawn, Row, RunningBatch, Sampling
from omnitune.serving.wording import Wording

MOST_ROWS = 32  # answers that are decoded together
# Positions of prompts that are read between two steps: so long do the others wait.
PREFILL_POSITIONS = 2048
CANCELLED = "cancelled"


class BusyError(UserError):
    """The line is full; another time there is room.

    Attributes:
        seconds: after which it is worth asking again, about.
    """

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(
            f"{waiting:,} requests wait already, which is the limit; ask again in {seconds} s"
        )
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """A request for one answer.

    Attributes:
        on_change: called with each piece of text, "" included, whenever there is something new.
        row: of the running batch. told: its tokens, with what was asked about them.
        error: why there will be no answer; None while all is well.
        asked, began, ended: moments (``time.perf_counter``): asked for, first token, last.
    """

    item: Item
    sampling: Sampling
    wording: Wording
    on_change: Callable[[Job, str], None] = lambda job, piece: None
    row: Row = field(init=False)
    told: list[Drawn] = field(default_factory=list)
    error: BaseException | None = None
    asked: float = field(default_factory=time.perf_counter)
    began: float = 0.0
    ended: float = 0.0

    def __post_init__(self) -> None:
        self.row = Row(self.item, self.sampling)

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.row.finish) or self.error is not None

    @property
    def finish(self) -> str:
        """Why the answer ended."""
        return self.row.finish

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.wording.said

    def cancel(self) -> None:
        """Nobody wants the answer any more: its place is free at the next step."""
        self.row.finish = self.row.finish or CANCELLED


class Scheduler:
    """Decodes jobs together; first come, first served.

    Any thread may submit, one at a time takes a ``turn``.

    Args:
        model: in evaluation mode.
        most_rows: answers that are decoded at a time. most_positions: that they may take together.
        most_waiting: jobs in line; None: any number.
    """

    def __init__(
        self,
        model: OmniModel,
        renderer: ChatRenderer,
        most_rows: int = MOST_ROWS,
        most_positions: int = CACHED_POSITIONS,
        most_waiting: int | None = None,
    ) -> None:
        self.model, self.renderer = model, renderer
        self.most_rows, self.most_positions = most_rows, most_positions
        self.most_waiting = most_waiting
        self.lock = threading.Lock()  # of the line
        self.waiting: deque[Job] = deque()
        self.running: dict[Row, Job] = {}
        # Called when tokens are told, before the next ones are computed.
        self.on_drawn: Callable[[], None] = lambda: None
        self.recent_seconds = 1.0  # that an answer took of late
        self._turn = threading.Lock()
        self._batch = RunningBatch(model, renderer.ends)

    def job(
        self,
        item: Item,
        sampling: Sampling,
        stops: Sequence[str] = (),
        streams: bool = True,
        on_change: Callable[[Job, str], None] = lambda job, piece: None,
    ) -> Job:
        """A job of this model; not submitted yet."""
        spells = sampling.top_logprobs is not None
        return Job(item, sampling, Wording(self.renderer, stops, streams, spells), on_change)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Puts jobs in line, all or none of them.

        Raises:
            BusyError: the line would be too long.
        """
        with self.lock:
            self.check_room(len(jobs))
            self.waiting.extend(jobs)

    def check_room(self, count: int) -> None:
        """Raises a BusyError if so many more jobs would make the line too long."""
        most, waiting = self.most_waiting, len(self.waiting)
        room = max(0, self.most_rows - len(self.running))
        if most is not None and waiting + count > most + room:
            raise BusyError(waiting, self._seconds_to_wait(waiting))

    def _seconds_to_wait(self, waiting: int) -> int:
        rounds = 1 + waiting // self.most_rows
        return max(1, min(60, round(rounds * self.recent_seconds)))

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def turn(self) -> None:
        """Reads new prompts and decodes one token of every answer.

        What goes wrong is the end of the jobs that it concerns, and told to them.
        """
        with self._turn:
            self._admit()
            if not self.running:
                return
            try:
                for row, drawn in self._batch.draw():
                    self._tell(self.running[row], drawn)
                self.on_drawn()
                self._batch.advance()
            except BaseException as error:
                self._fail(list(self.running.values()), error)
                self._batch = RunningBatch(self.model, self.renderer.ends)
                if not isinstance(error, Exception):  # Ctrl-C is no fault of the model's
                    raise
            # Who hangs up while a step is computed leaves with the next one, as its row does.
            self.running = {row: self.running[row] for row in self._batch.rows}

    def wait_for(self, job: Job) -> None:
        """Takes turns until something new came of a job, or another thread has ended it."""
        seen = len(job.told)
        while not job.done and len(job.told) == seen:
            self.turn()

    def _admit(self) -> None:
        jobs = self._next_in_line()
        if not jobs:
            return
        try:
            self._batch.join([job.row for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                self._fail(jobs, error)
                return
            for job in jobs:  # one prompt that cannot be read is not the others' end
                self._join_alone(job)
            return
        self.running |= {job.row: job for job in jobs}

    def _join_alone(self, job: Job) -> None:
        try:
            self._batch.join([job.row])
            self.running[job.row] = job
        except Exception as error:
            self._fail([job], error)

    def _next_in_line(self) -> list[Job]:
        """The jobs that may join now: in order, as many as there is room for."""
        chosen: list[Job] = []
        with self.lock:
            rows = [*self._batch.rows]
            while self.waiting:
                job = self.waiting[0]
                if not job.done:
                    length = len(job.item.rendered.tokens)
                    longest = max([length, *(len(j.item.rendered.tokens) for j in chosen)])
                    reach = max(row.most_positions for row in (*rows, job.row))
                    full = len(rows) >= self.most_rows
                    full |= (len(rows) + 1) * reach > self.most_positions and bool(rows)
                    full |= (len(chosen) + 1) * longest > PREFILL_POSITIONS and bool(chosen)
                    if full:
                        break
                    chosen.append(job)
                    rows.append(job.row)
                self.waiting.popleft()
        return chosen

    def _tell(self, job: Job, drawn: Drawn | None) -> None:
        """Tells a job its next token, or that there is none."""
        if job.finish == CANCELLED:
            return
        piece = ""
        job.began = job.began or time.perf_counter()
        if drawn is not None:
            piece = job.wording.add(drawn.token)
            job.told.append(drawn)
            if job.wording.stopped:
                job.row.finish = STOP
        if job.done:
            piece += job.wording.finish()
            job.ended = time.perf_counter()
            self.recent_seconds += 0.2 * (job.ended - job.began - self.recent_seconds)
        job.on_change(job, piece)

    def _fail(self, jobs: Sequence[Job], error: BaseException) -> None:
        """Tells jobs that there will be no answer; a last token may be drawn and not told yet."""
        for job in jobs:
            if not job.ended and job.finish != CANCELLED:
                job.error = error
                job.on_change(job, "")

    def leave(self, why: BaseException) -> None:
        """Ends all jobs that wait or run, with this error."""
        with self.lock:
            jobs = [*self.waiting, *self.running.values()]
            self.waiting.clear()
        self._fail(jobs, why)
