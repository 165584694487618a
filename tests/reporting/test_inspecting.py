"""`omnitune inspect`: one sample and histograms, in the terminal and as pages."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    read_records,
    tiny_model,
    tiny_renderer,
    tiny_tokenizer,
    write_image,
    write_source,
    write_wave,
)
from made_up import HOSTILE
from PIL import Image
from rich.console import Console

from omnitune.cli import main
from omnitune.data.audit.sample_view import SampleView, view_sample
from omnitune.data.audit.truncation import ReadLimits
from omnitune.models.loading import save_encoder, save_omni, save_thinker
from omnitune.models.parts_reading import reading_of_parts
from omnitune.reporting.histogram_charts import drawing
from omnitune.reporting.sample_lines import bars, half_blocks, loudness, print_sample, visible
from omnitune.reporting.sample_page import write_sample_page


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures and a sound, with questions."""
    data = tmp_path / "data"
    for folder in ("images", "audio"):
        (data / folder).mkdir(parents=True)
    write_image(data / "images" / "a.png", 24)
    write_wave(data / "audio" / "a.wav")
    qa = [{"question": "how many?", "answer": "2"}, {"question": HOSTILE, "answer": "\x1b[31mred"}]
    write_source(data, "image_text", [{"image": "a.png", "qa": qa, "caption": HOSTILE}])
    sound = {"audio": "a.wav", "question": "say", "answer": "hm", "transcript": "hm"}
    write_source(data, "audio_text", [sound])
    return data


@pytest.fixture
def view(data: Path) -> SampleView:
    record = {"question": "why?", "answer": "so it is"}
    samples = read_records(data, "text_only", record)
    return view_sample(samples, 0, ReadLimits(tiny_renderer(), {}, 64))


def printed(view: SampleView, **options: object) -> str:
    file = io.StringIO()
    print_sample(view, Console(file=file, width=80, **options))  # type: ignore[arg-type]
    return file.getvalue()


def test_colours_in_a_terminal_marks_elsewhere(view: SampleView) -> None:
    coloured = printed(view, force_terminal=True)
    plain = printed(view)
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    assert re.search(r"<\|assistant\|>\[.*\|<\|end\|>\]\n", plain)
    assert "\x1b[" not in printed(view, force_terminal=True, no_color=True).replace(
        "\x1b[1m", ""
    ).replace("\x1b[0m", "")
    assert "the end of turn is trained" in plain


@pytest.mark.parametrize("name", ["image_text/0", "audio_text/0"])
def test_a_sample_is_shown(
    data: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no parts
    page = tmp_path / "page.html"
    assert main(["inspect", str(data), "--sample", name, "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert "words in place of tokens" in told
    assert f"sample: {name}" in told
    assert "\x1b" not in told
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "http" not in html
    assert "\x1b" not in html
    assert html.count('class="panel form"') == (3 if name.startswith("image") else 1)
    assert ('class="wave"' in html) == name.startswith("audio")
    assert "data:image/" in html


def test_a_model_s_own_tokens(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_omni(tmp_path / "omni.pt", tiny_model(), tiny_renderer())
    model = ["--ckpt_dir", str(tmp_path / "omni.pt")]
    assert main(["inspect", str(data), "--sample", "image_text/0", *model]) == 0
    told = capsys.readouterr().out
    assert "<image> x 4" in told
    assert "note:" not in told


def test_the_tokens_of_the_parts_that_are_there(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints"
    model = tiny_model()
    save_thinker(folder / "thinker_tiny" / "thinker_best.pt", model, tiny_tokenizer())
    state, config = model.encoders["image"].state_dict(), model.modalities["image"].config
    save_encoder(folder / "vision_tiny" / "vision.pt", "image", config, state)
    assert main(["inspect", str(data), "--sample", "image_text/0"]) == 0
    told = capsys.readouterr().out
    assert "tokens of checkpoints/thinker_tiny/thinker_best.pt" in told
    assert "<image> x 4" in told
    assert reading_of_parts(tmp_path / "none.pt", {}, 1) is None


def test_histograms(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.html"
    assert main(["inspect", str(data), "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"seconds a sound +█ +0.5 to 0.5", told)
    assert re.search(r"pixels a picture +█ +576 to 576", told)
    assert "2 answers, 2 different" in told
    assert "\x1b" not in told
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 4
    assert "<script" not in html


def test_each_bar_has_its_height() -> None:
    chart = {"counts": [4, 0, 1], "edges": [0, 1, 2, 3]}
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" rx', drawing(chart, "x"))]
    assert heights[0] > heights[2] > heights[1] == 0
    assert "<title>0 to 1: 4</title>" in drawing(chart, "x")


def test_hostile_words_stay_words(data: Path, tmp_path: Path) -> None:
    record = {"id": HOSTILE, "question": HOSTILE, "answer": HOSTILE}
    samples = read_records(data, "text_only", record)
    seen = view_sample(samples, 0, ReadLimits(tiny_renderer(), {}, 64))
    html = write_sample_page(seen, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;" in html


def test_control_characters_are_letters() -> None:
    assert visible("a\x1b[31m\tb\n\x07") == "a\\u001b[31m\tb\n\\u0007"


def test_loudness_and_bars(tmp_path: Path) -> None:
    from omnitune.media.registry import MEDIA

    sound = MEDIA["audio"].sound(write_wave(tmp_path / "a.wav"))
    peaks = loudness(sound, 10)
    assert len(peaks) == 10
    assert peaks.max() == 1
    assert bars([0, 0.5, 1]) == "▁▅█"


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (48, 48), (200, 10), (10, 200)])
def test_half_blocks(size: tuple[int, int]) -> None:
    picture = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    lines = list(half_blocks(picture, 20))
    assert lines
    assert max(line.cell_len for line in lines) <= 20


def test_mistakes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*words: str) -> str:
        assert main(["inspect", str(data), *words]) == 2
        return capsys.readouterr().err

    assert "leave it out with --sample" in error("--sample", "0", "--json", str(tmp_path / "a"))
    assert "say which one: image_text/0, audio_text/0" in error("--sample", "0")
    assert "is a folder, expected a file to write" in error("--html", str(tmp_path))


def test_sources_of_a_configuration_are_shown_as_a_run_reads_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("what,is\nred?,yes\nblue?,no\n", encoding="utf-8")
    columns = {"question": "what", "answer": "is"}
    sources = {"mine": {"path": "rows.csv", "columns": columns, "limit": 1}}
    values = {"data_dir": str(data), "sources": sources}
    (tmp_path / "run.json").write_text(json.dumps(values), encoding="utf-8")
    assert main(["inspect", "run.json", "--sample", "mine/0"]) == 0
    assert "red?" in capsys.readouterr().out
    assert main(["inspect", "run.json"]) == 0
    out = capsys.readouterr().out
    assert "mine" in out
    assert "1 record" in out
    assert main(["inspect", "run.json", "--sample", "mine/1"]) == 2
    assert "run.json holds no sample of this number" in capsys.readouterr().err
