"""Precision and compilation: chosen once, said, kept on resuming."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnitune.config.sft import SftConfig
from omnitune.sample import UserError
from omnitune.training import checkpoint, precision
from omnitune.training.loop import Plan, Run, train
from omnitune.training.optim import Muon, build_optimizer
from omnitune.training.precision import (
    WATCHED_STEPS,
    choose_precision,
    compile_pays,
    matmul_rate,
    pick_device,
)
from omnitune.training.progress import RunLog

CPU = torch.device("cpu")


class Line(nn.Module):
    """Notes the type in which its product comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen: list[torch.dtype] = []

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        out = self.layer(torch.ones(2, 4))
        self.seen.append(out.dtype)
        return out.float().sum()[None], torch.ones(1)


class One:
    num_targets = 1

    def to(self, device: torch.device) -> "One":
        return self


def start(folder: Path, steps: int = 2, **rest: Any) -> Run:
    values = {"max_steps": steps, "save_every": 1, "log_every": 100, "workers": 1, **rest}
    config = SftConfig(output_dir=folder, **values)
    model = Line()
    return Run(
        model=model,
        optimizer=build_optimizer(model, config),
        batch_at=lambda n, part: One(),
        plan=Plan(1000, steps),
        config=config,
        log=RunLog(folder, ["all"], lambda step, entry: [], 1),
        groups=["all"],
        score=lambda step, ended: {},
        rounded=lambda batch: batch,
    )


def rates(monkeypatch: pytest.MonkeyPatch, bf16: float, fp32: float = 100.0) -> None:
    found = {torch.bfloat16: bf16, torch.float32: fp32}
    monkeypatch.setattr(precision, "matmul_rate", found.__getitem__)
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)


def passes(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """What a forward and backward pass takes by precision."""
    monkeypatch.setattr(precision, "_timed_pass", lambda run, batch, name: seconds[name])


@pytest.mark.parametrize(("bf16", "chosen"), [(1.0, "fp32"), (149.0, "fp32"), (151.0, "bf16")])
def test_bf16_only_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, bf16: float, chosen: str
) -> None:
    rates(monkeypatch, bf16)
    assert choose_precision("auto", CPU)[0] == chosen
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    assert choose_precision("auto", CPU)[0] == "fp32"  # however a busy machine measures
    assert choose_precision("fp32", CPU)[0] == "fp32"
    assert choose_precision("bf16", CPU)[0] == "bf16"


