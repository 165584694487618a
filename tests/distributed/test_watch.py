"""A hang becomes an error that says who waits where."""

import os
import signal
import threading
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rank_helpers import needs_fork, on_ranks, whole
from waiting import wait_until

from omnitune.config.parallel import ParallelSettings
from omnitune.distributed import torch_ranks, watch
from omnitune.distributed.opening import open_ranks
from omnitune.distributed.watch import HangError, LostRankError
from omnitune.sample import UserError


def wait_in_vain(rank: int, folder: Path) -> str:
    settings = ParallelSettings(mode="ddp", timeout=2)
    with open_ranks(settings, torch.device("cpu")) as ranks:
        ranks.begin(6)
        if rank:
            (folder / "begun").touch()
            wait_until((folder / "told").exists)
            return "did not come"
        wait_until((folder / "begun").exists)
        ranks.begin(7)
        try:
            ranks.sum([1.0])
        except HangError as error:
            return f"said: {error}"
        finally:
            (folder / "told").touch()
        return "no error"


def lose_the_other(rank: int) -> str:
    settings = ParallelSettings(mode="ddp", timeout=60)
    with open_ranks(settings, torch.device("cpu")) as ranks:
        ranks.begin(3)
        if rank:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            ranks.sum([1.0])
        except LostRankError as error:
            return f"said: {error}"
        return "no error"


def lose_the_other_unseen(rank: int) -> str:
    """In a call that is torch's own affair, such as the gathering of a divided weight."""
    settings = ParallelSettings(mode="ddp", timeout=60)
    try:
        with open_ranks(settings, torch.device("cpu")) as ranks:
            ranks.sum([1.0])
            if rank:
                os.kill(os.getpid(), signal.SIGKILL)
            dist.all_reduce(torch.ones(1))
    except LostRankError as error:
        return f"said: {error}"
    return "no error"


@needs_fork
def test_a_rank_that_is_lost_in_any_call_is_told_of() -> None:
    said, nothing = on_ranks(2, lose_the_other_unseen)
    assert nothing is None
    assert "rank 0 lost another rank" in said


def meet_for(rank: int, lose: str, folder: Path) -> str:
    """Rank 1 does not come, or is killed while the groups are made."""
    torch_ranks.FIRST_MEETING = timedelta(seconds=3)
    if rank and lose == "before":
        wait_until((folder / "told").exists)
        return "did not come"
    made = dist.new_group

    def new_group(*given: Any, **named: Any) -> Any:
        if rank and new_group.calls:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)
        new_group.calls += 1  # type: ignore[attr-defined]
        return made(*given, **named)

    new_group.calls = 0  # type: ignore[attr-defined]
    dist.new_group = new_group
    try:
        with open_ranks(ParallelSettings(mode="ddp", timeout=2), torch.device("cpu")):
            return "met"
    except (HangError, LostRankError) as error:
        return f"said: {error}"
    finally:
        (folder / "told").touch()


@needs_fork
@pytest.mark.parametrize("lose", ["before", "within"])
def test_who_meets_nobody_does_not_wait_for_ever(tmp_path: Path, lose: str) -> None:
    said = on_ranks(2, partial(meet_for, lose=lose, folder=tmp_path))[0]
    assert said.startswith("said: rank 0")
    assert "for the others to meet" in said


@needs_fork
def test_a_lost_rank_is_told_of() -> None:
    said, nothing = on_ranks(2, lose_the_other)
    assert nothing is None
    assert "rank 0 lost another rank in step 4, as it waited for a sum of numbers" in said


@needs_fork
def test_a_hang_names_rank_step_and_call(tmp_path: Path) -> None:
    said = on_ranks(2, partial(wait_in_vain, folder=tmp_path))[0]
    assert "rank 0 waited more than 2 s in step 8 for a sum of numbers" in said
    assert "rank 1 was last in step 7" in said


class Deaf:
    """A store behind a cable that was cut: its calls do not return."""

    cut, waited = threading.Event(), list[bool]()

    def check(self, _: list[str]) -> bool:
        self.waited.append(self.cut.wait(60))
        return False

    def set(self, *_: str) -> None:
        """Sends without waiting for an answer."""


def test_a_store_that_does_not_answer_keeps_no_error_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "store", Deaf)
    monkeypatch.setattr(watch, "ASKING", 0.2)
    watching = watch.Watch(0, 2, limit=3)
    watching.begin(6)
    told = "in step 7 for a sum; nothing is heard of the others"
    with pytest.raises(HangError, match=told), watching("a sum"):
        raise RuntimeError("Timed out waiting 3000ms for recv operation to complete")
    watching.close()
    assert Deaf.waited == []  # it did not wait for the answer
    Deaf.cut.set()  # the thread that asks ends


@pytest.mark.parametrize(
    "told",
    [
        "Connection closed by peer [127.0.0.1]:4321",
        "recvBytes failed: Connection reset by peer",
        "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server crash?",
        "Failed to send, sent 0 bytes. Connection was likely closed.",
    ],
)
def test_whatever_torch_says_of_a_lost_rank_is_told_in_our_words(told: str) -> None:
    """The last two are of the store, which rank 0 keeps where there is no torchrun."""
    watching = watch.Watch(1, 2, limit=3)
    error = dist.DistNetworkError(told)
    with pytest.raises(LostRankError, match="rank 1 lost another"), watching("a sum", patient=True):
        raise error
    watching.close()


def ending_on(rank: int, waits: bool) -> dict[str, str]:
    """A rank that ends with an error after the other has told of its own, or waits for it."""
    try:
        with open_ranks(ParallelSettings(), torch.device("cpu")) as ranks:
            ranks.any(False)
            if rank == 0 and waits:
                ranks.any(False)
            elif rank == 0:
                wait_until(lambda: watch.store().check(["omnitune/error"]))
            raise UserError("record 7 is wrong")
    except UserError as error:
        return {"kind": type(error).__name__, "error": str(error)}


@needs_fork
@pytest.mark.parametrize("waits", [False, True])
def test_one_rank_tells_what_is_wrong(waits: bool) -> None:
    found = whole(on_ranks(2, partial(ending_on, waits=waits)))
    assert found[1] == {"kind": "UserError", "error": "record 7 is wrong"}
    assert found[0] == {"kind": "OfFirstRank", "error": "rank 1 stopped: record 7 is wrong"}
