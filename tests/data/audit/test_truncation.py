"""The ledger says what is lost, of which samples, and reads headers only."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import ENCODERS, tiny_tokenizer, write_image, write_wave
from PIL import Image

from omnitune.data import index as indexing
from omnitune.data.audit import truncation as ledger
from omnitune.data.audit.truncation import ReadLimits, audit_truncation, summary
from omnitune.data.loader import SampleReader
from omnitune.data.reading import read_available, split_of
from omnitune.data.samples import Samples
from omnitune.data.template import ChatRenderer
from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.encoders.vit import VitEncoder
from omnitune.media.image import ImageMedium
from omnitune.sample import UserError
from omnitune.sources import SOURCES

SPLITS = ("train", "train", "validation", "test")


def reading(max_tokens: int = 120, **audio: Any) -> ReadLimits:
    modalities = {
        "image": VitEncoder(ENCODERS["image"]),  # 32 x 32 in 4 slots
        "audio": FastConformerEncoder(ENCODERS["audio"] | audio),
    }
    return ReadLimits(ChatRenderer(tiny_tokenizer()), modalities, max_tokens)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four records of each of three sources; one sound and the pictures are shown twice."""
    for name in (source.file for source in SOURCES.values()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    for n in range(2):
        write_image(tmp_path / "images" / f"{n}.png", size=16 << (2 * n), seed=n)  # 16, 64
        write_wave(tmp_path / "audio" / f"{n}.wav", 0.5 + 2 * n, seed=n)
    records: dict[str, list[dict[str, Any]]] = {"text_only": [], "image_text": [], "audio_text": []}
    for n, split in enumerate(SPLITS):
        qa = {"question": "what is it?", "answer": "a thing.", "split": split}
        records["text_only"].append(qa | {"id": f"text-{n}"})
        records["image_text"].append(qa | {"id": f"image-{n}", "image": f"{n % 2}.png"})
        records["audio_text"].append(qa | {"id": f"audio-{n}", "audio": f"{int(n == 1)}.wav"})
    records["text_only"][1]["answer"] = "the sky is the air above us. " * 20
    for source, values in records.items():
        (tmp_path / SOURCES[source].file).write_text(json.dumps(values))
    return tmp_path


def stock(data: Path, how: ReadLimits, leave_out: bool = True) -> tuple[dict[str, Samples], Any]:
    return audit_truncation(read_available(data), how, leave_out)


def test_what_is_lost_is_told_by_name(data: Path) -> None:
    kept, found = stock(data, reading())
    assert found["image"] == {
        "unit": "pixels",
        "whole": 16 * 16 + 64 * 64,
        "lost": 64 * 64 - 32 * 32,
        "samples": 2,
        "slots": 8,
        "rows": 8,
        "worst": [{"id": "image-1", "file": "images/1.png", "lost": 64 * 64 - 32 * 32}],
    }
    assert found["audio"] == {
        "unit": "seconds", "whole": 3.0, "lost": 0, "samples": 0, "slots": 43, "rows": 43,
        "worst": [],
    }  # fmt: skip
    [long] = found["text"].pop("worst")
    assert (long["id"], long["file"]) == ("text-1", SOURCES["text_only"].file)
    assert found["text"]["lost"] == long["lost"] > 120
    assert found["text"]["samples"] == 1
    assert [s.id for s in split_of(kept["text_only"], "train")] == ["text-0"]
    assert len(split_of(kept["image_text"], "train")) == 2
    assert "pixels (2 samples)" in summary(found)
    assert "tokens (1 sample)" in summary(found)


def test_of_several_pictures_the_one_that_loses_is_named(data: Path) -> None:
    """A sample counts once, whatever it loses of how many pictures."""
    write_image(data / "images" / "2.png", size=64, seed=2)
    path = data / SOURCES["image_text"].file
    records = json.loads(path.read_text())
    for record in records[:2]:
        record["image"] = ["0.png", "1.png", "2.png"]
    path.write_text(json.dumps(records))
    _, found = stock(data, reading())
    assert found["image"]["samples"] == 3  # image-3 shows one of them
    assert [(one["id"], one["file"]) for one in found["image"]["worst"]] == [
        ("image-0", "images/1.png"),
        ("image-0", "images/2.png"),
    ]


def test_lengths_are_those_that_the_reader_finds(data: Path) -> None:
    how = reading(30)
    reader = SampleReader(how.renderer, how.modalities, max_tokens=10**6)
    kept, found = stock(data, how)
    lengths = {
        sample.id: len(reader.item(sample).rendered.tokens)
        for samples in read_available(data).values()
        for sample in samples
    }
    left = {s.id for held in kept.values() for split in set(SPLITS) for s in split_of(held, split)}
    assert {id for id, length in lengths.items() if length <= 30} == left
    assert 0 < len(left) < len(lengths)
    assert abs(found["text"]["whole"] - sum(lengths.values())) <= 4  # one for each clip
    assert not found["text"]["estimated"]


def test_media_of_left_out_samples_are_lost(data: Path) -> None:
    """The long clip is shown by one sample; the short ones fit."""
    short, long = (reading(limit).max_tokens for limit in (30, 45))
    for limit, lost in ((short, 2.5), (long, 2.5), (120, 0.0)):
        assert stock(data, reading(limit))[1]["audio"]["lost"] == lost, limit
    worst = stock(data, reading(45))[1]["audio"]["worst"]
    assert worst == [{"id": "audio-1", "file": "audio/1.wav", "lost": 2.5}]


def test_too_long_is_refused_by_name(data: Path) -> None:
    with pytest.raises(UserError, match=r"text-1: \d+ tokens, the limit is 120, and 1 sample"):
        stock(data, reading(), leave_out=False)
    stock(data, reading(1000), leave_out=False)


def test_nothing_lost_is_not_spoken_of(data: Path) -> None:
    write_image(data / "images" / "1.png", size=32)
    assert summary(stock(data, reading(1000))[1]) == ""


def test_questions_that_are_never_a_conversation_are_measured_alone(data: Path) -> None:
    path = data / SOURCES["text_only"].file
    pair = {"question": "what is the sky?", "answer": "the air above us."}
    path.write_text(json.dumps([{"id": s, "qa": [pair] * 9, "split": s} for s in SPLITS[1:]]))
    how = reading(120)
    assert [w["id"] for w in stock(data, how)[1]["text"]["worst"]] == ["train"]
    alone = ReadLimits(how.renderer, how.modalities, 120, conversations=False)
    assert stock(data, alone)[1]["text"]["samples"] == 0


def test_long_sound_is_refused_before_it_is_read_or_split(data: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"audio_qa\.json: record 2: sample audio-1 \(audio_text\): .*1\.wav: 2\.5 s of sound",
    ):
        stock(data, reading(max_seconds=1.0))
    assert stock(data, reading(max_seconds=1.0, long_audio="split"))[1]["audio"]["lost"] == 0


def test_unusable_media_are_named(data: Path) -> None:
    (data / "images" / "1.png").write_bytes(b"no picture")
    with pytest.raises(
        UserError, match=r"sample image-1 \(image_text\): .*1\.png: is not an image"
    ):
        stock(data, reading())


def test_frames_after_the_first_are_lost(data: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    path = data / "images" / "0.png"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    _, found = stock(data, reading())
    assert found["image"]["whole"] == 3 * 16 * 16 + 64 * 64
    assert found["image"]["worst"][1] == {
        "id": "image-0", "file": "images/0.png", "lost": 2 * 16 * 16
    }  # fmt: skip
    assert "pixels (4 samples)" in summary(found)


def test_too_short_and_cut_sound_are_refused_before_the_first_step(data: Path) -> None:
    path = write_wave(data / "audio" / "1.wav", 0.02)
    with pytest.raises(UserError, match=r"sample audio-1 .*1\.wav: 20 ms of sound; too short"):
        stock(data, reading())
    write_wave(path, 0.5)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"sample audio-1 .*1\.wav: the file is cut off"):
        stock(data, reading())


def test_very_many_media_and_long_samples_are_measured_once(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "KEEP_FROM", 0)
    monkeypatch.setattr(ledger, "MANY_MEDIA", 1)
    kept, found = stock(data, reading())
    monkeypatch.setattr(VitEncoder, "measure", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(ledger, "_longest", lambda *_: pytest.fail("counted again"))
    again, same = stock(data, reading())
    assert same == found
    for source, samples in kept.items():
        assert list(split_of(samples, "train")) == list(split_of(again[source], "train"))
    with pytest.raises(pytest.fail.Exception, match="again"):
        stock(data, reading(max_tokens=100))
    monkeypatch.setattr(ImageMedium, "reader_version", ImageMedium.reader_version + 1)
    with pytest.raises(pytest.fail.Exception, match="again"):
        stock(data, reading())
