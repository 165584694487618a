"""The log of a run: whole lines, also where there is no room or a run is resumed."""

import json
import sys
from pathlib import Path

import pytest

from omnitune.config.sft import SftConfig
from omnitune.console import progress_bar
from omnitune.training.progress import RunLog


def log_of(folder: Path) -> RunLog:
    return RunLog(SftConfig(output_dir=folder), ["all"], lambda step, entry: [], 1)


def steps(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_line_without_room_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_of(tmp_path)
    log.scores(1, 1, {}, False)
    whole = json.dumps
    with monkeypatch.context() as patch:

        def half(entry: object) -> str:
            with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(whole(entry)[:9])
            raise OSError(28, "No space left on device")

        patch.setattr("omnitune.training.progress.json.dumps", half)
        log.scores(2, 1, {}, False)
    assert "this line is lost" in capsys.readouterr().out
    log.scores(3, 1, {}, False)
    assert steps(tmp_path) == [1, 3]


def test_resuming_without_room_keeps_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(tmp_path)
    for step in (1, 2, 3):
        log.scores(step, 1, {}, False)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("omnitune.storage.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            log.truncate(2)
    assert steps(tmp_path) == [1, 2, 3]
    log.truncate(2)
    assert steps(tmp_path) == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_output_that_goes_to_a_full_disk_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        patch.setattr(sys, "stderr", full)
        log_of(tmp_path).say("a line")
        with progress_bar("training", 10) as advance:
            advance(5)
    with pytest.raises(OSError, match="No space"):
        full.close()
