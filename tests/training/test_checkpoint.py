"""Step checkpoints: the newest few, the newest whole one, and a log without doubles."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnitune.config import SftConfig
from omnitune.sample import UserError
from omnitune.storage import read_checkpoint
from omnitune.training import checkpoint
from omnitune.training.checkpoint import step_files
from omnitune.training.loop import Plan, Run, train
from omnitune.training.optim import build_optimizer
from omnitune.training.progress import RunLog


class Line(nn.Module):
    """Three weights, and some chance in training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 3))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, batch: "Point") -> tuple[Tensor, Tensor]:
        if self.training:
            self.seen += 1
        noise = torch.randn(3)
        loss = (self.weight * (batch.values + noise)).sum().square()
        return loss[None], torch.ones(1)


class Point:
    num_targets = 1

    def __init__(self, number: int) -> None:
        self.values = torch.tensor([1.0, number, -number])

    def to(self, device: torch.device) -> "Point":
        return self


def settings(folder: Path, **rest: Any) -> SftConfig:
    values = {"learning_rate": 0.1, "warmup_steps": 2, "log_every": 1, "save_every": 2} | rest
    return SftConfig(output_dir=folder, max_steps=9, **values)


def start(config: SftConfig) -> Run:
    torch.manual_seed(0)
    model = Line()
    return Run(
        model=model,
        optimizer=build_optimizer(model, config),
        batch_at=lambda n, part: Point(n),
        plan=Plan(20, 9),
        config=config,
        log=RunLog(config.out, ["all"], lambda step, entry: [], 1),
        groups=["all"],
        score=lambda step, ended: {"loss": float(step)},
    )


def finished(config: SftConfig) -> Run:
    run = start(config)
    train(run)
    return run


def gone_on(config: SftConfig) -> tuple[int, Run]:
    """Restores in fresh objects and trains to the end; returns where it went on from."""
    run = start(config)
    torch.manual_seed(99)  # another process has drawn other numbers
    assert checkpoint.restore(run)
    step = run.step
    train(run)
    return step, run


def names(folder: Path) -> list[str]:
    return [path.name for path in step_files(folder)]


def steps_logged(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def test_newest_three_are_kept(tmp_path: Path) -> None:
    finished(settings(tmp_path))
    assert names(tmp_path) == [f"omni_step_{n}.pt" for n in (4, 6, 8)]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest) == set(names(tmp_path))
    finished(settings(tmp_path / "one", keep_checkpoints=1, save_every=4))
    assert names(tmp_path / "one") == ["omni_step_8.pt"]


def test_newest_is_by_number_not_by_name(tmp_path: Path) -> None:
    config = settings(tmp_path, keep_checkpoints=2)
    run = start(config)
    for run.step in (9, 10, 100, 20):
        checkpoint.save(run)
    checkpoint.finish_saving(run)
    assert names(tmp_path) == ["omni_step_20.pt", "omni_step_100.pt"]


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("omni.pt", "omni_step_x.pt", "omni_step_5.pt.tmp", "my.step_3.pt", "step_7.pt"):
        (tmp_path / name).write_bytes(b"")
    assert names(tmp_path) == ["step_7.pt"]


def test_restored_run_ends_as_the_straight_one(tmp_path: Path) -> None:
    """Weights, buffers, moments, chance and the schedule."""
    straight = finished(settings(tmp_path))
    step, again = gone_on(settings(tmp_path))
    assert step == 8
    (tmp_path / "omni_step_8.pt").unlink()
    step, further = gone_on(settings(tmp_path))
    assert step == 6
    for run in (again, further):
        assert torch.equal(run.model.weight, straight.model.weight)
        assert run.model.seen == 9
    assert steps_logged(tmp_path) == list(range(1, 10))


def test_training_goes_on_while_its_state_of_before_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(settings(tmp_path))
    written, go_on = checkpoint.write_checkpoint, threading.Event()

    def slow(path: Path, values: dict[str, Any]) -> None:
        assert go_on.wait(10)
        written(path, values)

    monkeypatch.setattr(checkpoint, "write_checkpoint", slow)
    checkpoint.save(run)
    with torch.no_grad():
        run.model.weight.fill_(7.0)
    assert names(tmp_path) == []
    go_on.set()
    checkpoint.finish_saving(run)
    saved = read_checkpoint(tmp_path / "omni_step_0.pt")
    assert torch.equal(saved["model"]["weight"], torch.ones(1, 3))


def test_checkpoint_that_cannot_be_written_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"omni_step_2\.pt: cannot be written \(No space left"):
        finished(settings(tmp_path))


def test_damaged_newest_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight = finished(settings(tmp_path))
    flip(tmp_path / "omni_step_8.pt")
    step, run = gone_on(settings(tmp_path))
    assert step == 6
    said = capsys.readouterr().out
    assert "warning: " in said
    assert "omni_step_8.pt: is damaged" in said
    assert torch.equal(run.model.weight, straight.model.weight)
    assert steps_logged(tmp_path) == list(range(1, 10))
    assert gone_on(settings(tmp_path))[0] == 8  # it was written anew


def test_half_a_file_falls_back_too(tmp_path: Path) -> None:
    finished(settings(tmp_path))
    newest = tmp_path / "omni_step_8.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    (tmp_path / "manifest.json").unlink()
    assert gone_on(settings(tmp_path))[0] == 6


def test_nothing_whole_is_a_start_from_nothing_without_doubles(tmp_path: Path) -> None:
    straight = finished(settings(tmp_path))
    for path in step_files(tmp_path):
        flip(path)
    run = start(settings(tmp_path))
    assert not checkpoint.restore(run)
    assert run.step == 0
    train(run)
    assert torch.equal(run.model.weight, straight.model.weight)
    assert steps_logged(tmp_path) == list(range(1, 10))


def test_killed_before_the_first_checkpoint_leaves_no_doubles(tmp_path: Path) -> None:
    config = settings(tmp_path, save_every=100)
    run = start(config)
    run.batch_at = lambda n, part: Point(n) if n < 3 else exec("raise SystemExit")
    with pytest.raises(SystemExit):
        train(run)
    assert steps_logged(tmp_path) == [1, 2, 3]
    again = start(config)
    assert not checkpoint.restore(again)
    train(again)
    assert steps_logged(tmp_path) == list(range(1, 10))


def test_half_a_line_of_the_log_is_dropped(tmp_path: Path) -> None:
    finished(settings(tmp_path))
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 1, "epo')
    gone_on(settings(tmp_path))
    assert steps_logged(tmp_path) == list(range(1, 10))


def test_state_of_the_stage_is_restored(tmp_path: Path) -> None:
    run = start(settings(tmp_path))
    run.state["best"], run.step = {"wer": 0.5}, 3
    checkpoint.save(run)
    checkpoint.finish_saving(run)
    again = start(settings(tmp_path))
    assert checkpoint.restore(again)
    assert (again.state, again.step) == ({"best": {"wer": 0.5}}, 3)
