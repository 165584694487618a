"""Several processes that share a step do what one does; none is left behind."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import (
    assert_same,
    eight_samples,
    metrics,
    settings,
    start,
    use_plain_descent,
    weights,
)

from omnitune.data.packing import WHOLE, Shard
from omnitune.distributed.forked import _deal
from omnitune.sample import Sample, UserError
from omnitune.training import checkpoint
from omnitune.training.loop import train
from omnitune.training.optim import step_cost
from omnitune.training.run import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return eight_samples(tmp_path_factory.mktemp("media"))


@pytest.fixture(autouse=True)
def nobody_is_left() -> Any:
    yield
    assert multiprocessing.active_children() == []


def close(one: Run, other: Run, tolerance: float = 1e-5) -> None:
    found = weights(other)
    for name, tensor in weights(one).items():
        if ".conv." in name:
            continue  # a bias before a batch norm has no effect: its gradient is rounding error
        torch.testing.assert_close(
            tensor, found[name], atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def fail_at(run: Run, number: int, rank: int, problem: BaseException) -> None:
    """Lets one rank fail where it reads batch ``number``."""
    batch_at = run.batch_at

    def read(n: int, shard: Shard = WHOLE) -> Any:
        if (n, shard.rank) == (number, rank):
            raise problem
        return batch_at(n, shard)

    run.batch_at = read


@pytest.mark.parametrize(("size", "accumulation", "count"), [(4, 1, 2), (2, 2, 2), (3, 1, 3)])
def test_several_ranks_equal_one(
    samples: list[Sample], tmp_path: Path, size: int, accumulation: int, count: int
) -> None:
    """Plain descent, whose step is the gradient: also one that is too small or too large shows."""
    runs = []
    for workers in (1, count):
        config = settings(
            tmp_path / str(workers),
            batch_size=size,
            gradient_accumulation=accumulation,
            max_steps=4,
            max_grad_norm=0.05,
            workers=workers,
        )
        run = start(config, samples)
        use_plain_descent(run)
        before = weights(run)
        train(run)
        assert not torch.equal(weights(run)["proj_v.up.weight"], before["proj_v.up.weight"])
        runs.append(run)
    close(*runs)
    one, other = (metrics(run.config.out)[-1]["train"] for run in runs)
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    assert {n: s["tokens"] for n, s in other["sources"].items()} == {
        n: s["tokens"] for n, s in one["sources"].items()
    }


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_divided_optimiser_is_the_whole_one(
    samples: list[Sample], tmp_path: Path, optimizer: str
) -> None:
    """Also where a rank has no sample in any step."""
    runs = []
    for workers in (1, 2):
        config = settings(
            tmp_path / str(workers),
            batch_size=1,
            max_steps=5,
            workers=workers,
            optimizer=optimizer,
            precision="fp32",  # in bf16 one matrix and two together are rounded apart
            adam_beta2=0.9,
        )
        run = start(config, samples, freeze=False)
        train(run)
        runs.append(run)
    close(*runs, tolerance=2e-4)
    steps = [
        [
            float(run.optimizer.state[p]["step"]) if run.optimizer.state[p] else 0.0
            for p in run.model.parameters()
            if p.requires_grad
        ]
        for run in runs
    ]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("then", [1, 2])
def test_interrupted_equals_uninterrupted(samples: list[Sample], tmp_path: Path, then: int) -> None:
    rest = {"batch_size": 2, "save_every": 4, "workers": 2, "learning_rate": 1e-3}
    straight = start(settings(tmp_path / "straight", **rest), samples)
    train(straight)
    first = start(settings(tmp_path / "broken", **rest), samples)
    fail_at(first, number=5, rank=0, problem=SystemExit())
    with pytest.raises(SystemExit):
        train(first)
    second = start(settings(tmp_path / "broken", **rest | {"workers": then}), samples)
    assert checkpoint.restore(second)
    assert second.step == 5  # the last whole one
    train(second)
    if then == 2:
        assert_same(weights(straight), weights(second))
    else:
        close(straight, second, tolerance=1e-4)


def test_ctrl_c_reaches_rank_0_alone_and_saves(samples: list[Sample], tmp_path: Path) -> None:
    """A terminal sends it to every process of the group."""

    def score(step: int, ended: bool) -> dict[str, Any]:
        if step == 2:
            for child in multiprocessing.active_children():
                os.kill(int(child.pid or 0), signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return {}

    run = start(settings(tmp_path, batch_size=2, workers=2), samples, score=score)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    assert [path.name for path in checkpoint.step_files(tmp_path)] == ["omni_step_2.pt"]


@pytest.mark.parametrize("problem", [UserError("a.png: is damaged"), ValueError("a bug")])
def test_a_problem_of_another_rank_is_told(
    samples: list[Sample], tmp_path: Path, problem: Exception
) -> None:
    run = start(settings(tmp_path, batch_size=2, workers=2), samples)
    fail_at(run, number=3, rank=1, problem=problem)
    expected = UserError if isinstance(problem, UserError) else RuntimeError
    with pytest.raises(expected, match=str(problem)):
        train(run)
    assert run.step == 3


def test_a_rank_that_is_killed_is_named(samples: list[Sample], tmp_path: Path) -> None:
    def score(step: int, ended: bool) -> dict[str, Any]:
        for child in multiprocessing.active_children():
            os.kill(int(child.pid or 0), signal.SIGKILL)
        return {}

    run = start(settings(tmp_path, batch_size=2, workers=2), samples, score=score)
    with pytest.raises(RuntimeError, match=r"rank 1 ended .* --workers 1"):
        train(run)


def test_rank_0_has_the_threads_back(samples: list[Sample], tmp_path: Path) -> None:
    seen = []

    def score(step: int, ended: bool) -> dict[str, Any]:
        seen.append(torch.get_num_threads())
        return {}

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(start(settings(tmp_path, batch_size=2, max_steps=2, workers=2), samples, score=score))
        assert len(seen) > 0
        assert set(seen) == {2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_weights_are_dealt_so_that_ranks_have_like_work() -> None:
    model = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(8))
    optimizer = torch.optim.AdamW(model.parameters())
    dealt = _deal(optimizer, 2, step_cost)
    assert sorted(map(id, dealt[0] + dealt[1])) == sorted(map(id, model.parameters()))
    sizes = [sum(p.numel() for p in mine) for mine in dealt]
    assert sizes[0] == sizes[1]
