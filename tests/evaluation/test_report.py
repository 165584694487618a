"""The report of a made-up run: complete, with parts missing, and with hostile text in it."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from omnitune.evaluation import curves, page
from omnitune.evaluation.page import Exhibit
from omnitune.evaluation.report import (
    choose_gallery,
    choose_pictures,
    is_right,
    score_rows,
    scores_table,
    splits_of,
    write_report,
)
from omnitune.evaluation.scoreboard import Prediction
from omnitune.sample import Media, UserError

HOSTILE = "<script>alert(1)</script> & $x"
IMAGE_QA = {
    "loss": 0.4,
    "token_acc": 0.9,
    "exact_match": 0.5,
    "kinds": {"count": 0.25, "color": 0.75},
    "questions": 1234,
}
RESULTS: dict[str, Any] = {
    "loss": 0.5,
    "token_acc": 0.91,
    "text_acc": 0.875,
    "image_qa_acc": 0.5,
    "audio_wer": 0.0525,
    "tasks": {
        "text": {"loss": 0.6, "token_acc": 0.875, "questions": 20},
        "image_qa": IMAGE_QA,
        "transcription": {"loss": 0.1, "token_acc": 0.95, "wer": 0.0525, "questions": 7},
    },
    "splits": {
        "test_voices": {
            "loss": 0.2,
            "tasks": {"transcription": {"loss": 0.2, "wer": 1.25, "questions": 3}},
        }
    },
}


def entry(step: int, epoch_ended: bool, without: str = "") -> dict[str, Any]:
    scores = {"loss": 2 / step, "text_acc": 0.8, "image_qa_acc": 0.5, "audio_wer": 30 / step}
    return {
        "step": step,
        "epoch": 1,
        "epoch_ended": epoch_ended,
        "train": {"loss": 1 / step, "sources": {}, "grad_norm": 1.0},
        "validation": {name: score for name, score in scores.items() if name != without},
    }


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps([{**r, "split": "test"} for r in records]), encoding="utf-8")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("images", "audio"):
        (folder / name).mkdir(parents=True)
    for n, colour in enumerate(("red", "blue")):
        Image.new("RGB", (32, 24), colour).save(folder / "images" / f"{n}.png")
    wave = 0.1 * np.sin(np.arange(8000) / 10)
    soundfile.write(folder / "audio" / "0.wav", wave, 16_000)
    pairs = [
        {"question": "what color is it?", "answer": "red", "kind": "color"},
        {"question": "how many are there?", "answer": "1", "kind": "count"},
    ]
    images = [
        {"id": "i0", "image": "0.png", "qa": pairs},
        {"id": "i1", "image": "1.png", "question": "is it blue?", "answer": "yes", "kind": "yes"},
    ]
    write_records(folder / "images" / "image_qa.json", images)
    spoken = {"id": "a0", "audio": "0.wav", "question": "what is said?", "answer": "hello there"}
    write_records(folder / "audio" / "audio_qa.json", [{**spoken, "task": "transcription"}])
    return folder


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "my_model"
    folder.mkdir()
    write_lines(folder / "metrics.jsonl", [entry(10, False), entry(20, True), entry(30, False)])
    (folder / "results.json").write_text(json.dumps(RESULTS), encoding="utf-8")
    config = {"seed": 7, "data_mix": {"text_only": 0.4}, "data_dir": "data/<mine>"}
    (folder / "run.json").write_text(json.dumps({"config": config}), encoding="utf-8")
    answers = [
        ("i0#0", "image_qa", "color", "red", "The red!"),
        ("i0#1", "image_qa", "count", "1", HOSTILE),
        ("i1", "image_qa", "yes", "yes", "yes"),
        ("a0", "transcription", "transcription", "hello there", "hello bear"),
    ]
    lines = [dict(zip(Prediction.__dataclass_fields__, a, strict=True)) for a in answers]
    write_lines(folder / "predictions.jsonl", lines)
    return folder


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the seconds of drawing where a test does not look at a drawing."""
    monkeypatch.setattr(curves, "draw_curves", lambda entries, path: None)
    monkeypatch.setattr(curves, "curve_drawings", lambda entries: [])
    monkeypatch.setattr(curves, "draw_answers", lambda exhibits, path: None)


def read_page(run_dir: Path, data_dir: Path) -> str:
    path = write_report(run_dir, data_dir)
    assert path == run_dir / "report.html"
    return path.read_text(encoding="utf-8")


def cards(html: str) -> list[str]:
    return re.findall(r"<article.*?</article>", html, flags=re.DOTALL)


