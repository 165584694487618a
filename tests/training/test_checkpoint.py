"""Step checkpoints: the newest few, the newest whole one, and a log without doubles."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnitune.config.sft import SftConfig
from omnitune.sample import UserError
from omnitune.storage import NoRoomError, read_checkpoint
from omnitune.training import checkpoint
from omnitune.training.checkpoint import step_files
from omnitune.training.loop import train
from omnitune.training.optim import build_optimizer
from omnitune.training.progress import RunLog
from omnitune.training.run import Plan, Run


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
        log=RunLog(config, ["all"], lambda step, entry: [], 1),
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
    assert names(tmp_path) == [f"omni_step_{n}.pt" for n in (6, 8, 9)]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest) == set(names(tmp_path))
    finished(settings(tmp_path / "one", keep_checkpoints=1, save_every=4))
    assert names(tmp_path / "one") == ["omni_step_9.pt"]


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
    assert step == 9
    for n in (9, 8):
        (tmp_path / f"omni_step_{n}.pt").unlink()
    step, further = gone_on(settings(tmp_path))
    assert step == 6
    for run in (again, further):
        assert torch.equal(run.model.weight, straight.model.weight)
        assert run.model.seen == 9
    assert steps_logged(tmp_path) == list(range(10))


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


def fill_up(folder: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """A disk with room for so many checkpoints, half a written one among them."""
    real = torch.save

    def save(values: Any, file: Any) -> None:
        if len(list(folder.glob("*step_*"))) > room:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        real(values, file)

    monkeypatch.setattr(torch, "save", save)


def test_a_full_disk_does_not_end_a_run_before_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_up(tmp_path, monkeypatch, room=0)
    with pytest.raises(UserError, match=r"omni_step_9\.pt: cannot be written \(No space left"):
        finished(settings(tmp_path))
    said = capsys.readouterr().out
    assert "warning: " in said
    assert "omni_step_2.pt: cannot be written" in said
    assert "there is no other one" in said
    assert steps_logged(tmp_path) == list(range(10))
    assert not list(tmp_path.glob("*step_*"))


def test_where_there_is_no_room_older_checkpoints_give_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_up(tmp_path, monkeypatch, room=2)
    finished(settings(tmp_path))
    assert names(tmp_path) == ["omni_step_8.pt", "omni_step_9.pt"]
    assert gone_on(settings(tmp_path))[0] == 9


def test_an_error_within_a_step_keeps_the_last_whole_one(tmp_path: Path) -> None:
    """Chance that the broken step drew is drawn again."""
    straight = finished(settings(tmp_path / "straight"))
    config = settings(tmp_path / "broken", save_every=100)
    run = start(config)
    forward = run.model.forward

    def broken(batch: Point) -> Any:
        found = forward(batch)
        if run.step == 5:
            raise ValueError("of another library")
        return found

    run.model.forward = broken  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="of another library"):
        train(run)
    assert names(config.out) == ["omni_step_5.pt"]
    step, again = gone_on(config)
    assert step == 5
    assert torch.equal(again.model.weight, straight.model.weight)
    losses = [
        [json.loads(line)["train"].get("loss") for line in (folder / "metrics.jsonl").open()]
        for folder in (tmp_path / "straight", config.out)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("moment", [4, 9])
def test_an_error_in_scoring_loses_no_step_and_no_mean(tmp_path: Path, moment: int) -> None:
    rest = {"save_every": 100, "log_every": 2}
    straight = finished(settings(tmp_path / "straight", **rest))
    config = settings(tmp_path / "broken", **rest)
    run = start(config)

    def score(step: int, ended: bool) -> dict[str, float]:
        if step == moment:
            raise ValueError("of another library")
        return {"loss": float(step)}

    run.score = score
    with pytest.raises(ValueError, match="of another library"):
        train(run)
    step, again = gone_on(config)
    assert step == moment
    assert torch.equal(again.model.weight, straight.model.weight)
    entries = [
        [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        for folder in (tmp_path / "straight", config.out)
    ]
    assert [e["step"] for e in entries[1]] == [0, 2, 4, 6, 8, 9]
    for key in ("loss", "grad_norm", "sources"):
        assert [e["train"].get(key) for e in entries[0]] == [
            e["train"].get(key) for e in entries[1]
        ]


def test_damaged_newest_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight = finished(settings(tmp_path))
    flip(tmp_path / "omni_step_9.pt")
    flip(tmp_path / "omni_step_8.pt")
    step, run = gone_on(settings(tmp_path))
    assert step == 6
    said = capsys.readouterr().out
    assert "warning: " in said
    assert "omni_step_8.pt: is damaged" in said
    assert torch.equal(run.model.weight, straight.model.weight)
    assert steps_logged(tmp_path) == list(range(10))
    assert gone_on(settings(tmp_path))[0] == 9  # it was written anew


def test_half_a_file_falls_back_too(tmp_path: Path) -> None:
    finished(settings(tmp_path))
    newest = tmp_path / "omni_step_9.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    (tmp_path / "manifest.json").unlink()
    assert gone_on(settings(tmp_path))[0] == 8


def test_nothing_whole_is_a_start_from_nothing_without_doubles(tmp_path: Path) -> None:
    straight = finished(settings(tmp_path))
    for path in step_files(tmp_path):
        flip(path)
    run = start(settings(tmp_path))
    assert not checkpoint.restore(run)
    assert run.step == 0
    train(run)
    assert torch.equal(run.model.weight, straight.model.weight)
    assert steps_logged(tmp_path) == list(range(10))


def test_killed_before_the_first_checkpoint_leaves_no_doubles(tmp_path: Path) -> None:
    config = settings(tmp_path, save_every=100)
    run = start(config)

    def kill(n: int, part: object) -> Point:
        if n == 3:
            run.updating = True  # nothing is saved on the way out
            raise SystemExit
        return Point(n)

    run.batch_at = kill
    with pytest.raises(SystemExit):
        train(run)
    assert not names(tmp_path)
    assert steps_logged(tmp_path) == [0, 1, 2, 3]
    again = start(config)
    assert not checkpoint.restore(again)
    train(again)
    assert steps_logged(tmp_path) == list(range(10))


def test_half_a_line_of_the_log_is_dropped(tmp_path: Path) -> None:
    finished(settings(tmp_path))
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 1, "epo')
    gone_on(settings(tmp_path))
    assert steps_logged(tmp_path) == list(range(10))


def test_state_of_the_stage_is_restored(tmp_path: Path) -> None:
    run = start(settings(tmp_path))
    run.state["best"], run.step = {"wer": 0.5}, 3
    checkpoint.save(run)
    checkpoint.finish_saving(run)
    again = start(settings(tmp_path))
    assert checkpoint.restore(again)
    assert (again.state, again.step) == ({"best": {"wer": 0.5}}, 3)


def test_a_full_disk_stops_a_run_that_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was there before as it was, and nothing half written."""
    config = settings(tmp_path, on_full_disk="stop")
    fill_up(tmp_path, monkeypatch, room=1)
    with pytest.raises(NoRoomError, match=r"omni_step_4\.pt.* newest whole one is omni_step_2\.pt"):
        finished(config)
    assert names(tmp_path) == ["omni_step_2.pt"]
    assert not list(tmp_path.glob("*.tmp"))
    monkeypatch.undo()
    assert gone_on(config)[0] == 2


LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from omnitune.sample import UserError
from omnitune.storage import write_checkpoint
path = Path(sys.argv[1])
write_checkpoint(path, {"weight": torch.zeros(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_checkpoint(path, {"weight": torch.ones(50_000)})
except UserError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.mark.parametrize("limit", [0, 100, 5_000, 100_000])
def test_a_real_limit_leaves_the_old_file_and_says_so_in_our_words(
    tmp_path: Path, limit: int
) -> None:
    """At whatever byte the room ends, torch's own writer included."""
    path = tmp_path / "omni_step_1.pt"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit)], capture_output=True, text=True
    )
    kind, told = json.loads(done.stdout)
    assert kind == "NoRoomError"
    assert str(path) in told
    assert "make room" in told
    assert "PytorchStreamWriter" not in told
    assert "Traceback" not in done.stderr
    assert torch.equal(read_checkpoint(path)["weight"], torch.zeros(10))
    assert not list(tmp_path.glob("*.tmp"))
