"""Pictures and sound inside a page: small, and true to what they show."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from omnitune.reporting import previews as media
from omnitune.reporting.previews import show_media, spectrogram
from omnitune.sample import Media

RATE = 16_000


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    (html,) = show_media([(Media("image", tmp_path / "large.png"),)])
    (picture,) = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (256, 171)


def test_page_shows_what_the_model_is_shown(tmp_path: Path) -> None:
    """On white, and of an animation the first frame."""
    frames = [Image.new("RGBA", (8, 8), colour) for colour in ("#0000", "red")]
    frames[0].putpixel((4, 4), (0, 0, 0, 255))
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    (html,) = show_media([(Media("image", tmp_path / "a.png"),)])
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    shown = Image.open(io.BytesIO(base64.b64decode(picture)))
    assert (shown.mode, getattr(shown, "n_frames", 1)) == ("RGB", 1)
    assert (shown.getpixel((0, 0)), shown.getpixel((4, 4))) == ((255,) * 3, (0,) * 3)


def test_sound_is_left_out_once_its_room_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(8000) / 10), RATE)
    clip = (Media("audio", tmp_path / "a.wav"),)
    monkeypatch.setattr(media, "SOUND_BUDGET", 30_000)
    first, second = show_media([clip, clip])
    assert "<audio" in first
    assert "sound left out" not in first
    assert "<audio" not in second
    assert "sound left out" in second
    assert all('class="spectrogram"' in html for html in (first, second))


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    missing, damaged = Media("image", tmp_path / "no.png"), Media("audio", tmp_path / "a.wav")
    (html,) = show_media([(missing, damaged)])
    assert "(image: cannot be shown)" in html
    assert "(audio: cannot be shown)" in html


@pytest.mark.parametrize("pitch", [500, 2000, 6000])
def test_spectrogram_shows_the_pitch(pitch: int) -> None:
    wave = np.sin(2 * np.pi * pitch * np.arange(RATE) / RATE).astype(np.float32)
    rows = np.asarray(spectrogram(wave).convert("L"), dtype=float).mean(axis=1)
    expected = (1 - pitch / (RATE / 2)) * len(rows)
    assert abs(int(rows.argmax()) - expected) <= 2


def test_spectrogram_runs_from_left_to_right() -> None:
    wave = np.concatenate([np.zeros(RATE), np.random.default_rng(0).normal(size=RATE)])
    light = np.asarray(spectrogram(wave).convert("L"), dtype=float).mean(axis=0)
    middle = len(light) // 2
    assert light[: middle - 3].max() < light[middle + 3 :].min()
    assert spectrogram(np.zeros(RATE)).height == spectrogram(wave).height
