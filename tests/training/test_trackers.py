"""Trackers: asked for, installed or not, resumed, and failing without harm to the run."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from omnitune.config.sft import SftConfig
from omnitune.sample import UserError
from omnitune.training.progress import RunLog
from omnitune.training.trackers import Trackers, check_installed, run_id


class FakeRun:
    def __init__(self, **options: Any) -> None:
        self.options = options
        self.rows: list[tuple[dict[str, float], int | None]] = []
        self.metrics: list[tuple[str, str]] = []
        self.finished = 0

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.rows.append((values, step))

    def finish(self) -> None:
        self.finished += 1


class FakeModule(ModuleType):
    """Stands for wandb and for trackio: what each is called with is kept."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.runs: list[FakeRun] = []
        self.failures: list[Exception] = []

    def init(self, **options: Any) -> FakeRun:
        if self.failures:
            raise self.failures.pop()
        self.runs.append(FakeRun(**options))
        return self.runs[-1]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeModule]:
    modules = {name: FakeModule(name) for name in ("wandb", "trackio")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.delenv(f"{name.upper()}_PROJECT", raising=False)
    return modules


def log_of(folder: Path, *trackers: str, groups: int = 1) -> RunLog:
    config = SftConfig(output_dir=folder, trackers=list(trackers), seed=5)  # type: ignore[arg-type]
    return RunLog(config, ["all"] * groups, lambda step, entry: [], 1)


def one_moment(log: RunLog, step: int, done: int = 0) -> None:
    with log.training_bar(10, done):
        log.step([6.0], [2.0], 0.1, learning_rate=0.5)
        log.scores(step, 1, {"loss": 1.5, "tasks": {"text": {"loss": 2.5}}}, epoch_ended=True)


def test_each_takes_the_same_numbers(tmp_path: Path, fakes: dict[str, FakeModule]) -> None:
    one_moment(log_of(tmp_path / "mine", "tensorboard", "wandb", "trackio"), 4)
    expected = {
        "train/loss": 3.0,
        "train/learning_rate": 0.5,
        "validation/loss": 1.5,
        "validation/tasks/text/loss": 2.5,
    }
    (wandb,), (trackio,) = fakes["wandb"].runs, fakes["trackio"].runs
    ((row, at),) = wandb.rows
    assert expected.items() <= row.items()
    assert (row["step"], at, wandb.metrics) == (4, None, [("*", "step")])
    ((row, at),) = trackio.rows
    assert expected.items() <= row.items()
    assert at == 4
    assert (wandb.finished, trackio.finished) == (1, 1)
    board = EventAccumulator(str(tmp_path / "mine" / "tensorboard")).Reload()
    assert {name: board.Scalars(name)[0].value for name in expected} == expected


def test_the_run_is_named_after_its_folder(tmp_path: Path, fakes: dict[str, FakeModule]) -> None:
    one_moment(log_of(tmp_path / "mine", "wandb", "trackio"), 4)
    wandb, trackio = (fakes[name].runs[0].options for name in ("wandb", "trackio"))
    assert (wandb["project"], wandb["name"], wandb["dir"]) == (
        "omnitune", "mine", str(tmp_path / "mine"),
    )  # fmt: skip
    assert wandb["config"]["seed"] == trackio["config"]["seed"] == 5
    assert trackio["name"].startswith("mine-")
    json.dumps([wandb, trackio])  # plain values only


def test_a_resumed_run_goes_on_in_the_same(tmp_path: Path, fakes: dict[str, FakeModule]) -> None:
    one_moment(log_of(tmp_path / "mine", "wandb", "trackio"), 4)
    one_moment(log_of(tmp_path / "mine", "wandb", "trackio"), 8, done=4)
    one_moment(log_of(tmp_path / "other", "wandb", "trackio"), 4)
    for module, key in (("wandb", "id"), ("trackio", "name")):
        first, second, other = (run.options for run in fakes[module].runs)
        assert first[key] == second[key] != other[key]
        assert second["resume"] == "allow"


def test_project_can_be_named(
    tmp_path: Path, fakes: dict[str, FakeModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "eyes and ears")
    one_moment(log_of(tmp_path / "mine", "wandb"), 1)
    assert fakes["wandb"].runs[0].options["project"] == "eyes and ears"


def test_without_a_network_the_run_is_kept_offline(
    tmp_path: Path, fakes: dict[str, FakeModule], capsys: pytest.CaptureFixture[str]
) -> None:
    fakes["wandb"].failures = [RuntimeError("no API key configured")]
    one_moment(log_of(tmp_path / "mine", "wandb"), 1)
    (run,) = fakes["wandb"].runs
    assert run.options["mode"] == "offline"
    assert len(run.rows) == 1
    assert "wandb sync" in capsys.readouterr().err


def test_a_failing_tracker_is_dropped_and_the_others_go_on(
    tmp_path: Path, fakes: dict[str, FakeModule]
) -> None:
    said: list[str] = []
    fakes["wandb"].failures = [RuntimeError("refused"), RuntimeError("refused again")]
    trackers = Trackers(["wandb", "trackio"], tmp_path, {}, 0, said.append)
    trackers.write(1, {"a": 1.0})
    (run,) = fakes["trackio"].runs
    run.log = None  # type: ignore[assignment]
    trackers.write(2, {"a": 1.0})
    trackers.write(3, {"a": 1.0})
    trackers.close()
    assert [line.split()[0] for line in said] == ["wandb", "trackio"]
    assert len(run.rows) == 1


def test_an_interrupt_is_no_failure_of_the_tracker(
    tmp_path: Path, fakes: dict[str, FakeModule]
) -> None:
    fakes["trackio"].failures = [KeyboardInterrupt()]  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt):
        Trackers(["trackio"], tmp_path, {}, 0, print)


def test_what_is_not_installed_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(["tensorboard"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    with pytest.raises(UserError, match="python -m pip install trackio"):
        check_installed(["trackio"])


def test_none_at_all(tmp_path: Path) -> None:
    one_moment(log_of(tmp_path / "mine"), 1)
    assert (tmp_path / "mine" / "metrics.jsonl").exists()
    assert not (tmp_path / "mine" / "tensorboard").exists()


def test_a_damaged_name_is_replaced(tmp_path: Path) -> None:
    first = run_id(tmp_path)
    assert run_id(tmp_path) == first
    (tmp_path / "trackers.json").write_text('{"id": 3}', encoding="utf-8")
    assert run_id(tmp_path) != first
