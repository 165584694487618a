"""A rank of which nothing is heard ends those who would wait for it for ever."""

import os
import signal
import subprocess
import threading
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist
from rank_helpers import needs_fork, on_ranks, whole

from omnitune.config.parallel import ParallelSettings
from omnitune.distributed import watch
from omnitune.distributed.opening import open_ranks
from omnitune.distributed.pulse import Pulse


def wait_until(happens: object, seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not happens() and time.monotonic() < until:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(happens())  # type: ignore[operator]


def test_a_rank_that_gives_no_sign_is_silent() -> None:
    store = dist.HashStore()
    first, second, third = (Pulse(store, rank, 3, 0.1) for rank in range(3))
    time.sleep(0.3)
    assert wait_until(lambda: max(each.silent()[1] for each in (first, second, third)) < 0.2)
    third._ended.set()  # as if its cable were cut
    assert wait_until(lambda: first.silent()[1] > 0.3)
    assert first.silent()[0] == 2
    assert wait_until(lambda: second.silent()[1] < 0.2), "rank 0 lives"
    for pulse in (first, second):
        pulse.close()


def test_a_rank_that_has_left_is_not_waited_for() -> None:
    store = dist.HashStore()
    first, second = (Pulse(store, rank, 2, 0.1) for rank in range(2))
    second.close()
    assert wait_until(lambda: first.silent()[1] < 0)
    first.close()


class Deaf(dist.HashStore):
    """A store behind a cable that was cut."""

    def get(self, key: str) -> bytes:
        threading.Event().wait(30)
        return super().get(key)


def test_a_store_that_does_not_answer_is_silence_and_keeps_nobody() -> None:
    store = Deaf()
    store.set("omnitune/pulse/0", "1")
    pulse, began = Pulse(store, 1, 2, 0.1), time.monotonic()
    assert wait_until(lambda: pulse.silent()[1] > 0.3)
    pulse.close()
    assert time.monotonic() - began < 5


def stand_still(rank: int, still: int) -> str:
    """One rank stops dead; the other waits for it with patience, and ends before it is killed."""
    watch.GRACE = 0.5
    with open_ranks(ParallelSettings(mode="ddp", timeout=1), torch.device("cpu")) as ranks:
        ranks.share(None)
        if rank == still:
            subprocess.Popen(["sh", "-c", f"sleep 8; kill -KILL {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
        ranks.share(None)
    return "went on"


@pytest.mark.slow
@needs_fork
def test_nobody_waits_for_ever_for_a_rank_that_stands_still() -> None:
    """Rank 0, which keeps the store too."""
    assert on_ranks(2, partial(stand_still, still=0), 40) == [None, None]


def live(rank: int) -> str:
    """Rank 0 takes longer than the limit for something that all wait for."""
    watch.GRACE = 1.0
    with open_ranks(ParallelSettings(mode="ddp", timeout=2), torch.device("cpu")) as ranks:
        found: str = ranks.on_first(lambda: time.sleep(4) or "done")  # type: ignore[func-returns-value]
        return {"found": found}  # type: ignore[return-value]


@needs_fork
def test_a_rank_that_takes_long_is_waited_for() -> None:
    assert whole(on_ranks(2, live)) == [{"found": "done"}] * 2
