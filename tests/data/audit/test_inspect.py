"""The account of a folder: counts, everything that is broken, every leak that was put there."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import ENCODERS, tiny_model, tiny_tokenizer, write_image, write_wave
from PIL import Image

from omnitune.cli import main
from omnitune.data.audit.inspect import account_lines, inspect_folder
from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.splits import by_content
from omnitune.data.template import ChatRenderer
from omnitune.encoders.registry import build_encoder
from omnitune.media.registry import MEDIA
from omnitune.models.loading import save_omni
from omnitune.sources import SOURCES

SENTENCES = [
    "the quiet river runs to the sea",
    "seven green apples fell from the tree",
    "nobody saw the old ship come in",
    "my uncle sold his boat last winter",
]


def write(data: Path, source: str, records: list[dict[str, Any]]) -> None:
    (data / SOURCES[source].file).parent.mkdir(exist_ok=True)
    (data / SOURCES[source].file).write_text(json.dumps(records))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two training and two test samples of three sources, nothing shared."""
    for folder in ("images", "audio"):
        (tmp_path / folder).mkdir()
    images, clips, texts = [], [], []
    for n, split in enumerate(("train", "train", "test", "test")):
        write_image(tmp_path / "images" / f"{n}.png", size=16, seed=n)
        write_wave(tmp_path / "audio" / f"{n}.wav", 0.5, seed=n)
        base = {"split": split, "question": "what is it?"}
        qa = [{"question": "how many?", "answer": "2", "kind": "count"}] * 2
        images.append({"id": f"image-{n}", "image": f"{n}.png", "qa": qa, "split": split})
        clips.append(base | {"id": f"clip-{n}", "audio": f"{n}.wav", "answer": SENTENCES[n]})
        texts.append(base | {"id": f"text-{n}", "answer": f"why, {SENTENCES[n]} of course"})
    write(tmp_path, "image_text", images)
    write(tmp_path, "audio_text", clips)
    write(tmp_path, "text_only", texts)
    return tmp_path


def change(data: Path, source: str, number: int, **values: Any) -> None:
    path = data / SOURCES[source].file
    records = json.loads(path.read_text())
    records[number] |= values
    path.write_text(json.dumps(records))


def pairs(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(pair["how"], pair["train"], pair["held_out"]) for pair in found["pairs"]]


def test_counts(data: Path) -> None:
    found = inspect_folder(data)
    assert found["sources"]["image_text"]["train"] == {
        "records": 2,
        "questions": 4,
        "kinds": {"count": 4},
        "media": {"image": 2},
        "amounts": {"image": 512.0},
    }
    assert found["sources"]["audio_text"]["test"]["amounts"] == {"audio": 1.0}
    assert found["broken"] == {"count": 0, "media": []}
    assert found["leaks"]["test"]["image"] == {"compared": 2}
    assert found["leaks"]["test"]["audio"] == {"compared": 2}
    assert found["leaks"]["test"]["text"] == {"compared": 4, "phrases": 0.0}
    assert not found["leaking"]
    assert json.loads(json.dumps(found)) == found


def test_every_way_of_sharing_is_found(data: Path) -> None:
    change(data, "image_text", 2, image="1.png")
    picture = Image.open(data / "images" / "0.png").resize((4, 4)).resize((96, 96))
    picture.save(data / "images" / "0.png")
    picture.resize((64, 64)).save(data / "images" / "3.png")
    wave, rate = soundfile.read(data / "audio" / "0.wav")
    soundfile.write(data / "audio" / "2.flac", wave, rate)
    change(data, "audio_text", 2, audio="2.flac")
    change(data, "audio_text", 3, answer=SENTENCES[1].upper() + "!")
    long = " ".join(SENTENCES)
    change(data, "text_only", 0, answer=long)
    change(data, "text_only", 2, answer=f"{long} again")
    found = inspect_folder(data)
    assert sorted(pairs(found)) == [
        ("changed copy", "image-0", "image-3"),
        ("near text", "text-0", "text-2"),
        ("same content", "clip-0", "clip-2"),
        ("same file", "image-1", "image-2"),
        ("same text", "clip-1", "clip-3"),
    ]
    assert found["leaking"]
    assert found["leaks"]["test"]["image"] == {"compared": 2, "same file": 1, "changed copy": 1}
    lines = "\n".join(account_lines(found))
    assert "test, image: 2 of 2, 100.0% (1 same file, 1 changed copy)" in lines
    assert "clip-3 (test) and clip-1: same text" in lines


def test_copies_are_found_among_several_pictures(data: Path) -> None:
    change(data, "image_text", 1, image=["1.png", "4.png"])
    change(data, "image_text", 3, image=["2.png", "3.png", "5.png"])
    large = Image.open(data / "images" / "0.png").resize((4, 4)).resize((96, 96))
    large.save(data / "images" / "4.png")
    large.resize((64, 64)).save(data / "images" / "5.png")
    found = inspect_folder(data)
    assert found["sources"]["image_text"]["test"]["media"] == {"image": 3}
    assert pairs(found) == [("changed copy", "image-1", "image-3")]
    assert found["broken"]["count"] == 0


def test_what_is_set_aside_is_shown(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"question": f"what is {n}?", "answer": SENTENCES[n % 4]} for n in range(4)]
    assert {by_content(record) for record in records} == {"train"}
    write(data, "text_only", records)
    change(data, "audio_text", 3, split="dev")
    assert main(["inspect", "--data", str(data)]) == 0
    told = capsys.readouterr().out
    (text,) = re.findall(r"\ntext_only\n(?:  .*\n)+", told)
    assert "  train: 3 records" in text
    assert "  validation: 1 record, " in text
    assert re.search(r"conversations\.json: names no .* \(text_only/\d\) was set aside", told)
    assert 'the split "dev" is held out under a name of its own; if "validation" is meant' in told


