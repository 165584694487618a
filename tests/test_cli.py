"""The commands' frame: help, exit status, and what is said when something ends them."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from omnitune import cli
from omnitune.cli import fine_tune, main
from omnitune.commands.making import PretrainOptions
from omnitune.config.arguments import fields_of, option
from omnitune.config.base import Config
from omnitune.config.commands import (
    CompareConfig,
    ConvertConfig,
    EvaluateConfig,
    InspectConfig,
    PlanOptions,
    ReportConfig,
)
from omnitune.config.run import RunConfig, RunOptions
from omnitune.config.sft import SftConfig
from omnitune.reporting import report
from omnitune.serving.options import chat_config
from omnitune.tiny.options import CorpusConfig, PartsConfig
from omnitune.training import sft, stopping

ROOT = Path(__file__).resolve().parents[1]
OPTIONS: dict[str, tuple[type[Config], ...]] = {
    "corpus": (CorpusConfig,),
    "parts": (PartsConfig,),
    "pretrain": (PretrainOptions, RunConfig),
    "sft": (RunOptions, SftConfig),
    "plan": (PlanOptions, SftConfig),
    "evaluate": (EvaluateConfig,),
    "inspect": (InspectConfig,),
    "convert": (ConvertConfig,),
    "report": (ReportConfig,),
    "compare": (CompareConfig,),
    "chat": (chat_config(),),
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What is said of arguments that are wrong."""
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def test_the_overview_has_every_command_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["-h"]) == 0
    out = capsys.readouterr().out
    for name in OPTIONS:
        assert f"\n  {name} " in out
    for title in ("Get data and parts", "Train", "Score", "Look", "Talk"):
        assert f"\n{title}:\n" in out
    assert "did you mean evaluate?" in refused(capsys, "evalute")


@pytest.mark.parametrize("command", OPTIONS)
@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_lists_every_option_with_its_default(
    capsys: pytest.CaptureFixture[str], command: str, asked: str
) -> None:
    assert main([command, asked]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: omnitune {command} ")
    listed = out.replace("[no-]", "")
    for config in OPTIONS[command]:
        for key in fields_of(config):
            assert key == config.positional or f"\n  {option([key])}" in listed, key
    described = " ".join(out.split())
    defaults = described.count("[default: ") + described.count("[required]")
    assert defaults >= listed.count("\n  --")


@pytest.mark.parametrize("arguments", [[], ["--help"], *([name, "--help"] for name in OPTIONS)])
def test_help_does_not_wait_for_libraries_that_it_does_not_need(arguments: list[str]) -> None:
    code = (
        "import sys; from omnitune.cli import main; "
        f"status = main({arguments}); "
        "slow = {'torch', 'transformers', 'scipy', 'pandas'} & sys.modules.keys(); "
        "sys.exit(f'imported {slow}' if slow else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: omnitune" in done.stdout


@pytest.mark.parametrize("command", OPTIONS)
def test_an_option_that_is_misspelt(capsys: pytest.CaptureFixture[str], command: str) -> None:
    config = OPTIONS[command][0]
    key = next(key for key in fields_of(config) if key != config.positional)
    file = ("--config", ROOT / "configs/thinker_tiny.json") * (command == "pretrain" != key)
    said = refused(capsys, command, *file, f"--{key}x=1")
    assert f"{option([key])}x: unknown option; did you mean {option([key])}?" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate"], "error: --ckpt-dir is required: folder or file of the model\n"),
        (["report", "--data", "x"], "error: --ckpt-dir is required: output folder of the run\n"),
        (["compare", "--html", "x"], "error: RUN ... is required: output folders of the runs\n"),
        (["pretrain"], "error: --config is required: a file per part, such as"),
        (["sft", "--config"], "error: --config: a value is missing\n"),
        (["sft", "--resume", "--overwrite"], "give one of them\n"),
        (["sft", "--config", "a", "b"], "omnitune sft takes one --config FILE"),
        (["evaluate", "--ckpt-dir", "x", "--device", "tpu"], "'cpu' or 'cuda', found 'tpu'\n"),
        (["inspect", "--max-tokens", "0"], "error: --max-tokens: must be at least 1, found 0\n"),
        (["inspect", "--strict", "maybe"], "error: --strict: must be true or false, found 'maybe'"),
        (["parts", "here"], "error: 'here' is not an option; an option looks like --checkpoints"),
        (["corpus", "--scale", "x"], "error: --scale: must be a number, found 'x'\n"),
        (["corpus", "--scale", "0", "--seed=-1"], "error: 2 problems:\n  --seed: must be at least"),
    ],
)
def test_mistakes_have_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in refused(capsys, *arguments)


@pytest.mark.parametrize("spelling", ["--ckpt_dir", "--ckpt-dir"])
@pytest.mark.parametrize("joined", [True, False])
def test_both_spellings_of_an_option(
    capsys: pytest.CaptureFixture[str], spelling: str, joined: bool
) -> None:
    given = [f"{spelling}=nowhere"] if joined else [spelling, "nowhere"]
    for command in ("evaluate", "report"):
        assert "error: nowhere" in refused(capsys, command, *given)


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
    monkeypatch.setattr(sys, "stdout", Full(BrokenPipeError()))
    assert main([name, "--help"]) == 141
    assert capsys.readouterr().err == ""


def test_help_of_pretrain_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--learning-rate" in out
    assert "--config FILE --help lists" in out


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
    assert "--seed: must be at most 9223372036854775807, found 9999" in capsys.readouterr().err
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


def test_torchrun_is_told_why_a_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "errors" / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(told))
    assert main(["sft", "--config", str(tmp_path / "none.json")]) == 2
    failure = ProcessFailure(0, 1, 2, str(told))
    assert "none.json" in failure.message["extraInfo"]["py_callstack"]  # type: ignore[index]
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_stop_together_say_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    def stop(*arguments: object) -> int:
        raise stopping.StoppedError("stop_after, 5 s", stopping.GO_ON)

    monkeypatch.setattr(cli, "_run", stop)
    monkeypatch.setenv("RANK", str(rank))
    assert main(["sft"]) == stopping.GO_ON
    assert ("stop_after" in capsys.readouterr().err) == (rank == 0)
