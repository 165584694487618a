"""A hang becomes an error that says who waits where."""

import time
from pathlib import Path

import torch
from rank_helpers import needs_fork, on_ranks

from omnitune.config.parallel import ParallelSettings
from omnitune.distributed.opening import open_ranks
from omnitune.distributed.watch import HangError

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


def test_a_hang_names_rank_step_and_call(tmp_path: Path) -> None:
    said = on_ranks(2, wait_in_vain)[0]
    assert "rank 0 waited more than 2 s in step 8 for a sum of numbers" in said
    assert "rank 1 was last in step 7" in said
