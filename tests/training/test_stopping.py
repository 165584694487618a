"""Signals and a time limit end a run after the step under way, with a status of their own."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from loop_helpers import eight_samples, settings, start
from pydantic import ValidationError

from omnitune import cli
from omnitune.config.base import seconds_of
from omnitune.config.run import RunConfig
from omnitune.sample import Sample
from omnitune.training import stopping
from omnitune.training.checkpoint import step_files
from omnitune.training.loop import train
from omnitune.training.output_dir import MAY_DIFFER_ON_RESUME

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return eight_samples(tmp_path_factory.mktemp("media"))


def signalled_at(run: Any, step: int, *numbers: int) -> None:
    """Sends signals in the middle of a step's forward pass."""
    forward = run.model.forward

    def interrupted(batch: Any) -> Any:
        if run.step == step:
            for number in numbers:
                signal.raise_signal(number)
        return forward(batch)

    run.model.forward = interrupted


@pytest.mark.parametrize("number", list(STATUS))
def test_the_first_signal_lets_the_step_end_and_saves(
    samples: list[Sample], tmp_path: Path, number: signal.Signals
) -> None:
    before = {signum: signal.getsignal(signum) for signum in STATUS}
    run = start(settings(tmp_path, batch_size=2, max_steps=4), samples)
    signalled_at(run, 1, number)
    with pytest.raises(stopping.StoppedError) as stopped:
        train(run)
    assert stopped.value.status == STATUS[number]
    assert [path.name for path in step_files(tmp_path)] == ["omni_step_2.pt"]
    assert {signum: signal.getsignal(signum) for signum in STATUS} == before


def test_the_second_signal_stops_at_once(samples: list[Sample], tmp_path: Path) -> None:
    """The step under way is thrown away; the one before is saved."""
    run = start(settings(tmp_path, batch_size=2, max_steps=4), samples)
    signalled_at(run, 1, signal.SIGUSR1, signal.SIGTERM)
    with pytest.raises(stopping.StoppedError) as stopped:
        train(run)
    assert stopped.value.status == 143
    assert [path.name for path in step_files(tmp_path)] == ["omni_step_1.pt"]


def test_a_signal_that_several_processes_get_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ECHO", 3600.0)  # however long this process is kept waiting
    several = stopping.Stopping(several=True)
    several.note(signal.SIGTERM)
    several.note(signal.SIGTERM)
    assert several()
    several.asked[0] = (signal.SIGTERM, time.monotonic() - 2 * stopping.ECHO)
    with pytest.raises(stopping.StoppedError):
        several.note(signal.SIGTERM)


def test_a_run_whose_time_is_up_saves_and_stops(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_begun", [])
    run = start(settings(tmp_path, batch_size=2, max_steps=400, stop_after="0.2s"), samples)
    with pytest.raises(stopping.StoppedError, match="stop_after") as stopped:
        train(run)
    assert stopped.value.status == 75
    assert [path.name for path in step_files(tmp_path)] == [f"omni_step_{run.step}.pt"]
    assert 0 < run.step < 400


def test_the_last_step_is_not_stopped_by_the_clock(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is trained: what is left to do is worth the wait."""
    monkeypatch.setattr(stopping, "_begun", [])
    run = start(settings(tmp_path, max_steps=1, stop_after="1h"), samples)
    late = iter([False, True])
    monkeypatch.setattr(stopping.Stopping, "late", property(lambda self: next(late)))
    train(run)
    assert run.step == 1


def test_time_counts_from_where_the_command_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_begun", [])
    stopping.begin()
    stopping._begun[0] -= 100
    assert stopping.Stopping(99)()
    assert not stopping.Stopping(101)()
    assert not stopping.Stopping()()


def test_another_thread_hears_no_signals(samples: list[Sample], tmp_path: Path) -> None:
    run = start(settings(tmp_path, max_steps=1), samples)
    thread = threading.Thread(target=train, args=(run,))
    thread.start()
    thread.join()
    assert run.step == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("2 h", 7200)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert RunConfig(stop_after=text).stop_after_seconds == seconds


@pytest.mark.parametrize("text", ["", "h", "0", "-1h", "2 days", "1h30m", "nan", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        RunConfig(stop_after=text)
    assert "stop_after" in MAY_DIFFER_ON_RESUME


@pytest.mark.parametrize("number", list(STATUS))
def test_the_command_ends_with_a_status_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """Whatever it is doing: reading data, caching features, scoring."""
    before = {signum: signal.getsignal(signum) for signum in STATUS}
    monkeypatch.setattr(cli, "_run", lambda *_: signal.raise_signal(number))
    try:
        assert cli.main(["sft"]) == STATUS[number]
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert "the same command with --resume goes on" in capsys.readouterr().err


@pytest.mark.parametrize("several", [False, True])
def test_a_signal_that_is_sent_on_to_a_process_that_ends_is_no_second_one(
    monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    """torchrun sends on what each process has had already."""
    before = {signum: signal.getsignal(signum) for signum in STATUS}
    monkeypatch.setenv("WORLD_SIZE", "2" if several else "1")
    monkeypatch.setattr(cli, "_run", lambda *_: signal.raise_signal(signal.SIGUSR1))
    try:
        cli.main(["sft"])
        for number in STATUS:
            assert (signal.getsignal(number) is signal.SIG_IGN) == several
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def test_a_library_that_makes_another_error_of_a_signal_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def library(*_: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise TypeError("incompatible arguments") from None

    before = {signum: signal.getsignal(signum) for signum in STATUS}
    monkeypatch.setattr(cli, "_run", library)
    try:
        assert cli.main(["sft"]) == 143
        monkeypatch.setattr(cli, "_run", lambda *_: 1 / 0)
        assert cli.main(["sft"]) == 1  # the next command's own
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert "stopped (SIGTERM)" in capsys.readouterr().err
