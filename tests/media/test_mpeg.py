"""MP3: all frames that the tag promises are there, and all that are there are heard."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnitune.media.audio import duration, read_wave
from omnitune.media.mpeg import TRAILER, _frame
from omnitune.sample import UserError

RATE = 16_000


def mp3(path: Path, level: float = 0.0, channels: int = 1) -> bytes:
    """Noise in an MP3 of constant bit rate: low for level 0.9, high for 0.0."""
    noise = np.random.default_rng(0).normal(size=(2 * RATE, channels)) * 0.1
    options = {"bitrate_mode": "CONSTANT", "compression_level": level}
    soundfile.write(path, noise, RATE, format="MP3", **options)
    return path.read_bytes()


def frames(content: bytes) -> list[bytes]:
    """Those of a file without other tags; the first holds the tag."""
    found = []
    while content:
        frame = _frame(content[:4])
        assert frame is not None
        found.append(content[: frame.length])
        content = content[frame.length :]
    return found


def test_frames_are_as_long_as_their_headers_say(tmp_path: Path) -> None:
    assert sum(map(len, frames(mp3(tmp_path / "a.mp3")))) == (tmp_path / "a.mp3").stat().st_size


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_rate_is_whole_and_told_if_cut(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "a.mp3"
    noise = np.random.default_rng(0).normal(size=(rate, channels)) * 0.1
    soundfile.write(path, noise, rate)
    assert duration(path) == pytest.approx(1, abs=0.01)
    content = path.read_bytes()
    assert sum(map(len, frames(content))) == len(content)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.mp3: the file is cut off: its header says"):
        duration(path)


ID3_2 = b"ID3\x04\0\0\0\0\x02\x00" + bytes(256)
ID3_1 = b"TAG" + bytes(125)
APE = b"APETAGEX" + bytes(9000) + b"APETAGEX" + bytes(24)


@pytest.mark.parametrize("before", [b"", ID3_2, ID3_2 * 2])
@pytest.mark.parametrize("after", [b"", ID3_1, APE, APE + ID3_1, bytes(6000), b"odd"])
def test_tags_around_the_sound_are_no_damage(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "a.mp3"
    content = mp3(path)
    whole = duration(path)
    path.write_bytes(before + content + after)
    assert duration(path) == whole
    assert len(read_wave(path)) == pytest.approx(whole * RATE, abs=5000)
    path.write_bytes(before + b"".join(frames(content)[1:]) + after)  # without a table of frames
    assert duration(path) == pytest.approx(whole, abs=0.2)


def test_cut_is_met_without_a_tag_too(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    content = b"".join(frames(mp3(path))[1:])
    path.write_bytes(content[: len(content) // 2 + 7])
    with pytest.raises(UserError, match="cut off in its last frame"):
        duration(path)


@pytest.mark.parametrize("channels", [1, 2])
def test_frames_of_other_bit_rates_are_heard_too(tmp_path: Path, channels: int) -> None:
    """libsndfile takes the first frame's bit rate for all and stops, or promises, too much."""
    path = tmp_path / "a.mp3"
    fine, coarse = (frames(mp3(path, level, channels=channels))[1:] for level in (0.0, 0.9))
    for joined in (fine + coarse, coarse + fine):
        path.write_bytes(b"".join(joined))
        assert duration(path) == pytest.approx(len(joined) * 576 / RATE, abs=0.05)
        wave = read_wave(path)
        assert len(wave) == round(duration(path) * RATE)
        assert wave[: RATE // 2].std() > 0.02
        assert wave[3 * RATE : 4 * RATE].std() > 0.02


def test_what_only_looks_like_a_frame_is_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    for content in (b"\xff\xfb\x90\x64" + bytes(30), b"\xff" * 5000, ID3_2, b"ID3"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.mp3: "):
            read_wave(path)


def test_a_short_recording_behind_another_is_heard_too(tmp_path: Path) -> None:
    """It is no larger than the tags that may stand there."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, 0.3 * np.sin(np.arange(2 * RATE) / 8), RATE)
    content = path.read_bytes()
    assert len(content) < TRAILER
    once = duration(path)
    path.write_bytes(content + content)
    assert duration(path) == pytest.approx(2 * once, abs=0.2)
    assert len(read_wave(path)) == pytest.approx(2 * once * RATE, abs=0.2 * RATE)
