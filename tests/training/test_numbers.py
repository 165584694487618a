"""Steps without numbers are left out and written down, too many stop the run; leaps are told."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sft_settings
from torch import Tensor, nn

from omnitune.config.sft import SftConfig
from omnitune.data.samples import IndexedSource
from omnitune.sample import UserError
from omnitune.training import checkpoint
from omnitune.training.loop import train
from omnitune.training.optim import build_optimizer
from omnitune.training.progress import RunLog
from omnitune.training.run import Plan, Run
from omnitune.training.sft import TrainingSetup, build_training


class Scaled(nn.Module):
    """One weight; the loss of a batch is a number of it, and so is the gradient."""

    spoils = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, batch: "Number") -> tuple[Tensor, Tensor]:
        if self.training and self.spoils:
            self.seen += batch.value  # as the statistics of a norm: no update leaves them out
        return (self.weight * batch.value).sum()[None], torch.ones(1)


class Number:
    num_targets = 1

    def __init__(self, value: float) -> None:
        self.value = value

    def to(self, device: torch.device) -> "Number":
        return self


NAN = float("nan")


def start(folder: Path, values: dict[int, float], steps: int, **rest: Any) -> Run:
    settings = {"learning_rate": 1e-6, "log_every": 5, "save_every": 1, **rest}
    config = SftConfig(output_dir=folder, max_steps=steps, **settings)
    model = Scaled()
    return Run(
        model=model,
        optimizer=build_optimizer(model, config),
        batch_at=lambda n, part: Number(values.get(n + 1, 1.0 + 0.01 * (n % 3))),
        plan=Plan(1000, steps),
        config=config,
        log=RunLog(config, ["all"], lambda step, entry: [], 1),
        groups=["all"],
        score=lambda step, ended: {},
    )


def written(folder: Path) -> list[tuple[int, str]]:
    lines = (folder / "bad_steps.jsonl").read_text(encoding="utf-8").splitlines()
    return [(found["step"], found["why"]) for found in map(json.loads, lines)]


def test_too_many_in_a_row_stop_the_run_and_name_the_last_good_checkpoint(tmp_path: Path) -> None:
    bad = dict.fromkeys((2, 3, *range(6, 20)), NAN)
    run = start(tmp_path, bad, 20, max_bad_steps=4)
    with pytest.raises(UserError, match=r"4 steps in a row .* up to step 9.*omni_step_5\.pt"):
        train(run)
    assert written(tmp_path) == [(n, "not finite") for n in (2, 3, 6, 7, 8, 9)]
    # Its statistics are spoilt since step 2, so only the checkpoint before can be read: it is kept.
    assert (tmp_path / "omni_step_5.pt").is_file()


def test_the_last_good_checkpoint_outlasts_the_bad_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(tmp_path, dict.fromkeys(range(5, 20), NAN), 20, max_bad_steps=9)
    with pytest.raises(UserError, match=r"omni_step_4\.pt"):
        train(run)
    again = start(tmp_path, {}, 20)
    assert checkpoint.restore(again)
    assert again.step == 4
    assert "not finite" in capsys.readouterr().out
    train(again)
    assert again.step == 20
    assert written(tmp_path) == []  # of steps that were done again


def test_good_steps_between_begin_the_count_anew(tmp_path: Path) -> None:
    run = start(tmp_path, dict.fromkeys((1, 2, 4, 5, 7, 8), float("inf")), 9, max_bad_steps=3)
    train(run)
    assert run.step == 9
    notable = [json.loads(x).get("notable_steps") for x in (tmp_path / "metrics.jsonl").open()]
    assert [n for found in notable for n, _ in found or []] == [1, 2, 4, 5, 7, 8]


def test_a_leap_of_the_loss_is_told_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(tmp_path, {10: 9.0, 30: 9.0, 40: 1.3}, 45)
    train(run)
    assert written(tmp_path) == [(30, "loss spike")]  # at step 10 nothing is usual yet
    said = capsys.readouterr().out
    assert "step 30: the loss, 9, is far above the 1.01 that is usual now" in said
    logged = {e["step"]: e for e in map(json.loads, (tmp_path / "metrics.jsonl").open())}
    assert logged[30]["notable_steps"] == [[30, "loss spike"]]
    assert not any("notable_steps" in entry for step, entry in logged.items() if step != 30)


def test_what_was_written_after_a_checkpoint_is_written_once(tmp_path: Path) -> None:
    run = start(tmp_path, {4: NAN, 7: NAN}, 8, save_every=5)
    run.model.spoils = False
    run.batch_at, real = (lambda n, part: real(n, part) if n < 7 else 1 / 0), run.batch_at  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        train(run)
    for path in checkpoint.step_files(tmp_path)[1:]:
        path.unlink()
    with (tmp_path / "bad_steps.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 8, "why')
    again = start(tmp_path, {4: NAN, 7: NAN}, 8, save_every=5)
    assert checkpoint.restore(again)
    assert again.step == 5
    again.model.spoils = False
    train(again)
    assert written(tmp_path) == [(4, "not finite"), (7, "not finite")]


def spoilt(setup: TrainingSetup, record: int) -> TrainingSetup:
    """The setup with a loss that is not finite for each sample of a record."""
    forward = setup.model.forward

    def poisoned(batch: Any) -> Any:
        losses, counts = forward(batch)
        reads = setup.strategy.hash._made[setup.run.step][1]
        bad = [n for n, read in enumerate(reads) if read.origin.number == record]
        factor = torch.ones_like(losses)
        factor[bad] = NAN
        return losses * factor, counts

    setup.model.forward = poisoned  # type: ignore[method-assign]
    return setup


def test_the_records_of_a_bad_step_are_named_with_their_files(home: Path) -> None:
    config = sft_settings(home, "spoilt", max_steps=6, epoch_questions=1, probe_questions=1)
    setup = spoilt(build_training(config), 2)
    setup.run.score = lambda step, ended: {"loss": 0.0}
    train(setup.run)
    lines = [json.loads(line) for line in (config.out / "bad_steps.jsonl").open()]
    assert lines
    assert [line["step"] for line in lines] == setup.run.state["left_out"]
    for line in lines:
        assert len(line["records"]) == 4
        for found in line["records"]:
            assert (found["loss"] is None) == (found["record"] == 2)
            files = [piece.place(0).file for piece, _ in setup.samples[found["source"]].pieces]
            assert isinstance(setup.samples[found["source"]].pieces[0][0], IndexedSource)
            assert found["file"] in map(str, files)
