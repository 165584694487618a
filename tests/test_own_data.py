"""README's way with one's own data, followed to the letter, with parts that are tiny."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from omnitune.cli import main

README = Path(__file__).parent.parent / "README.md"
PARTS = {"thinker": "thinker_tiny/thinker_best.pt", "image": "vision_tiny/vision.pt"}
PARTS["audio"] = "audio_enc_tiny/audio_enc.pt"
# The commands that users type, as those of the package.
PROGRAMS = {
    ("omnitune",): [],
    ("python", "sft_omni.py"): ["sft"],
    ("python", "infer_chat.py"): ["chat"],
}
QUICK = ["--max-steps", "4", "--batch-size", "4", "--device", "cpu", "--workers", "1"]


def blocks(language: str) -> list[str]:
    """README's examples in a language, of the section on one's own data."""
    section = README.read_text(encoding="utf-8").split("## Your own data")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def arguments(line: str) -> list[str]:
    """A line of the shell as arguments of ``omnitune``."""
    words = shlex.split(line)
    for program, command in PROGRAMS.items():
        if tuple(words[: len(program)]) == program:
            return command + words[len(program) :]
    raise AssertionError(line)


@pytest.mark.slow
def test_readme_from_own_data_to_an_answer(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for part, place in PARTS.items():
        (tmp_path / "checkpoints" / place).parent.mkdir(parents=True)
        shutil.copy(home / f"{part}.pt", tmp_path / "checkpoints" / place)
    [script], [settings], [commands] = blocks("python"), blocks("json"), blocks("sh")
    exec(script, {})
    assert len(list(Path("my_data/images").glob("*.png"))) == 30
    Path("my_run.json").write_text(settings)
    inspect, train, ask = map(arguments, commands.splitlines())
    assert main(inspect) == 0
    told = capsys.readouterr().out
    assert "image_text\n  train: " in told
    assert told.count("  validation: ") >= 2
    assert "broken media: 0" in told
    assert main([*train, *QUICK]) == 0
    assert main(ask) == 0
    results = json.loads(Path("checkpoints/my_run/results.json").read_text())
    assert {"image_qa", "audio_qa"} <= results["tasks"].keys()
