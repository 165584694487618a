"""Previews of media: small, and true to what they show."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from omnitune.reporting import previews
from omnitune.reporting.previews import GLANCE_SIDE, preview, show_media
from omnitune.sample import Media

RATE = 16_000


def decode(uri: str, kind: str) -> Image.Image:
    start = f"data:image/{kind};base64,"
    assert uri.startswith(start)
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(start))))


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    medium = Media("image", tmp_path / "large.png")
    [[found]] = show_media([(medium,)])
    assert decode(found.picture, "jpeg").size == (256, 171)
    assert max(decode(preview(medium, GLANCE_SIDE).picture, "jpeg").size) == GLANCE_SIDE


def test_page_shows_what_the_model_is_shown(tmp_path: Path) -> None:
    """On white, and of an animation the first frame."""
    frames = [Image.new("RGBA", (8, 8), colour) for colour in ("#0000", "red")]
    frames[0].putpixel((4, 4), (0, 0, 0, 255))
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    [[found]] = show_media([(Media("image", tmp_path / "a.png"),)])
    shown = decode(found.picture, "png")
    assert (shown.mode, getattr(shown, "n_frames", 1)) == ("RGB", 1)
    assert (shown.getpixel((0, 0)), shown.getpixel((4, 4))) == ((255,) * 3, (0,) * 3)


def test_sound_is_left_out_once_its_room_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(8000) / 10), RATE)
    clip = (Media("audio", tmp_path / "a.wav"),)
    monkeypatch.setattr(previews, "SOUND_BUDGET", 30_000)
    [[first], [second]] = show_media([clip, clip])
    assert first.sound.startswith("data:audio/wav;base64,")
    assert first.left_out == ""
    assert second.sound == ""
    assert "sound left out" in second.left_out
    assert first.picture == second.picture
    assert first.wide


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    missing, damaged = Media("image", tmp_path / "no.png"), Media("audio", tmp_path / "a.wav")
    [found] = show_media([(missing, damaged)])
    words = ["(image: cannot be shown)", "(audio: cannot be shown)"]
    assert [(p.picture, p.words) for p in found] == [("", told) for told in words]


def test_a_medium_without_a_preview_is_named(tmp_path: Path) -> None:
    found = preview(Media("depth", tmp_path / "room.exr"), GLANCE_SIDE)
    assert (found.words, found.picture, found.sound) == ("room.exr", "", "")
