"""Mistakes of a benchmark's user are a sentence and a status, not a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import inference, scale, scores, sft, strategies
from benchmarks.command import Arguments, command, numbers
from omnitune.sample import UserError


def test_a_mistake_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Arguments] = []

    @command
    def main(arguments: Arguments) -> None:
        asked.append(arguments)
        if arguments:
            raise UserError("no such folder")

    assert (main(), main(["x"])) == (0, 2)
    assert asked == [None, ["x"]]
    assert capsys.readouterr().err == "error: no such folder\n"


def test_numbers_are_read_or_refused() -> None:
    assert numbers("--seeds", "0,12") == [0, 12]
    with pytest.raises(UserError, match=r"--seeds 0,a: expected whole numbers"):
        numbers("--seeds", "0,a")


@pytest.mark.parametrize(
    ("main", "option"),
    [(scale.main, "--sizes"), (scores.main, "--seeds"), (strategies.main, "--seeds")],
)
def test_what_is_no_number_is_refused(
    main: Callable[..., int], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([option, "many"]) == 2
    assert f"{option} many" in capsys.readouterr().err


def test_a_workload_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert sft.main(["--workloads", "tiny,huge"]) == 2
    assert "there is no 'huge'; there are tiny" in capsys.readouterr().err


@pytest.mark.parametrize("main", [inference.main, sft.main])
def test_a_folder_that_is_not_there_is_refused(
    main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