def test_page_needs_no_network(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert not re.search(r"<(script|link|iframe)|@import", html)
    assert all(s.startswith("data:") for s in re.findall(r'src="([^"]*)"', html))
    assert all(s.startswith("#") for s in re.findall(r'href="([^"]*)"', html))


@pytest.mark.usefixtures("no_drawing")
def test_media_are_inside_the_page(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    assert len(pictures) == 3
    assert {base64.b64decode(p) for p in pictures} == {
        (data_dir / "images" / name).read_bytes() for name in ("0.png", "1.png")
    }
    (sound,) = re.findall(r'src="data:audio/wav;base64,([^"]*)"', html)
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
    assert (len(wave), rate) == (8000, 16_000)


@pytest.mark.usefixtures("no_drawing")
def test_everything_is_escaped(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x" in html
    assert "data/<wbr>&lt;mine&gt;" in html


def test_page_shows_what_there_is(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    assert "<h1>my_model</h1>" in html
    for value in ("0.500", "87.5 %", "50.0 %", "5.2 %"):
        assert f"<dd>{value}</dd>" in html
    assert html.count("<svg") == 4
    for text in ("test_<wbr>voices", "125.0&nbsp;%", "1,234", "data_<wbr>mix.<wbr>text_<wbr>only"):
        assert text in html
    assert "prefers-color-scheme:dark" in html
    assert "2 of 4 generated answers are right" in html


def test_names_inside_the_drawings_are_unique(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    names = re.findall(r'\sid="([^"]*)"', html)
    assert names
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', html)) <= set(names)


@pytest.mark.usefixtures("no_drawing")
def test_wrong_answers_come_first(run_dir: Path, data_dir: Path) -> None:
    verdicts = re.findall(r'class="verdict">(\S+ \w+)<', read_page(run_dir, data_dir))
    assert verdicts == ["✗ wrong", "✗ wrong", "✓ right", "✓ right"]


@pytest.mark.usefixtures("no_drawing")
def test_answers_find_their_questions(run_dir: Path, data_dir: Path) -> None:
    html = read_page(run_dir, data_dir)
    (card,) = [card for card in cards(html) if "i0#0" in card]
    assert "what color is it?" in card
    assert "how many" not in card


@pytest.mark.usefixtures("no_drawing")
def test_a_sample_id_alone_is_enough(run_dir: Path, data_dir: Path) -> None:
    """Where the number of the question is missing, task, kind and reference tell which it is."""
    line = {"id": "i0", "task": "image_qa", "kind": "count", "reference": "1", "answer": "2"}
    write_lines(run_dir / "predictions.jsonl", [line, {**line, "reference": "not in the data"}])
    known, unknown = sorted(cards(read_page(run_dir, data_dir)), key=lambda card: "not in" in card)
    assert "how many are there?" in known
    assert "<img" in known
    assert "<img" not in unknown


def test_pictures_are_valid(run_dir: Path, data_dir: Path) -> None:
    write_report(run_dir, data_dir)
    for name in ("curves.png", "answers.png"):
        with Image.open(run_dir / name) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width > 500


@pytest.mark.usefixtures("no_drawing")
def test_without_predictions(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "predictions.jsonl").unlink()
    (run_dir / "answers.png").write_bytes(b"of an earlier report")
    html = read_page(run_dir, tmp_path / "no data either")
    assert "no predictions.jsonl" in html
    assert not (run_dir / "answers.png").exists()


@pytest.mark.usefixtures("no_drawing")
def test_without_data(run_dir: Path, tmp_path: Path) -> None:
    html = read_page(run_dir, tmp_path / "gone")
    assert "no such data folder" in html
    assert len(cards(html)) == 4
    assert "<img" not in html


def test_without_images(run_dir: Path, data_dir: Path) -> None:
    (data_dir / "images" / "image_qa.json").unlink()
    entries = [entry(10, False, "image_qa_acc"), entry(20, True, "image_qa_acc")]
    write_lines(run_dir / "metrics.jsonl", entries)
    results = {"loss": 0.5, "tasks": {"text": {"loss": 0.6, "token_acc": 0.875}}}
    (run_dir / "results.json").write_text(json.dumps(results), encoding="utf-8")
    html = read_page(run_dir, data_dir)
    assert html.count("<svg") == 3
    assert "image QA" not in html
    assert not (run_dir / "answers.png").exists()


def test_with_next_to_nothing(run_dir: Path, data_dir: Path) -> None:
    for name in ("run.json", "predictions.jsonl"):
        (run_dir / name).unlink()
    (run_dir / "results.json").write_text("{}", encoding="utf-8")
    (run_dir / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "tra', encoding="utf-8")
    html = read_page(run_dir, data_dir)
    assert "no points to draw" in html
    assert "holds no scores" in html


def test_unreadable_medium_is_named(run_dir: Path, data_dir: Path) -> None:
    (data_dir / "images" / "1.png").write_bytes(b"no image")
    html = read_page(run_dir, data_dir)
    assert "(image: cannot be shown)" in html
    assert (run_dir / "answers.png").exists()


@pytest.mark.usefixtures("no_drawing")
def test_large_media_are_kept_small(
    run_dir: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(data_dir / "images" / "0.png")
    monkeypatch.setattr(page, "SOUND_BUDGET", 1000)
    html = read_page(run_dir, data_dir)
    assert "sound left out" in html
    picture = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', html)[0]
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (256, 171)


@pytest.mark.parametrize("name", ["metrics.jsonl", "results.json"])
def test_missing_file_names_the_command(run_dir: Path, data_dir: Path, name: str) -> None:
    (run_dir / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file; `python sft_omni\.py"):
        write_report(run_dir, data_dir)


def test_empty_metrics_are_an_error(run_dir: Path, data_dir: Path) -> None:
    (run_dir / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="holds no scores yet"):
        write_report(run_dir, data_dir)


def test_table() -> None:
    assert scores_table(RESULTS) == [
        "test split:",
        "  loss                     0.500",
        "  text token accuracy     87.5 %",
        "  image QA exact match    50.0 %",
        "  transcription WER        5.2 %",
        "",
        "task           score                test  test_voices",
        "-----------------------------------------------------",
        "text           token accuracy     87.5 %            –",
        "               loss                0.600            –",
        "               questions              20            –",
        "image_qa       exact match        50.0 %            –",
        "               token accuracy     90.0 %            –",
        "               loss                0.400            –",
        "               questions           1,234            –",
        "transcription  WER                 5.2 %      125.0 %",
        "               token accuracy     95.0 %            –",
        "               loss                0.100        0.200",
        "               questions               7            3",
        "all tasks      token accuracy     91.0 %            –",
        "               loss                0.500        0.200",
    ]


def test_table_stays_narrow() -> None:
    splits = {f"a_rather_long_name_of_a_split_{n}": RESULTS for n in range(7)}
    lines = scores_table({"tasks": {"t" * 50: {"loss": 1.0}}, "splits": splits})
    assert max(map(len, lines)) <= 100
    assert all(any(name in line for line in lines) for name in splits)


def test_table_of_another_split() -> None:
    lines = scores_table({"loss": 0.5, "scored_split": "validation", "splits": {"validation": {}}})
    assert lines[0] == "validation split:"
    assert "validation" in lines[3]
    assert scores_table({}) == ["there are no scores"]
    assert scores_table({"tasks": None, "splits": None, "loss": float("nan")}) == [
        "there are no scores"
    ]


def test_kinds_follow_their_task() -> None:
    rows = score_rows(splits_of(RESULTS))
    names = [(row.name, row.is_kind) for row in rows if row.task == "image_qa"]
    assert names[:3] == [("exact match", False), ("count", True), ("color", True)]


def test_what_is_right() -> None:
    assert is_right(Prediction("", "image_qa", "", "two", "2."))
    assert not is_right(Prediction("", "image_qa", "", "two", "two red"))
    assert is_right(Prediction("", "transcription", "", "It's Mr. Smith", "it is mister smith"))
    assert not is_right(Prediction("", "transcription", "", "a cat", "a bat"))


def exhibits(task: str, right: int, wrong: int, kind: str = "") -> list[Exhibit]:
    return [
        Exhibit(
            Prediction(f"{task}{kind}{n}", task, kind, "x", "y"),
            right=n < right,
            media=(Media("image", Path(f"{n // 2}.png")),),
        )
        for n in range(right + wrong)
    ]


def test_gallery_shows_both_and_every_task() -> None:
    many = exhibits("image_qa", 500, 100) + exhibits("audio_qa", 50, 10)
    chosen = choose_gallery(many, 24)
    assert [e.right for e in chosen] == [False] * 12 + [True] * 12
    assert sum(e.prediction.task == "audio_qa" for e in chosen) == 12
    assert chosen == choose_gallery(many, 24)
    assert sum(e.right for e in choose_gallery(exhibits("image_qa", 50, 2), 24)) == 22
    assert sum(e.right for e in choose_gallery(exhibits("image_qa", 2, 50), 24)) == 2


def test_grid_shows_different_pictures_and_kinds() -> None:
    many = exhibits("image_qa", 30, 30, "count") + exhibits("caption", 10, 10)
    other = exhibits("image_qa", 8, 0, "color")
    chosen = choose_pictures(many + other, 8)
    assert len({e.media[0].path for e in chosen}) == len(chosen) == 8
    assert {e.prediction.kind for e in chosen} == {"count", "color"}
