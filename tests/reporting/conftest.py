"""A made-up run and its data, for the tests of what is shown of a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_up import HOSTILE, RESULTS, entry, write_lines, write_records, write_run
from PIL import Image

from omnitune.reporting import curves


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
    entries = [entry(10, False), entry(20, True), entry(30, False)]
    folder = write_run(tmp_path / "my_model", RESULTS, entries)
    config = {"seed": 7, "data_mix": {"text_only": 0.4}, "data_dir": "data/<mine>"}
    (folder / "run.json").write_text(json.dumps({"config": config}), encoding="utf-8")
    answers = [
        ("image_text", 0, "i0#0", "image_qa", "color", "red", "The red!"),
        ("image_text", 0, "i0#1", "image_qa", "count", "1", HOSTILE),
        ("image_text", 1, "i1", "image_qa", "yes", "yes", "yes"),
        ("audio_text", 0, "a0", "transcription", "transcription", "hello there", "hello bear"),
    ]
    names = ("source", "number", "id", "task", "kind", "reference", "answer")
    lines = [dict(zip(names, answer, strict=True)) for answer in answers]
    write_lines(folder / "predictions.jsonl", lines)
    return folder


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the seconds of drawing where a test does not look at a drawing."""
    monkeypatch.setattr(curves, "draw_diagrams", lambda diagrams, path: None)
    monkeypatch.setattr(curves, "inline_drawings", lambda diagrams: [])
    monkeypatch.setattr(curves, "draw_answers", lambda exhibits, path: None)
