"""What people are shown of media, and what another program gets of them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import write_image
from PIL import Image

from omnitune.media.audio import BARS, read_wave
from omnitune.media.image import decode
from omnitune.media.registry import MEDIA
from omnitune.media.segments import with_time
from omnitune.sample import UserError

RATE = 16_000


def ramp(path: Path, seconds: float = 2.0) -> Path:
    """Sound that grows louder."""
    count = int(seconds * RATE)
    wave = np.linspace(0, 0.5, count) * np.sin(np.arange(count) * 0.3)
    soundfile.write(path, wave, RATE)
    return path


@pytest.mark.parametrize("width", [8, 20, 48])
def test_a_sketch_shows_loudness_and_length(tmp_path: Path, width: int) -> None:
    sketch = MEDIA["audio"].sketch(ramp(tmp_path / "a.wav"), width)
    bars, seconds = sketch.split(" ", 1)
    assert seconds == "2.0 s"
    assert len(sketch) == width
    levels = [BARS.index(bar) for bar in bars]
    assert levels == sorted(levels)
    assert levels[-1] == len(BARS) - 1


def test_silence_and_the_shortest_sound_have_a_sketch(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    assert MEDIA["audio"].sketch(tmp_path / "a.wav", 12) == f"{BARS[0] * 6} 1.0 s"[-12:]
    soundfile.write(tmp_path / "b.wav", np.full(400, 0.5), RATE)
    assert MEDIA["audio"].sketch(tmp_path / "b.wav", 900).endswith(" 0.0 s")
    assert MEDIA["image"].sketch(tmp_path / "a.wav", 12) == ""  # its picture says more


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp"])
def test_what_browsers_show_is_left_as_it_is(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a.{suffix}")
    kind, content = MEDIA["image"].portable(path)
    assert content == path.read_bytes()
    assert kind == f"image/{suffix.replace('jpg', 'jpeg')}"


def test_other_pictures_become_png(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.tiff")
    kind, content = MEDIA["image"].portable(path)
    assert kind == "image/png"
    found = Image.open(io.BytesIO(content))
    assert found.format == "PNG"
    assert np.array_equal(np.asarray(found), np.asarray(decode(path)))


@pytest.mark.parametrize(
    ("name", "kind", "same"),
    [("a.wav", "audio/wav", True), ("a.mp3", "audio/mpeg", True), ("a.flac", "audio/wav", False)],
)
def test_sounds_are_wav_or_mp3(tmp_path: Path, name: str, kind: str, same: bool) -> None:
    path = ramp(tmp_path / name)
    found, content = MEDIA["audio"].portable(path)
    assert found == kind
    assert (content == path.read_bytes()) is same
    copy = tmp_path / "copy.wav"
    copy.write_bytes(content)
    assert np.abs(read_wave(copy) - read_wave(path)).max() < 1e-3


def test_a_stretch_of_a_sound_is_all_that_goes_along(tmp_path: Path) -> None:
    _, content = MEDIA["audio"].portable(with_time(ramp(tmp_path / "a.wav"), 0.5, 1.0))
    assert soundfile.info(io.BytesIO(content)).duration == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["image", "audio"])
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    shown: list[Callable[[Path], object]] = [MEDIA[name].portable]
    if name == "audio":
        shown.append(lambda path: MEDIA[name].sketch(path, 20))
    for show in shown:
        with pytest.raises(UserError, match="no such"):
            show(tmp_path / "none")
