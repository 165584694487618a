"""``omnitune evaluate``: what it refuses before it scores, and what it says beside the scores."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import tiny_model, tiny_renderer, write_image, write_source

from omnitune.cli import main
from omnitune.models.loading import save_omni
from omnitune.sources import SOURCES


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and texts for training and for nothing else."""
    home = tmp_path_factory.mktemp("home")
    save_omni(home / "omni.pt", tiny_model(), tiny_renderer(), step=1)
    (home / "data/text").mkdir(parents=True)
    records = [{"question": f"repeat {n}.", "answer": "red", "split": "train"} for n in range(3)]
    (home / "data/text/conversations.json").write_text(json.dumps(records))
    return home


def evaluate(home: Path, *more: str) -> int:
    where = ["--ckpt_dir", str(home), "--data", str(home / "data"), "--device", "cpu"]
    return main(["evaluate", *where, *more])


def test_answers_that_cannot_be_written_are_refused_before_the_scoring(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    below_a_file = home / "omni.pt" / "answers.jsonl"
    for place in (home, below_a_file):
        assert evaluate(home, "--split", "train", "--predictions", str(place)) == 2
        told = capsys.readouterr()
        assert f"error: {place}: the answers cannot be written there" in told.err
        assert "scoring" not in told.err + told.out


def test_training_split_is_scored_and_said_to_be_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "new" / "answers.jsonl"
    assert evaluate(home, "--split", "train", "--json", "--predictions", str(path)) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["tasks"]["text"]["questions"] == 3
    assert "warning: train is no held-out split: if the model was trained on it" in told.err
    assert [file.name for file in path.parent.iterdir()] == ["answers.jsonl"]


def test_nothing_held_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--split", "all") == 2
    assert "none is held out" in capsys.readouterr().err


def test_no_language(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--language", "12") == 2
    assert "error: --language: expected a language code such as en" in capsys.readouterr().err


def test_own_data_and_what_is_held_out_of_it_are_scored_unless_told_otherwise(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(home / "omni.pt", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"config": {"data_dir": str(tmp_path / "data")}}))
    (tmp_path / "data/text").mkdir(parents=True)
    splits = ("train", "validation", "validation")
    records = [{"question": f"say {n}.", "answer": "red", "split": s} for n, s in enumerate(splits)]
    (tmp_path / "data/text/conversations.json").write_text(json.dumps(records))
    assert main(["evaluate", "--ckpt_dir", str(tmp_path), "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scored_split"], found["tasks"]["text"]["questions"]) == ("validation", 2)


def test_records_of_media_without_an_encoder_are_left_out_and_said_to_be(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_omni(tmp_path / "omni.pt", tiny_model(media=["image"]), tiny_renderer(), step=1)
    pair = {"question": "what?", "answer": "red", "split": "test"}
    write_source(tmp_path / "data", "text_only", [pair, pair | {"image": "a.png"}])
    write_image(tmp_path / "data/text/a.png")
    write_source(tmp_path / "data", "audio_text", [pair | {"audio": "none.wav"}] * 3)
    assert evaluate(tmp_path, "--json") == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert {name: task["questions"] for name, task in found["tasks"].items()} == {
        "text": 1,
        "image_qa": 1,
    }
    [line] = [line for line in told.err.splitlines() if "left out" in line]
    assert line == (
        "warning: left out, as the model has no encoder for audio: all 3 records of audio_text"
    )
    save_omni(tmp_path / "omni.pt", tiny_model(media=[]), tiny_renderer(), step=1)
    assert evaluate(tmp_path) == 0
    assert (
        "no encoder for audio, image: 1 of 2 records of text_only, all 3 records of audio_text"
        in capsys.readouterr().err
    )
    (tmp_path / "data" / SOURCES["text_only"].file).unlink()
    assert evaluate(tmp_path) == 2
    assert "every record shows media that the model has no encoder" in capsys.readouterr().err
