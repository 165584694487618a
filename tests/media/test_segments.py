"""A stretch of a sound is that part of it; one that lies outside is refused by its length."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ENCODERS, write_image, write_wave
from hypothesis import given
from hypothesis import strategies as st

from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.media.audio import duration, read_wave
from omnitune.media.registry import MEDIA
from omnitune.media.segments import file_of, split_time, with_time
from omnitune.sample import UserError

RATE = 16_000
ENCODER = FastConformerEncoder(ENCODERS["audio"])
KINDS = ("WAV", "FLAC", "OGG", "MP3", "CAF")


@given(st.floats(0, 1e6), st.floats(0.001, 1e5) | st.none())
def test_times_come_back_from_the_path(start: float, length: float | None) -> None:
    stop = None if length is None else start + length
    path, first, last = split_time(with_time(Path("x.tar::1536+2000/flac"), start, stop))
    assert path == Path("x.tar::1536+2000/flac")
    assert (first, last) == (pytest.approx(start, abs=1e-8), stop and pytest.approx(stop, abs=1e-8))


def test_path_without_times_is_as_it_was() -> None:
    for text in ("a.flac", "x.tar::1+2/flac", "t=1,2", "a::t/b.wav"):
        assert split_time(Path(text)) == (Path(text), 0.0, None)
    assert split_time(Path("a.flac::t=,2")) == (Path("a.flac"), 0.0, 2.0)
    assert with_time(Path("a.flac"), 1e-7) == Path("a.flac::t=0.0000001,")


def test_medium_lies_in_a_file() -> None:
    for text in ("x.tar", "x.tar::t=1,2", "x.tar::1+2/flac", "x.tar::1+2/flac::t=0,", "x.tar::t=x"):
        assert file_of(Path(text)) == Path("x.tar")


def test_stretch_of_a_sound_inside_a_record(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav", 2.0)
    text = base64.b64encode(path.read_bytes()).decode()
    record = json.dumps({"sound": text})
    (tmp_path / "a.jsonl").write_text(record + "\n")
    inner = Path(f"{tmp_path / 'a.jsonl'}::0+{len(record)}/sound")
    for start, stop in ((0.0, 2.0), (0.5, 1.25)):
        expected = read_wave(with_time(path, start, stop))
        np.testing.assert_array_equal(read_wave(with_time(inner, start, stop)), expected)


@pytest.mark.parametrize(
    "times",
    ["", "1", "1;2", "2,1", "1,1", "-1,2", "a,b", "nan,", "1,nan", "0,inf", "inf,", "1,2,3"],
)
def test_what_is_no_stretch_is_refused(times: str) -> None:
    with pytest.raises(UserError, match=r"a\.flac::t=.*: expected ::t=START,STOP in seconds"):
        split_time(Path(f"a.flac::t={times}"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_stretch_is_that_part_of_the_sound(tmp_path: Path, kind: str, channels: int) -> None:
    path = tmp_path / "a.bin"
    noise = np.random.default_rng(0).normal(size=(4 * RATE, channels)) * 0.1
    soundfile.write(path, noise, RATE, format=kind)
    whole = read_wave(path)
    for start, stop in ((0.0, 1.0), (1.5, 2.25), (3.2, None), (0.0, None)):
        stretch = with_time(path, start, stop)
        expected = whole[round(start * RATE) :]
        expected = expected[: round((stop - start) * RATE)] if stop else expected
        np.testing.assert_allclose(read_wave(stretch), expected, atol=1e-6)
        assert duration(stretch) == pytest.approx(len(expected) / RATE)
        assert ENCODER.measure(stretch).whole == duration(stretch)
        MEDIA["audio"].check(stretch)


def test_only_the_stretch_is_judged(tmp_path: Path) -> None:
    """Its fingerprint, its remarks and its numbers are its own."""
    path = tmp_path / "a.wav"
    wave = np.concatenate([np.zeros(RATE), np.random.default_rng(0).normal(size=RATE) * 0.1])
    wave[-1] = np.nan
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    audio = MEDIA["audio"]
    (remark,) = audio.fingerprint(with_time(path, 0, 1)).remarks
    assert "silent from end to end" in remark
    heard = audio.fingerprint(with_time(path, 1, 1.5))
    assert (heard.amount, heard.remarks) == (0.5, ())
    assert heard.content != audio.fingerprint(with_time(path, 1, 1.6)).content
    soundfile.write(tmp_path / "b.wav", wave[RATE : RATE * 3 // 2], RATE, subtype="FLOAT")
    assert heard.content == audio.fingerprint(tmp_path / "b.wav").content
    with pytest.raises(UserError, match=r"::t=1,2: holds values that are not numbers"):
        read_wave(with_time(path, 1, 2))


def test_stretch_must_lie_within_the_sound(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav", 2.0)
    for times in ("1,9", "2,", "5,6"):
        with pytest.raises(UserError, match=rf"a\.wav::t={times}: .* the sound is only 2\.00 s"):
            duration(Path(f"{path}::t={times}"))
    assert duration(with_time(path, 1, 2.05)) == 1.0  # manifests round
    with pytest.raises(UserError, match=r"a\.wav::t=1,1\.01: 10 ms of sound; too short"):
        duration(with_time(path, 1, 1.01))
    with pytest.raises(UserError, match=r"b\.wav: no such sound file"):
        duration(Path(f"{tmp_path / 'b.wav'}::t=0,1"))


def test_stretch_before_the_damage_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(size=8 * RATE) * 0.1, RATE)
    expected = read_wave(with_time(path, 1, 2))
    path.write_bytes(path.read_bytes()[:100_000])
    np.testing.assert_array_equal(read_wave(with_time(path, 1, 2)), expected)
    with pytest.raises(UserError, match=r"a\.flac::t=7,8: the sound is damaged"):
        read_wave(with_time(path, 7, 8))


def test_picture_has_no_stretch(tmp_path: Path) -> None:
    path = with_time(write_image(tmp_path / "a.png"), 0)
    with pytest.raises(UserError, match=r"a\.png::t=0,: a picture has no times"):
        MEDIA["image"].check(path)
