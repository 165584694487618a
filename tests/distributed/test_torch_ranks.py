"""Ranks of torch.distributed that share a step do what one process does."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rank_helpers
import torch
from loop_helpers import eight_samples, metrics, settings, start, use_plain_descent
from rank_helpers import needs_fork, on_ranks, whole
from torch import Tensor

from omnitune.distributed.opening import open_ranks
from omnitune.sample import Sample
from omnitune.training import checkpoint, sharded_checkpoint
from omnitune.training.follower import FollowerLog
from omnitune.training.loop import train
from omnitune.training.precision import choose_compilation

pytestmark = needs_fork
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return eight_samples(tmp_path_factory.mktemp("media"))


def train_on(
    rank: int, folder: Path, samples: list[Sample], mode: str, freeze: bool, rest: dict[str, Any]
) -> State:
    """Trains a tiny model; returns its weights (rank 0)."""
    plain = rest.pop("plain", False)
    parallel = {"mode": mode, **rest.pop("grid", {})}
    config = settings(folder, precision="fp32", parallel=parallel, **rest)
    with open_ranks(config.parallel, torch.device("cpu")) as ranks:
        run = start(config, samples, freeze=freeze, ranks=ranks)
        without_dropout(run.model)
        if rank:
            run.log = FollowerLog(config, run.groups, lambda step, entry: [], 1)
        if plain:
            use_plain_descent(run)
        run.compile = run.model.compile_decoder if config.compile == "on" else None
        train(run)
        return ranks.whole_state(run.model)


def without_dropout(model: torch.nn.Module) -> None:
    """What is drawn differs by rank."""
    for module in model.modules():
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def close(one: State, other: State, tolerance: float = 1e-5) -> None:
    for name, tensor in one.items():
        if ".conv." in name:
            continue  # a bias before a batch norm has no effect: its gradient is rounding error
        torch.testing.assert_close(
            other[name],
            tensor,
            atol=tolerance,
            rtol=tolerance,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("freeze", "rest"),
    [
        (True, {"batch_size": 4}),
        (False, {"batch_size": 3, "gradient_accumulation": 2}),
        (True, {"batch_size": 1, "gradient_accumulation": 2}),  # a rank has nothing
    ],
)
def test_two_ranks_equal_one(
    samples: list[Sample], tmp_path: Path, mode: str, freeze: bool, rest: dict[str, Any]
) -> None:
    """Plain descent, whose step is the gradient: also one that is too small or too large shows."""
    rest = {"max_steps": 20, "plain": True, "max_grad_norm": 0.05, **rest}
    alone = train_on(0, tmp_path / "one", samples, "auto", freeze, dict(rest))
    work = partial(
        train_on, folder=tmp_path / "two", samples=samples, mode=mode, freeze=freeze, rest=rest
    )
    first, _ = whole(on_ranks(2, work))
    close(alone, first)
    one, two = (metrics(tmp_path / name)[-1]["train"] for name in ("one", "two"))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    assert {n: s["tokens"] for n, s in two["sources"].items()} == {
        n: s["tokens"] for n, s in one["sources"].items()
    }


def test_a_divided_model_may_be_compiled(samples: list[Sample], tmp_path: Path) -> None:
    def chosen(rank: int) -> tuple[bool, str]:
        config = settings(tmp_path, compile="on", parallel={"mode": "fsdp"})
        with open_ranks(config.parallel, torch.device("cpu")) as ranks:
            run = start(config, samples, ranks=ranks)
            run.compile = run.model.compile_decoder
            return choose_compilation(run)

    assert whole(on_ranks(2, chosen)) == [(True, "as configured")] * 2


@pytest.mark.slow
@pytest.mark.skipif("OMNITUNE_LONG" not in os.environ, reason="to trace takes minutes")
def test_a_compiled_divided_model_equals_a_whole_one(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced, and run by torch's own kernels: to build others takes longer still."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(rank_helpers, "SECONDS", 900.0)
    rest: dict[str, Any] = {"max_steps": 20, "plain": True, "max_grad_norm": 0.05, "batch_size": 4}
    alone = train_on(0, tmp_path / "one", samples, "auto", True, dict(rest))
    work = partial(
        train_on,
        folder=tmp_path / "two",
        samples=samples,
        mode="fsdp",
        freeze=True,
        rest=rest | {"compile": "on"},
    )
    close(alone, whole(on_ranks(2, work, 900.0))[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "grid"), [("ddp", {}), ("fsdp", {}), ("fsdp", {"shard": 2, "replicate": 2})]
)
def test_four_ranks_equal_one(
    samples: list[Sample], tmp_path: Path, mode: str, grid: dict[str, int]
) -> None:
    rest = {"max_steps": 20, "plain": True, "max_grad_norm": 0.05, "batch_size": 5}
    alone = train_on(0, tmp_path / "one", samples, "auto", False, dict(rest))
    work = partial(
        train_on,
        folder=tmp_path / "four",
        samples=samples,
        mode=mode,
        freeze=False,
        rest=rest | {"grid": grid},
    )
    close(alone, whole(on_ranks(4, work))[0])


def interrupted(rank: int, folder: Path, samples: list[Sample], mode: str) -> str:
    """Rank 1 hears Ctrl-C in the third step; the rank says how it ended."""
    config = settings(folder, precision="fp32", parallel={"mode": mode}, log_every=100)
    with open_ranks(config.parallel, torch.device("cpu")) as ranks:
        run = start(config, samples, ranks=ranks)
        if rank:
            run.log = FollowerLog(config, run.groups, lambda step, entry: [], 1)
        batch_at = run.batch_at

        def press(number: int, *shard: Any) -> Any:
            if number == 2 and rank:
                signal.raise_signal(signal.SIGINT)
            return batch_at(number, *shard)

        run.batch_at = press
        try:
            train(run)
        except KeyboardInterrupt:
            there = "saved" if checkpoint.step_files(folder) else "not saved"
            return f"{run.step} {there}"
        return "not stopped"


@pytest.mark.parametrize(("mode", "ending"), [("ddp", "pt"), ("fsdp", "dcp")])
def test_ctrl_c_on_one_rank_stops_all_after_the_step(
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    ending: str,
) -> None:
    """None ends before all is on disk: torchrun would end the one that writes."""

    def slow(write: Any, *arguments: Any) -> None:
        time.sleep(0.7)
        write(*arguments)

    for module in (checkpoint, sharded_checkpoint):
        monkeypatch.setattr(module, "write_checkpoint", partial(slow, module.write_checkpoint))
    found = on_ranks(2, partial(interrupted, folder=tmp_path, samples=samples, mode=mode))
    assert found == ["3 saved", "3 saved"]
    assert [p.name for p in checkpoint.step_files(tmp_path)] == [f"omni_step_3.{ending}"]
