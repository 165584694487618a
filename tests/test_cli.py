"""The commands' frame: help, exit status, and what is said when something ends them."""

import io
import sys
from pathlib import Path

import pytest

from omnitune import cli
from omnitune.cli import fine_tune, main
from omnitune.config import SftConfig
from omnitune.reporting import report
from omnitune.training import sft


class Full(io.TextIOBase):
    """An output that takes nothing, as /dev/full or a pipe that nobody reads."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("name", ["--help", "sft"])
def test_help_that_nobody_reads_is_no_run_that_was_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(cli.os, "dup2", lambda *_: None)
    monkeypatch.setattr(sys, "stdout", Full(BrokenPipeError()))
    assert main([name, "--help"]) == 141
    assert capsys.readouterr().err == ""


def test_help_of_pretrain_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--learning-rate" in out
    assert "--config FILE --help lists those of its stage" in out


def test_help_on_a_full_disk_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full(OSError(28, "No space left on device")))
    assert main(["--help"]) == 2
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"),
    ],
)
def test_lack_of_memory_is_told_with_the_mend(error: Exception) -> None:
    assert "not enough memory; take a smaller batch_size" in cli.explain(error)


@pytest.mark.parametrize("command", ["sft", "corpus"])
def test_seed_that_no_generator_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = "--output-dir" if command == "sft" else "--data-dir"
    assert main([command, "--seed", "9" * 30, folder, str(tmp_path / "new")]) == 2
    assert "seed: Input should be less than or equal to" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("results", "there", "shown"),
    [
        ({"loss": 1.0}, True, ["scores", "model: run/omni.pt", "report: page"]),
        (None, True, []),  # the finished run is there
        (None, False, ["report: page"]),  # it was stopped before its report was written
    ],
)
def test_scores_and_report_follow_the_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    results: dict[str, float] | None,
    there: bool,
    shown: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sft, "finetune", lambda config, **flags: results)
    monkeypatch.setattr(report, "scores_table", lambda found: ["scores"])
    monkeypatch.setattr(report, "write_report", lambda out, data_dir: "page")
    config = SftConfig(output_dir=Path("run"))
    config.out.mkdir()
    if there:
        (config.out / report.REPORT_FILE).touch()
    fine_tune(config)
    assert capsys.readouterr().out.splitlines()[1:] == shown
