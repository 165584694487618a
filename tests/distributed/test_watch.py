"""A hang becomes an error that says who waits where."""

import os
import signal
import time
from functools import partial

import pytest
import torch
from rank_helpers import needs_fork, on_ranks, whole

from omnitune.config.parallel import ParallelSettings
from omnitune.distributed.opening import open_ranks
from omnitune.distributed.watch import HangError, LostRankError
from omnitune.sample import UserError

pytestmark = needs_fork


def wait_in_vain(rank: int) -> str:
    settings = ParallelSettings(mode="ddp", timeout=2)
    with open_ranks(settings, torch.device("cpu")) as ranks:
        ranks.begin(6)
        if rank == 0:
            ranks.begin(7)
            try:
                ranks.sum([1.0])
            except HangError as error:
                return f"said: {error}"
            return "no error"
        time.sleep(6)
        return "slept"


def lose_the_other(rank: int) -> str:
    settings = ParallelSettings(mode="ddp", timeout=20)
    with open_ranks(settings, torch.device("cpu")) as ranks:
        ranks.begin(3)
        if rank:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            ranks.sum([1.0])
        except LostRankError as error:
            return f"said: {error}"
        return "no error"


def test_a_lost_rank_is_told_of() -> None:
    said, nothing = on_ranks(2, lose_the_other)
    assert nothing is None
    assert "rank 0 lost another rank in step 4, as it waited for a sum of numbers" in said


def test_a_hang_names_rank_step_and_call() -> None:
    said = on_ranks(2, wait_in_vain)[0]
    assert "rank 0 waited more than 2 s in step 8 for a sum of numbers" in said
    assert "rank 1 was last in step 7" in said


def ending_on(rank: int, waits: bool) -> dict[str, str]:
    """A rank that ends with an error, or (rank 0) waits for the other."""
    try:
        with open_ranks(ParallelSettings(), torch.device("cpu")) as ranks:
            ranks.any(False)
            if rank == 0:
                time.sleep(0.5)
            if waits and rank == 0:
                ranks.any(False)
            raise UserError("record 7 is wrong")
    except UserError as error:
        return {"kind": type(error).__name__, "error": str(error)}


@pytest.mark.parametrize("waits", [False, True])
def test_one_rank_tells_what_is_wrong(waits: bool) -> None:
    found = whole(on_ranks(2, partial(ending_on, waits=waits)))
    assert found[1] == {"kind": "UserError", "error": "record 7 is wrong"}
    assert found[0] == {"kind": "OfFirstRank", "error": "rank 1 stopped: record 7 is wrong"}
