"""How many processes share a step."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import eight_samples, settings, start

from omnitune.distributed.single import SingleProcess
from omnitune.sample import Sample, UserError
from omnitune.training import ranks
from omnitune.training.ranks import choose_ranks, open_ranks


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return eight_samples(tmp_path_factory.mktemp("media"))


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ({"batch_size": 8}, 2),
        ({"batch_size": 7}, 1),  # too little for each
        ({"batch_size": 2, "workers": 3}, 3),
        ({"batch_size": 8, "workers": 1}, 1),
        ({"batch_size": 8, "compile": "on"}, 1),
    ],
)
def test_how_many_ranks(
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rest: dict[str, Any],
    expected: int,
) -> None:
    monkeypatch.setattr(ranks, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    run = start(settings(tmp_path, **rest), samples)
    assert choose_ranks(run) == expected
    if "workers" in rest:
        return
    run.state["compile"] = True
    assert choose_ranks(run) == 1
    run.state["compile"] = False
    monkeypatch.setattr(ranks, "SMALL_MODEL", 10)
    assert choose_ranks(run) == 1


def test_more_than_there_can_be(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="compiled"):
        choose_ranks(start(settings(tmp_path, workers=2, compile="on"), samples))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="leave workers out"):
        choose_ranks(start(settings(tmp_path, workers=2), samples))


def test_one_rank_is_this_process() -> None:
    optimizer = torch.optim.AdamW(torch.nn.Linear(2, 2).parameters())
    with open_ranks(1, optimizer, lambda ranks: None) as found:
        assert isinstance(found, SingleProcess)
