"""One process has nothing to share."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from rank_helpers import environment

from omnitune.config.parallel import ParallelSettings
from omnitune.data.packing import WHOLE
from omnitune.distributed.opening import check_world
from omnitune.distributed.protocol import Distributed
from omnitune.distributed.single import SingleProcess
from omnitune.sample import UserError


def test_alone_nothing_is_shared() -> None:
    ranks: Distributed = SingleProcess()
    assert (ranks.rank, ranks.world_size, ranks.shard) == (0, 1, WHOLE)
    assert (ranks.share([1]), ranks.sum([1.0]), ranks.any(True)) == ([1], [1.0], True)
    assert ranks.on_first(lambda: 2) == ranks.scores(torch.nn.Identity(), lambda: 2) == 2
    with ranks.in_turn():
        ranks.begin(0)
    ranks.close()


def test_one_process_imports_no_process_group() -> None:
    code = (
        "import sys, torch, torch.distributed as dist\n"
        "from omnitune.config.parallel import ParallelSettings\n"
        "from omnitune.distributed.opening import open_ranks\n"
        "import omnitune.training.loop\n"
        "with open_ranks(ParallelSettings(), torch.device('cpu')) as ranks:\n"
        "    assert type(ranks).__name__ == 'SingleProcess'\n"
        "    assert not dist.is_initialized()\n"
        "ours = {'omnitune.distributed.torch_ranks', 'omnitune.distributed.sharding'}\n"
        "assert not ours & sys.modules.keys(), ours\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("settings", "size", "said"),
    [
        ({"mode": "fsdp"}, 1, "there is one; start them with `torchrun"),
        ({"shard": 2}, 1, "there is one"),
        ({"mode": "single"}, 2, "there are 2 processes"),
        ({"mode": "ddp", "shard": 2}, 2, "are for fsdp"),
        ({"mode": "fsdp", "shard": 4, "replicate": 2}, 4, "4 times parallel.replicate 2 is 8"),
    ],
)
def test_settings_that_do_not_fit_the_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], size: int, said: str
) -> None:
    for name, value in environment(0, size, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        check_world(ParallelSettings(**settings))


def test_a_process_that_torchrun_did_not_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="start the processes with torchrun"):
        check_world(ParallelSettings())
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE is 'two', expected a number"):
        check_world(ParallelSettings())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, (8, 1)), ({"shard": 4}, (4, 2)), ({"replicate": 2}, (4, 2)), ({"shard": 8}, (8, 1))],
)
def test_the_grid_of_ranks(settings: dict[str, Any], expected: tuple[int, int]) -> None:
    assert ParallelSettings(**settings).grid(8) == expected
