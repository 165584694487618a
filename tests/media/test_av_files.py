"""The sound of phones' and browsers' files: heard whole, and by stretches, or refused by name."""

import base64
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import ENCODERS
from muxing import KINDS, sweep, write_muxed

from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.media.audio import SAMPLE_RATE, duration, read_wave
from omnitune.media.registry import MEDIA
from omnitune.media.segments import with_time
from omnitune.sample import UserError

ENCODER = FastConformerEncoder(ENCODERS["audio"])


def likeness(wave: np.ndarray, other: np.ndarray) -> float:
    """Correlation at the best of some shifts: an encoder may put silence before what it codes."""
    size = min(len(wave), len(other)) - 2500
    shifts = range(0, 2500, 3)
    return max(float(np.corrcoef(wave[n : n + size], other[:size])[0, 1]) for n in shifts)


@pytest.mark.parametrize("name", KINDS)
def test_sound_is_heard_whole_and_is_the_one_that_was_written(tmp_path: Path, name: str) -> None:
    path = write_muxed(tmp_path / name)
    wave = read_wave(path)
    assert duration(path) == pytest.approx(2, abs=0.15)
    assert len(wave) == pytest.approx(duration(path) * SAMPLE_RATE, abs=1)
    assert likeness(wave, sweep(2, SAMPLE_RATE)) > 0.95
    assert MEDIA["audio"].fingerprint(path).remarks == ()
    assert len(ENCODER.read(path))