def test_muon_multiplies_in_the_faster_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where the batches come in too many shapes for the model to do so; and it goes on so."""
    rates(monkeypatch, 500.0)
    run = start(tmp_path, optimizer="muon")
    run.rounded = None
    train(run)
    assert run.state["precision"] == "fp32"
    assert isinstance(run.optimizer, Muon)
    assert run.optimizer.products == torch.bfloat16
    rates(monkeypatch, 1.0)
    again = start(tmp_path, steps=3, optimizer="muon")
    again.state = dict(run.state)
    train(again)
    assert isinstance(again.optimizer, Muon)
    assert again.optimizer.products == torch.bfloat16
    plain = start(tmp_path / "fp32", optimizer="muon", precision="fp32")
    train(plain)
    assert isinstance(plain.optimizer, Muon)
    assert plain.optimizer.products == torch.float32


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"), [(0.2, 0.1, "bf16"), (0.1, 0.2, "fp32"), (3.0, 4.0, "bf16")]
)
def test_small_products_are_timed_in_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fp32: float, bf16: float, chosen: str
) -> None:
    """Matrix products that are fast when large decide only where one pass takes long."""
    rates(monkeypatch, 500.0)
    passes(monkeypatch, fp32=fp32, bf16=bf16)
    run = start(tmp_path)
    train(run)
    assert run.state["precision"] == chosen


def test_timing_changes_nothing(tmp_path: Path) -> None:
    run = start(tmp_path)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    drawn, threads = torch.get_rng_state(), torch.get_num_threads()
    assert precision.faster_precision(run, 2, "fast")[0] in ("bf16", "fp32")
    assert set(run.model.seen) == {torch.float32, torch.bfloat16}
    assert all(torch.equal(t, before[n]) for n, t in run.model.state_dict().items())
    assert all(p.grad is None for p in run.model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.get_num_threads() == threads
    assert run.step == 0
    assert "precision" not in run.state


def test_measurement_leaves_the_seed_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for dtype in (torch.float32, torch.bfloat16):
        assert matmul_rate(dtype) > 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_products_are_in_the_precision_and_weights_are_not(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(tmp_path, precision=name)
    train(run)
    assert run.model.seen == [{"bf16": torch.bfloat16, "fp32": torch.float32}[name]] * 2
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert f"precision: {name} (as configured)" in capsys.readouterr().out


def test_resumed_run_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates(monkeypatch, 200.0)
    passes(monkeypatch, fp32=2.0, bf16=1.0)
    train(start(tmp_path))
    assert "in bf16 the first batches run at 2 times the rate" in capsys.readouterr().out
    rates(monkeypatch, 1.0)
    again = start(tmp_path, steps=3)
    assert checkpoint.restore(again)
    train(again)
    assert set(again.model.seen) == {torch.bfloat16}
    assert "precision: bf16 (as the run began)" in capsys.readouterr().out


def test_batches_are_rounded_where_shapes_are_costly(tmp_path: Path) -> None:
    for name, expected in (("fp32", 0), ("bf16", 2)):
        seen: list[Any] = []
        run = start(tmp_path / name, precision=name)
        run.rounded = lambda batch, seen=seen: seen.append(batch) or batch
        train(run)
        assert len(seen) == expected


def test_compiling_pays_on_long_runs_only() -> None:
    assert not compile_pays(1_000, 0.06)
    assert compile_pays(4_000, 0.06)
    assert compile_pays(40_000, 0.047)
    assert compile_pays(4_000, 0.5)


@pytest.mark.parametrize(
    ("asked", "pays", "helps", "at"),
    [
        ("on", False, True, 0),
        ("off", True, True, None),
        ("auto", True, True, WATCHED_STEPS),
        ("auto", False, True, None),
        ("auto", True, False, None),
    ],
)
def test_when_it_is_compiled(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    pays: bool,
    helps: bool,
    at: int | None,
) -> None:
    monkeypatch.setattr(precision, "compile_pays", lambda steps, seconds: pays)
    monkeypatch.setattr(precision, "compiling_helps", lambda: helps)
    total = WATCHED_STEPS + 2
    run = start(tmp_path, steps=total, compile=asked, precision="fp32", save_every=total - 1)
    calls: list[int] = []
    run.compile = lambda: calls.append(run.step)
    train(run)
    assert calls == ([] if at is None else [at])
    assert run.state["compile"] is (at is not None)
    again = start(tmp_path, steps=total, compile=asked, precision="fp32")
    again.compile = lambda: calls.append(-1)
    assert checkpoint.restore(again)
    train(again)
    assert calls[1:] == ([] if at is None else [-1])  # resumed as it was left


@pytest.mark.parametrize(
    ("capability", "compiler", "expected"),
    [("AVX512", "g++", True), ("AVX512", None, False), ("AVX2", "g++", False)],
)
def test_where_compiling_helps(
    monkeypatch: pytest.MonkeyPatch, capability: str, compiler: str | None, expected: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(precision.shutil, "which", lambda name: compiler)
    assert precision.compiling_helps() is expected


def test_several_processes_are_not_compiled(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.compile = lambda: pytest.fail("compiled")
    precision.resolve_precision(run, ranks=2)
    assert run.state["compile"] is False


def test_gpu_precision_is_what_its_units_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    device: Any = SimpleNamespace(type="cuda")
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda there=there, **_: there)
        assert choose_precision("auto", device)[0] == ("bf16" if there else "fp32")


def test_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="finds no GPU"):
        pick_device("cuda")
