"""What training shows of media: counts by the index, and where the first medium stands."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import write_image, write_wave

from omnitune.data.reading import join, read_available, split_of
from omnitune.data.taught import Taught, taught_by
from omnitune.sources import SOURCES

LATE = {
    "messages": [
        {"role": "system", "content": "be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hello."},
        {"role": "user", "content": "<image> what is this?"},
        {"role": "assistant", "content": "noise."},
    ],
}


def taught(home: Path, records: dict[str, list[dict[str, Any]]]) -> Taught:
    for source, values in records.items():
        (home / SOURCES[source].file).parent.mkdir(parents=True, exist_ok=True)
        (home / SOURCES[source].file).write_text(json.dumps(values))
    samples = join(read_available(home, records).values())
    return taught_by(split_of(samples, "train"), ("image", "audio"))


def record(**values: Any) -> dict[str, Any]:
    return {"question": "what is it?", "answer": "noise.", "split": "train"} | values


def test_one_of_each_kind_at_most(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    write_image(tmp_path / "audio" / "a.png")
    write_wave(tmp_path / "audio" / "a.wav")
    texts = {"text_only": [record(), record()]}
    assert taught(tmp_path, texts).media_per_sample == {"image": 0, "audio": 0}
    sounds = {"audio_text": [record(audio="a.wav"), record(audio="a.wav", split="test")]}
    assert taught(tmp_path, texts | sounds).media_per_sample == {"image": 0, "audio": 1}
    held_out = {"audio_text": [record(audio="a.wav"), record(audio="a.wav", image="a.png")]}
    held_out["audio_text"][1]["split"] = "test"
    assert taught(tmp_path, held_out).media_per_sample == {"image": 0, "audio": 1}
    assert not taught(tmp_path, held_out).media_together
    both = {"audio_text": [record(audio="a.wav", image="a.png")]}
    assert taught(tmp_path, texts | both) == Taught(
        {"image": 1, "audio": 1}, media_together=True, system_text=False
    )


@pytest.mark.parametrize("late", [True, False])
def test_where_the_first_medium_stands(tmp_path: Path, late: bool) -> None:
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png")
    messages = LATE["messages"] if late else [LATE["messages"][0], *LATE["messages"][3:]]
    records = [record(image="a.png")] * 5 + [
        {"image": "a.png", "messages": messages, "split": "train"}
    ]
    assert taught(tmp_path, {"image_text": records}).media_after_text is late


@pytest.mark.parametrize("system", [True, False])
def test_a_system_text_is_noted(tmp_path: Path, system: bool) -> None:
    turns = [("system", "be brief"), ("user", "what is it?"), ("assistant", "it.")]
    messages = [{"role": role, "content": text} for role, text in turns[not system :]]
    records = [record()] * 3 + [{"messages": messages, "split": "train"}]
    assert taught(tmp_path, {"text_only": records}).system_text is system


def test_what_is_kept_is_read_again() -> None:
    found = Taught({"image": 3, "audio": 0}, True, media_together=False, system_text=True)
    assert Taught.of({"kind": "omni", **found.values()}) == found
    assert (found.most("image"), found.most("audio"), found.most("smell")) == (3, 1, 1)
    assert [found.never_saw(name) for name in ("image", "audio", "smell")] == [False, True, False]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"media_per_sample": None, "media_after_text": "yes", "media_together": None},
        {"media_per_sample": {"image": -1, "audio": "many"}},
        {"media_per_sample": [1]},
    ],
)
def test_an_older_or_damaged_file_stands_for_one(values: dict[str, Any]) -> None:
    assert Taught.of(values) == Taught()
    assert Taught.of(values).most("image") == 1
