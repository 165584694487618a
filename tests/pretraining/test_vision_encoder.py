"""Stage C: it learns from the captions of the training split alone."""

import json
from pathlib import Path

import pytest
from helpers import write_image

from omnitune.config import load_config
from omnitune.pretraining.vision_encoder import VisionEncoderConfig, captioned
from omnitune.sample import UserError


def folder_with(tmp_path: Path, records: list[dict[str, str]]) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.png")
    rows = [{"image": "a.png", "question": "?", "answer": "x", **r} for r in records]
    (folder / "image_qa.json").write_text(json.dumps(rows))
    return tmp_path


def test_splits_stay_apart_and_only_captions_are_learnt(tmp_path: Path) -> None:
    records = [{"split": s, "caption": f"of {s}"} for s in ("train", "validation", "test")]
    train, held_out = captioned(folder_with(tmp_path, records))
    assert [s.messages[-1].text for s in train] == ["of train"]
    assert [s.messages[-1].text for s in held_out] == ["of validation"]
    assert all(len(s.messages) == 2 and s.messages[0].text == "" for s in train)


def test_without_captions_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='"caption"'):
        captioned(folder_with(tmp_path, [{"split": "train"}]))


def test_a_size_that_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(UserError, match="image_size 100 is not a multiple"):
        load_config(VisionEncoderConfig, None, ["--image-size", "100"])
