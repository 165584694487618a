"""The way with one's own data of README and docs/data.md, followed to the letter."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from omnitune.cli import main
from omnitune.config.settings import load_config
from omnitune.config.sft import SftConfig
from omnitune.data.reading import read_available

ROOT = Path(__file__).parent.parent
PARTS = {"thinker": "thinker_tiny/thinker_best.pt", "image": "vision_tiny/vision.pt"}
PARTS["audio"] = "audio_enc_tiny/audio_enc.pt"
# The commands that users type, as those of the package.
PROGRAMS = {
    ("omnitune",): [],
    ("python", "sft_omni.py"): ["sft"],
    ("python", "infer_chat.py"): ["chat"],
}
QUICK = ["--max-steps", "4", "--batch-size", "4", "--device", "cpu"]


def blocks(page: str, title: str, language: str) -> list[str]:
    """The examples in a language of a section of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    section = re.split(r"\n## ", text.split(f"## {title}\n")[1])[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def arguments(line: str) -> list[str]:
    """A line of the shell as arguments of ``omnitune``."""
    words = shlex.split(line)
    for program, command in PROGRAMS.items():
        if tuple(words[: len(program)]) == program:
            return command + words[len(program) :]
    raise AssertionError(line)


def test_every_record_of_the_documents_is_read(tmp_path: Path) -> None:
    settings, record = blocks("README.md", "Your own data", "json")
    (tmp_path / "my_run.json").write_text(settings)
    config = load_config(SftConfig, tmp_path / "my_run.json", [])
    assert config.source_names == ["pictures", "speech"]
    own = tmp_path / "own.json"
    own.write_text(record)
    [samples] = read_available(own).values()
    assert [sample.task for sample in samples] == ["image_qa", "transcription"]
    records = blocks("docs/data.md", "Records", "json")
    assert len(records) == 5
    for n, text in enumerate(records):
        name = "images/image_qa.json" if "image" in text else "audio/audio_qa.json"
        name = name if "image" in text or "audio" in text else "text/conversations.json"
        path = tmp_path / str(n) / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        [samples] = read_available(tmp_path / str(n)).values()
        assert len(samples) == len(json.loads(text))


@pytest.mark.slow
def test_from_own_data_to_an_answer(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for part, place in PARTS.items():
        (tmp_path / "checkpoints" / place).parent.mkdir(parents=True)
        shutil.copy(home / f"{part}.pt", tmp_path / "checkpoints" / place)
    example = ("docs/data.md", "A complete example")
    [script], [settings], [commands] = (blocks(*example, name) for name in ("python", "json", "sh"))
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
