"""Examples on the page: of held-out data, with references, playable as they are."""

import base64
import json
from pathlib import Path

import pytest
from helpers import write_image, write_wave
from PIL import Image

from omnitune.sample import Media
from omnitune.serving.web.held_out import COUNT, as_data, examples_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with its answers and their data."""
    data, folder = tmp_path / "mine.jsonl", tmp_path / "run"
    folder.mkdir()
    records, lines = [], []
    for n in range(9):
        write_image(tmp_path / f"{n}.png", seed=n)
        record = {"id": f"r{n}", "image": f"{n}.png", "question": f"what is {n}?"}
        records.append(record | {"answer": f"number {n}", "split": "test"})
        answer = {
            "split": "test",
            "id": f"r{n}",
            "task": "image_qa",
            "kind": "image_qa",
            "number": n,
        }
        answer |= {"reference": f"number {n}", "answer": "no", "source": "mine"}
        lines.append(answer)
    data.write_text("\n".join(map(json.dumps, records)))
    (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = {"sources": {"mine": {"path": str(data)}}, "data_mix": {"mine": 1}}
    (folder / "run.json").write_text(json.dumps({"config": config}))
    return folder


def test_examples_have_references_and_media(run: Path) -> None:
    found = examples_of(run)
    assert len(found) == COUNT
    assert len({row["question"] for row in found}) == COUNT
    for row in found:
        number = row["question"].removeprefix("what is ").rstrip("?")
        assert row["reference"] == f"number {number}"
        [medium] = row["media"]
        content = base64.b64decode(medium["uri"].partition(",")[2])
        assert content == (run.parent / f"{number}.png").read_bytes()


def test_without_the_data_those_of_the_run_remain(run: Path) -> None:
    (run.parent / "mine.jsonl").unlink()
    assert examples_of(run) == []
    rows = [{"question": "what?", "media": [["image", str(run.parent / "1.png")]]}]
    (run / "examples.json").write_text(json.dumps(rows))
    [row] = examples_of(run)
    assert row["question"] == "what?"
    assert "reference" not in row


def test_a_folder_without_a_run_has_none(tmp_path: Path) -> None:
    assert examples_of(tmp_path) == []


def test_what_browsers_do_not_read_is_copied(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.tiff")
    write_wave(tmp_path / "a.flac")
    picture = as_data(Media("image", tmp_path / "a.tiff"))
    sound = as_data(Media("audio", tmp_path / "a.flac"))
    assert picture
    assert sound
    assert picture["type"] in ("image/png", "image/jpeg")
    assert sound["type"] == "audio/wav"
    assert as_data(Media("image", tmp_path / "missing.png")) is None
    assert as_data(Media("image", tmp_path / "missing.tiff")) is None
