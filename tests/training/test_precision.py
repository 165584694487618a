"""Precision and compilation: chosen once, said, kept on resuming."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnitune.config.sft import SftConfig
from omnitune.distributed.single import SingleProcess
from omnitune.sample import UserError
from omnitune.training import checkpoint, precision
from omnitune.training.loop import train
from omnitune.training.optim import Muon, build_optimizer
from omnitune.training.precision import COMPILED_STEPS, choose_precision, pick_device
from omnitune.training.progress import RunLog
from omnitune.training.run import Plan, Run


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
    values = {"max_steps": steps, "save_every": 1, "log_every": 100, **rest}
    config = SftConfig(output_dir=folder, **values)
    model = Line()
    return Run(
        model=model,
        optimizer=build_optimizer(model, config),
        batch_at=lambda n, part: One(),
        plan=Plan(1000, steps),
        config=config,
        log=RunLog(config, ["all"], lambda step, entry: [], 1),
        groups=["all"],
        score=lambda step, ended: {},
        rounded=lambda batch, compiled: batch,
    )


@pytest.fixture
def _units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with bf16 units, AVX-512 and a compiler."""
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    monkeypatch.setattr(precision, "can_compile", lambda: True)


@pytest.mark.parametrize(
    ("samples", "large", "chosen"), [(15, False, "fp32"), (16, False, "bf16"), (1, True, "bf16")]
)
@pytest.mark.usefixtures("_units")
def test_bf16_takes_units_and_a_large_model_or_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int, large: bool, chosen: str
) -> None:
    if large:
        monkeypatch.setattr(precision, "SMALL_MODEL", 10)
    run = start(tmp_path, batch_size=samples)
    assert choose_precision(run)[0] == chosen
    run.rounded = None  # a kernel would be built for each shape
    assert choose_precision(run)[0] == "fp32"
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    assert choose_precision(start(tmp_path, batch_size=samples))[0] == "fp32"


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_precision_is_as_asked(tmp_path: Path, asked: str) -> None:
    assert choose_precision(start(tmp_path, precision=asked))[0] == asked


def test_size_of_a_batch_is_that_of_its_stream(tmp_path: Path) -> None:
    """One that is sized by tokens knows how many samples that are."""
    run = start(tmp_path, batch_size=3)
    assert run.batch_size == 3
    run.batch_at = SimpleNamespace(batch_size=40)
    assert run.batch_size == 40


@pytest.mark.usefixtures("_units")
def test_muon_multiplies_in_the_faster_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where the batches come in too many shapes for the model to do so; and it goes on so."""
    run = start(tmp_path, optimizer="muon")
    run.rounded = None
    train(run)
    assert run.state["precision"] == "fp32"
    assert isinstance(run.optimizer, Muon)
    assert run.optimizer.products == torch.bfloat16
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    again = start(tmp_path, steps=3, optimizer="muon")
    again.state = dict(run.state)
    train(again)
    assert isinstance(again.optimizer, Muon)
    assert again.optimizer.products == torch.bfloat16
    plain = start(tmp_path / "fp32", optimizer="muon", precision="fp32")
    train(plain)
    assert isinstance(plain.optimizer, Muon)
    assert plain.optimizer.products == torch.float32


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_products_are_in_the_precision_and_weights_are_not(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(tmp_path, precision=name)
    train(run)
    assert run.model.seen == [{"bf16": torch.bfloat16, "fp32": torch.float32}[name]] * 2
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert f"precision: {name} (as configured)" in capsys.readouterr().out


@pytest.mark.usefixtures("_units")
def test_resumed_run_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(start(tmp_path, batch_size=16))
    assert "precision: bf16 (the processor has bf16 units" in capsys.readouterr().out
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    again = start(tmp_path, steps=3, batch_size=16)
    assert checkpoint.restore(again)
    train(again)
    assert set(again.model.seen) == {torch.bfloat16}
    assert "precision: bf16 (as the run began)" in capsys.readouterr().out


def test_batches_are_rounded_where_shapes_are_costly(tmp_path: Path) -> None:
    """Those of attention are so where a compiler sees them only."""
    for name, expected in (("fp32", []), ("bf16", [False, False])):
        seen: list[bool] = []
        run = start(tmp_path / name, precision=name)
        run.rounded = lambda batch, compiled, seen=seen: seen.append(compiled) or batch
        train(run)
        assert seen == expected


@pytest.mark.parametrize(
    ("asked", "steps", "rest", "compiled"),
    [
        ("on", 2, {}, True),
        ("off", COMPILED_STEPS, {}, False),
        ("auto", COMPILED_STEPS, {}, True),
        ("auto", COMPILED_STEPS - 1, {}, False),
        ("auto", COMPILED_STEPS, {"precision": "fp32"}, False),
    ],
)
@pytest.mark.usefixtures("_units")
def test_what_is_compiled(
    tmp_path: Path, asked: str, steps: int, rest: dict[str, Any], compiled: bool
) -> None:
    run = start(tmp_path, steps=steps, **{"precision": "bf16", "compile": asked, **rest})
    calls: list[int] = []
    run.compile = lambda: calls.append(run.step)
    precision.resolve_precision(run)
    assert calls == [0] * compiled
    assert run.state["compile"] is compiled


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.usefixtures("_units")
def test_resumed_run_is_compiled_as_it_began(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    compiled: bool,
) -> None:
    monkeypatch.setattr(precision, "COMPILED_STEPS", 2 if compiled else 9)
    first = start(tmp_path, precision="bf16")
    first.compile = lambda: None
    train(first)
    monkeypatch.setattr(precision, "COMPILED_STEPS", 9 if compiled else 0)
    again = start(tmp_path, steps=3, precision="bf16")
    calls: list[int] = []
    again.compile = lambda: calls.append(again.step)
    assert checkpoint.restore(again)
    train(again)
    assert calls == [2] * compiled
    assert "(as the run began)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("capability", "compiler", "expected"),
    [("AVX512", "g++", True), ("AVX512", None, False), ("AVX2", "g++", False)],
)
def test_where_compiling_may_pay(
    monkeypatch: pytest.MonkeyPatch, capability: str, compiler: str | None, expected: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(precision.shutil, "which", lambda name: compiler)
    assert precision.can_compile() is expected


@pytest.mark.parametrize(("steps", "compiled"), [(300, False), (301, True)])
def test_gpu_repays_compiling_sooner(tmp_path: Path, steps: int, compiled: bool) -> None:
    run: Any = SimpleNamespace(
        config=SftConfig(),
        compile=lambda: None,
        ranks=SingleProcess(),
        device=SimpleNamespace(type="cuda"),
        plan=Plan(1000, steps),
        step=0,
        state={"precision": "fp32"},
    )
    assert precision.choose_compilation(run)[0] is compiled


def test_gpu_precision_is_what_its_units_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(type="cuda")
    run: Any = SimpleNamespace(config=SftConfig(), batch_size=1, device=device)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda there=there, **_: there)
        assert choose_precision(run)[0] == ("bf16" if there else "fp32")


def test_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="finds no GPU"):
        pick_device("cuda")