@pytest.mark.parametrize("name", KINDS)
def test_file_is_known_by_its_content_and_refused_wherever_it_is_cut(
    tmp_path: Path, name: str
) -> None:
    content = write_muxed(tmp_path / name).read_bytes()
    path = tmp_path / "nameless"
    path.write_bytes(content)
    assert duration(path) == duration(tmp_path / name)
    for share in (0.02, 0.3, 0.5, 0.77, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        for function in (MEDIA["audio"].check, read_wave, MEDIA["audio"].fingerprint):
            with pytest.raises(UserError, match=rf"{path}: "):
                function(path)


@pytest.mark.parametrize("name", KINDS)
def test_stretch_is_the_same_part_of_the_whole(tmp_path: Path, name: str) -> None:
    path = write_muxed(tmp_path / name, seconds=4.0)
    whole = read_wave(path)
    for start, stop in ((0.0, 0.5), (1.25, 1.75), (3.0, None)):
        stretch = with_time(path, start, stop)
        wave = read_wave(stretch)
        expected = whole[round(start * SAMPLE_RATE) :][: len(wave)]
        assert duration(stretch) == pytest.approx((stop or duration(path)) - start, abs=1e-3)
        assert len(wave) == pytest.approx(duration(stretch) * SAMPLE_RATE, abs=1)
        inner = slice(400, -400)  # resampling fades at the edges
        np.testing.assert_allclose(wave[inner], expected[inner], atol=0.01)


@pytest.mark.parametrize("name", ["a.m4a", "a.mkv", "a.webm"])
def test_sound_of_a_video_is_as_long_as_the_sound(tmp_path: Path, name: str) -> None:
    """Not as long as the pictures, which is what the container tells."""
    path = write_muxed(tmp_path / name, video=60)
    assert duration(path) == pytest.approx(2, abs=0.15)
    assert likeness(read_wave(path), sweep(2, SAMPLE_RATE)) > 0.95


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "300000"}),
        ("a.webm", {"live": "1"}),
        ("a.mkv", {"live": "1"}),
    ],
)
def test_recording_whose_header_knows_no_length_is_heard_to_its_end(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    path = write_muxed(tmp_path / name, seconds=4.0, **options)
    assert duration(path) == pytest.approx(4, abs=0.15)
    assert len(read_wave(path)) == pytest.approx(duration(path) * SAMPLE_RATE, abs=1)
    assert len(read_wave(with_time(path, 3, 3.5))) == SAMPLE_RATE // 2


def test_pictures_without_sound_and_further_tracks_are_told(tmp_path: Path) -> None:
    silent = write_muxed(tmp_path / "a.m4a", video=5, tracks=0)
    with pytest.raises(UserError, match=r"a\.m4a: holds no sound \(its tracks: video\)"):
        duration(silent)
    two = write_muxed(tmp_path / "a.mkv", tracks=2)
    assert any(
        "2 sound tracks; only the first" in r for r in MEDIA["audio"].fingerprint(two).remarks
    )


def test_pause_in_a_recording_is_silence(tmp_path: Path) -> None:
    """Browsers leave out packets in which nobody speaks; what follows keeps its time."""
    path = tmp_path / "a.mkv"
    wave = sweep(1, SAMPLE_RATE)
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for second, start in itertools.product((0, 2), range(0, SAMPLE_RATE, 800)):
            shades = (wave[None, start : start + 800] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(shades, format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, second * SAMPLE_RATE + start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert duration(path) == pytest.approx(3, abs=1e-3)
    whole = np.concatenate([wave, np.zeros(SAMPLE_RATE, dtype=np.float32), wave])
    np.testing.assert_allclose(read_wave(path), whole, atol=1e-3)
    np.testing.assert_allclose(
        read_wave(with_time(path, 1.5, 2.5)), whole[24_000:40_000], atol=1e-3
    )


def in_record(path: Path) -> Path:
    """The address of a file's content in a record."""
    record = json.dumps({"sound": base64.b64encode(path.read_bytes()).decode()})
    path.with_suffix(".jsonl").write_text(record + "\n")
    return Path(f"{path.with_suffix('.jsonl')}::0+{len(record)}/sound")


@pytest.mark.parametrize("name", ["a.m4a", "a.webm"])
def test_sound_inside_a_record_is_heard_alike(tmp_path: Path, name: str) -> None:
    path = write_muxed(tmp_path / name)
    np.testing.assert_array_equal(read_wave(in_record(path)), read_wave(path))
    inner, outer = (with_time(p, 0.5, 1.5) for p in (in_record(path), path))
    np.testing.assert_array_equal(read_wave(inner), read_wave(outer))


def test_channels_are_kept_apart(tmp_path: Path) -> None:
    rate = KINDS["a.mov"][2]
    wave = sweep(1, rate)
    path = write_muxed(tmp_path / "a.mov", wave_CS=np.stack([wave, -wave]))
    assert "cancel" in " ".join(MEDIA["audio"].fingerprint(path).remarks)
    np.testing.assert_allclose(np.abs(read_wave(path)), np.abs(wave), atol=1e-4)


def test_flipped_bytes_end_in_a_sentence(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    path = tmp_path / "broken"
    for name in KINDS:
        content = np.frombuffer(write_muxed(tmp_path / name, 0.5).read_bytes(), np.uint8)
        for reach in (60, len(content)):
            broken = content.copy()
            broken[draw.integers(0, reach, 4)] = draw.integers(0, 256, 4)
            path.write_bytes(broken.tobytes())
            refuses_by_sentence(path, MEDIA["audio"].fingerprint)


def refuses_by_sentence(path: Path, function: Callable[[Path], object]) -> None:
    try:
        function(path)
    except UserError as error:
        said = str(error)
    else:
        return
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert "Errno" not in said


FFMPEG = """#!{python}
import sys, av, numpy, soundfile
given = sys.argv[1:]
options = dict(zip(given[:given.index("-map")], given[1:]))
with av.open(options["-i"].removeprefix("file:"), format=options["-f"]) as container:
    rate = container.streams.audio[0].codec_context.sample_rate
    even = av.AudioResampler(format="flt")
    pieces = [f.to_ndarray()[0] for d in container.decode(audio=0) for f in even.resample(d)]
target = given[-1].removeprefix("file:")
soundfile.write(target, numpy.concatenate(pieces), rate, format="W64", subtype="FLOAT")
"""


@pytest.mark.parametrize("name", ["a.m4a", "a.webm"])
def test_ffmpeg_stands_in_for_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_muxed(tmp_path / name)
    expected = read_wave(path)
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(UserError, match=rf"{name}: .*neither is installed: pip install 'omnitune"):
        duration(path)
    program.write_text(FFMPEG.format(python=sys.executable))
    program.chmod(0o755)
    wave = read_wave(path)
    assert np.abs(len(wave) - len(expected)) < 2000  # a last frame may be filled up
    size = min(len(wave), len(expected)) - 400
    np.testing.assert_allclose(wave[:size], expected[:size], atol=0.01)
    assert len(read_wave(with_time(path, 0.5, 1.0))) == SAMPLE_RATE // 2
    np.testing.assert_array_equal(read_wave(in_record(path)), wave)
    program.write_text("#!/bin/sh\necho 'moov atom\nnot found' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"no sound that ffmpeg can read \(moov atom not found\)"):
        duration(path)
