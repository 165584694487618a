"""Ranks that were started together meet, whatever a store remembers of earlier ones."""

import itertools
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from helpers import sft_settings
from rank_helpers import needs_fork, on_ranks, whole
from waiting import wait_until

from omnitune.config.parallel import RESTARTS, ParallelSettings
from omnitune.distributed.meeting import _OPEN, NoMeetingError, meet
from omnitune.distributed.torch_ranks import TorchRanks
from omnitune.training import sft

LIMIT = timedelta(seconds=60)


def come(
    store: dist.Store, size: int, limit: timedelta = LIMIT
) -> Callable[[int], Future[dist.Store]]:
    """Lets a rank come to the meeting, in a thread."""
    threads = ThreadPoolExecutor(8)
    return lambda rank: threads.submit(meet, store, rank, size, limit)


def is_one(stores: list[dist.Store]) -> bool:
    """Whether what one of them writes the others read."""
    stores[0].set("greeting", "hello")
    return all(store.check(["greeting"]) for store in stores)


def test_all_ranks_meet_once_and_again() -> None:
    store, met = dist.HashStore(), []
    for _ in range(3):
        coming = come(store, 3)
        begun = [coming(rank) for rank in (2, 0, 1)]
        met.append([each.result(60) for each in begun])
        assert is_one(met[-1])
    for earlier, later in itertools.pairwise(met):
        earlier[0].set("of before", "x")
        assert not later[0].check(["of before"])


def test_ranks_that_were_lost_at_any_moment_keep_no_later_one() -> None:
    """A rank 0 that opened a meeting and died, a rank that answered and died."""
    store = dist.HashStore()
    with pytest.raises(NoMeetingError):
        meet(store, 0, 2, timedelta(0))
    with pytest.raises(NoMeetingError):
        meet(store, 1, 2, timedelta(seconds=0.3))
    coming = come(store, 2)
    late = coming(1)  # answers to the meeting of the lost rank 0 first
    time.sleep(0.3)
    assert not late.done()
    assert is_one([coming(0).result(60), late.result(60)])


class AwaitedStore(dist.HashStore):
    """Whoever opens a meeting finds rank 1 there already, however late its thread is run."""

    meeting = ""

    def set(self, key: str, value: str) -> None:
        super().set(key, value)
        if key == _OPEN:
            self.meeting = value
            wait_until(lambda: self.check([f"{value}/1"]))


def test_who_does_not_come_is_named() -> None:
    store = AwaitedStore()
    there = come(store, 4)(1)
    with pytest.raises(NoMeetingError, match=r"2 of 4 ranks to start \(2, 3\)"):
        meet(store, 0, 4, timedelta(seconds=0.5))
    store.set(f"{store.meeting}/all", json.dumps([store.get(f"{store.meeting}/1").decode()]))
    there.result(60)  # which nobody need wait for at the end of the tests
    with pytest.raises(NoMeetingError, match="rank 3 waited in vain for rank 0"):
        meet(dist.HashStore(), 3, 4, timedelta(seconds=0.1))


@needs_fork
def test_machines_that_count_their_restarts_differently_meet() -> None:
    """One was lost and has come back: its torchrun begins to count anew."""

    def count(rank: int) -> float:
        os.environ[RESTARTS] = str(rank)
        ranks = TorchRanks(ParallelSettings(timeout=60), sft.precision.pick_device("cpu"))
        found = ranks.sum([1.0])[0]
        ranks.close()
        return found

    assert whole(on_ranks(2, count)) == [2.0, 2.0]


@needs_fork
def test_one_machine_that_counts_a_restart_lets_all_go_on(home: Path) -> None:
    """Else some ranks would go on from a checkpoint, and others begin."""
    seen = home / "seen"
    seen.mkdir()

    def start(rank: int) -> None:
        os.environ[RESTARTS] = str(rank)
        sft._finetune = lambda _1, ranks, _2, resume, overwrite: (  # type: ignore[assignment]
            (seen / f"{ranks.rank} {resume} {overwrite}").touch()
        )
        sft.finetune(sft_settings(home, "counted", device="cpu"), resume=False, overwrite=True)

    whole([found or 0 for found in on_ranks(2, start)])
    assert sorted(path.name for path in seen.iterdir()) == ["0 True False", "1 True False"]