def test_a_wrong_record_is_refused_as_a_run_refuses_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(data, "text_only", 0, split="Train")
    change(data, "text_only", 2, answer=None)
    assert main(["inspect", "--data", str(data)]) == 2
    told = capsys.readouterr().err
    assert 'record 1: "split" is "Train"; did you mean "train"?' in told
    assert 'record 3: "answer" is null, expected text' in told


def test_another_picture_of_the_same_words_is_no_leak(data: Path) -> None:
    for number in (0, 2):
        change(data, "image_text", number, caption="a large red circle at the top")
    found = inspect_folder(data)
    assert pairs(found) == [("same words, another picture", "image-0", "image-2")]
    assert not found["leaking"]


def test_all_broken_media_are_told(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "images" / "0.png").unlink()
    (data / "audio" / "3.wav").write_bytes(b"no sound")
    whole = (data / "images" / "2.png").read_bytes()
    (data / "images" / "2.png").write_bytes(whole[: len(whole) // 2])  # its header is well
    found = inspect_folder(data)
    assert found["broken"]["count"] == 3
    assert {one["id"] for one in found["broken"]["media"]} == {"image-0", "image-2", "clip-3"}
    assert found["leaks"]["test"]["image"] == {"compared": 1}
    assert main(["inspect", "--data", str(data)]) == 0
    assert "broken media: 3" in capsys.readouterr().out
    assert main(["inspect", "--data", str(data), "--strict"]) == 1


def test_what_is_not_shown_of_media_is_told_without_a_model(data: Path) -> None:
    assert inspect_folder(data)["remarks"] == {"count": 0, "media": []}
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green")]
    frames[0].paste("white", (4, 4, 8, 8))
    frames[0].save(data / "images" / "0.png", save_all=True, append_images=frames[1:])
    wave = np.random.default_rng(0).uniform(-0.1, 0.1, 8000)
    soundfile.write(data / "audio" / "1.wav", np.stack([wave, -wave], axis=1), 16_000)
    found = inspect_folder(data)
    assert (found["broken"]["count"], found["remarks"]["count"]) == (0, 2)
    assert [one["id"] for one in found["remarks"]["media"]] == ["image-0", "clip-1"]
    lines = "\n".join(account_lines(found))
    assert "remarks on media that can be used: 2" in lines
    assert "0.png: 2 frames or pages; only the first is shown" in lines
    assert "1.wav: its channels cancel each other out" in lines


def test_under_a_model_tokens_and_losses_are_told(data: Path) -> None:
    modalities = {name: build_encoder(name, ENCODERS[name]) for name in MEDIA}
    renderer = ChatRenderer(tiny_tokenizer())
    found = inspect_folder(data, ReadLimits(renderer, modalities, max_tokens=30))
    assert found["sources"]["text_only"]["train"]["tokens"] > 20
    assert found["truncation"]["text"]["samples"] > 0
    told = "\n".join(account_lines(found))
    assert "not shown to the model" in told
    assert "truncation.json" not in told  # which only a run writes
    short = {"image": modalities["image"]}
    found = inspect_folder(data, ReadLimits(renderer, short, max_tokens=1000))
    assert "no encoder for audio" in found["refused"]
    assert "a run would refuse it" in "\n".join(account_lines(found))


def test_command_writes_json_and_is_strict_on_request(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["inspect", "--data", str(data), "--json", str(data / "found.json"), "--strict"]
    assert main(command) == 0
    assert "test, image: 0 of 2, 0.0%" in capsys.readouterr().out
    assert json.loads((data / "found.json").read_text())["leaking"] is False
    change(data, "image_text", 2, image="1.png")
    assert main(command) == 1
    assert main(command[:-1]) == 0
    assert main(["inspect", "--data", str(data / "none")]) == 2


def test_command_refuses_before_the_work_what_it_could_not_write_in_the_end(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = data / SOURCES["text_only"].file
    for target, told in ((data, "is a folder"), (file / "x.json", "is a file, expected a folder")):
        assert main(["inspect", "--data", str(data), "--json", str(target)]) == 2
        out, err = capsys.readouterr()
        assert f"error: {target}: " in err
        assert f"{told}" in err
        assert "; give --json FILE" in err
        assert (out, "reading records" in err) == ("", False)


def test_command_takes_the_file_of_a_model_too(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_omni(tmp_path / "omni.pt", tiny_model(), ChatRenderer(tiny_tokenizer()))
    for model in (tmp_path, tmp_path / "omni.pt"):
        assert main(["inspect", "--data", str(data), "--ckpt-dir", str(model)]) == 0
        assert "tokens of text" in capsys.readouterr().out


def test_remarks_that_say_the_same_are_not_all_written_out(data: Path) -> None:
    for n in range(4):
        Image.new("RGB", (8, 8 + n), (20 * n + 20, 0, 0)).save(data / "images" / f"flat{n}.png")
    qa = {"question": "what is it?", "answer": "a wall", "split": "train"}
    write(data, "image_text", [{"image": f"flat{n}.png", **qa} for n in range(4)])
    lines = account_lines(inspect_folder(data))
    assert sum(line.endswith("one colour all over") for line in lines) == 3
    assert "  and 1 more" in lines
