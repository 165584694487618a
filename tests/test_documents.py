"""Examples in the documents run."""

import re
from pathlib import Path

import pytest
from helpers import tiny_model, tiny_renderer, write_image, write_wave

from omnitune.models.export import write_standard
from omnitune.models.loading import save_omni

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_standard_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    section = text.partition("## The standard model")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    write_standard(tmp_path / "exported", tiny_model(), tiny_renderer())
    write_image(tmp_path / "picture.png")
    write_wave(tmp_path / "question.wav")
    monkeypatch.chdir(tmp_path)
    exec(found[1], {})
    assert capsys.readouterr().out


def test_three_lines_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text.partition("## The API")[0], re.DOTALL)
    short = tiny_model(max_positions=64)  # so that answers are
    save_omni(tmp_path / "checkpoints/omni_sft_tiny/omni.pt", short, tiny_renderer())
    write_image(tmp_path / "x.png")
    write_wave(tmp_path / "x.wav")
    monkeypatch.chdir(tmp_path)
    exec("".join(blocks), {})
    assert capsys.readouterr().out
