"""Sound files are whole, of sensible headers and heard in full, or refused in one sentence."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import ENCODERS, write_wave

from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.media.audio import duration, read_wave
from omnitune.media.registry import MEDIA
from omnitune.media.sound_files import FORMATS
from omnitune.sample import UserError

RATE = 16_000
ENCODER = FastConformerEncoder(ENCODERS["audio"])
TONE = 0.3 * np.sin(np.arange(RATE) / 8)
KINDS = [
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAV", "ULAW"),
    ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_32"), ("AIFF", "PCM_16"),
    ("AIFF", "FLOAT"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("NIST", "PCM_16"),
    ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


def refused(path: Path, function: Callable[[Path], object]) -> bool:
    try:
        function(path)
    except UserError as error:
        said = str(error)
    else:
        return False
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return True


def test_all_formats_are_tried_here() -> None:
    assert {kind for kind, _ in KINDS} == FORMATS


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_file_is_read_whole_and_refused_wherever_it_is_cut(
    tmp_path: Path, kind: str, subtype: str, channels: int
) -> None:
    path = tmp_path / "a.bin"
    soundfile.write(path, np.stack([TONE] * channels, 1), RATE, format=kind, subtype=subtype)
    content = path.read_bytes()
    assert ENCODER.measure(path).whole == pytest.approx(1, abs=0.05)
    assert MEDIA["audio"].fingerprint(path).remarks == ()
    assert 0.1 < read_wave(path).std() < 0.4
    for share in (0.02, 0.3, 0.5, 0.77, 0.999):
        path.write_bytes(content[: int(len(content) * share)])
        assert refused(path, read_wave)
        assert refused(path, MEDIA["audio"].fingerprint)
        assert kind == "FLAC" or refused(path, ENCODER.measure)


@pytest.mark.parametrize(
    "size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36, 2**32 - 1]
)
def test_wav_of_a_pipe_is_heard_to_its_end(tmp_path: Path, size: int) -> None:
    """What writes to a pipe cannot know how long the sound will be; silence begins it here."""
    path = tmp_path / "a.wav"
    wave = np.concatenate([np.zeros(2000), TONE])
    soundfile.write(path, wave, RATE)
    expected = read_wave(path)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", size)
    content[4:8] = struct.pack("<I", min(size + 36, 2**32 - 1))
    path.write_bytes(content)
    assert ENCODER.measure(path).whole == len(wave) / RATE
    np.testing.assert_array_equal(read_wave(path), expected)


def test_empty_wav_with_notes_is_no_pipes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), RATE)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 8) + b"INFOnote")
    with pytest.raises(UserError, match="holds no sound"):
        ENCODER.measure(path)


def test_notes_after_the_sound_may_be_cut(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 5000) + b"INFO")
    ENCODER.read(path)


@pytest.mark.parametrize(
    ("place", "layout", "value", "words"),
    [
        (24, "<I", 0, "is not a sound file"),
        (24, "<I", 1, "1 samples a second; 1,000 to 768,000 are read"),
        (24, "<I", 10_000_000, "10,000,000 samples a second"),
        (22, "<H", 0, "is not a sound file"),
        (22, "<H", 1000, "1000 channels; 64 at most"),
        (20, "<H", 0x4321, "is not a sound file"),
        (40, "<I", 5_000_000, "cut off: its header says 5,000,000 bytes of sound, 16,000 are"),
    ],
)
def test_header_that_promises_nonsense(
    tmp_path: Path, place: int, layout: str, value: int, words: str
) -> None:
    path = write_wave(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, place, value)
    path.write_bytes(content)
    for function in (MEDIA["audio"].check, ENCODER.measure, ENCODER.read, read_wave):
        with pytest.raises(UserError, match=rf"a\.wav: .*{words}"):
            function(path)


@pytest.mark.parametrize("ending", ["raw", "au", "snd", "gsm", "vox", "sd2", "wav", "mp3", "ogg"])
@pytest.mark.parametrize("content", [b"", bytes(64_000), b"some words\n" * 4000])
def test_ending_makes_no_sound_file(tmp_path: Path, ending: str, content: bytes) -> None:
    """libsndfile takes some names' endings for a format without a header."""
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    for function in (MEDIA["audio"].check, read_wave, MEDIA["audio"].fingerprint):
        with pytest.raises(UserError, match=rf"a\.{ending}: is not a sound file"):
            function(path)


def test_sound_is_known_by_its_content(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav")
    expected = read_wave(path)
    np.testing.assert_array_equal(read_wave(path.rename(tmp_path / "a.raw")), expected)


@pytest.mark.parametrize("kind", ["MAT5", "VOC", "PAF"])
def test_format_whose_length_is_not_checked_is_not_read(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, RATE, format=kind, subtype="PCM_16")
    with pytest.raises(UserError, match=rf"a\.wav: {kind} .* is not read"):
        ENCODER.measure(tmp_path / "a.wav")


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS", "WAV"])
def test_joined_files_of_which_one_would_be_heard_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.bin"
    options: dict[str, Any] = (
        {"format": "WAV"} if kind == "WAV" else {"format": "OGG", "subtype": kind}
    )
    parts = []
    for seed in range(2):
        noise = np.random.default_rng(seed).normal(size=8000) * 0.1
        soundfile.write(path, noise, RATE, **options)
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    with pytest.raises(UserError, match="one after the other"):
        ENCODER.measure(path)


def test_a_header_that_says_less_than_is_there_is_told(tmp_path: Path) -> None:
    """Nearly all of the sound would be dropped without a word."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=32_000) * 0.1, RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + (2_000).to_bytes(4, "little") + whole[44:])
    with pytest.raises(UserError, match=r"says 2,000 bytes of sound, and 62,000 more follow"):
        ENCODER.measure(path)
    for more in (b"LIST\x04\0\0\0abcd", bytes(900)):  # another chunk, or bytes of no use
        path.write_bytes(whole + more)
        assert ENCODER.measure(path).whole == 2.0


def test_page_that_is_missing_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.random.default_rng(0).normal(size=4 * RATE) * 0.1, RATE)
    content = path.read_bytes()
    places = [n for n in range(len(content)) if content.startswith(b"OggS", n)]
    assert len(places) > 6
    path.write_bytes(content[: places[4]] + content[places[5] :])
    with pytest.raises(UserError, match="page 4 of the file is missing"):
        ENCODER.measure(path)


def test_flac_of_a_pipe_is_refused_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, TONE, RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not say how long it is; write it anew"):
        ENCODER.measure(path)


def test_flipped_bytes_end_in_a_sentence(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    path = tmp_path / "a.bin"
    for kind, subtype in KINDS[::3]:
        soundfile.write(path, TONE, RATE, format=kind, subtype=subtype)
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(2):
            broken = content.copy()
            broken[draw.integers(0, 80, 2)] = draw.integers(0, 256, 2)
            path.write_bytes(broken.tobytes())
            refused(path, MEDIA["audio"].fingerprint)
            refused(path, ENCODER.read)


def test_too_short_is_refused_by_the_header(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav", 0.01)
    for function in (MEDIA["audio"].check, ENCODER.measure, ENCODER.read, duration):
        with pytest.raises(
            UserError, match=r"a\.wav: 10 ms of sound; too short, the least are 25 ms"
        ):
            function(path)
    MEDIA["audio"].check(write_wave(path, 0.025))


@pytest.mark.parametrize("share", [-1.0, -0.95])
def test_channels_that_cancel_are_heard_by_their_loudest_and_told(
    tmp_path: Path, share: float
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([share * TONE, TONE], 1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(np.abs(read_wave(path)), np.abs(TONE), atol=1e-6)
    (remark,) = MEDIA["audio"].fingerprint(path).remarks
    assert "a.wav: its channels cancel" in remark


@pytest.mark.parametrize("other", [0.0, 0.5, -0.5])
def test_channels_that_do_not_cancel_are_averaged(tmp_path: Path, other: float) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([TONE, other * TONE], 1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_wave(path), (1 + other) / 2 * TONE, atol=1e-6)
    assert MEDIA["audio"].fingerprint(path).remarks == ()


def test_silence_is_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((8000, 2)), RATE)
    (remark,) = MEDIA["audio"].fingerprint(tmp_path / "a.wav").remarks
    assert "a.wav: silent from end to end" in remark


@pytest.mark.parametrize("level", [10.0, 32_768.0, 1e35])
def test_floating_point_beyond_one_is_brought_into_range(tmp_path: Path, level: float) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, level * TONE, RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_wave(path), TONE / np.abs(TONE).max(), atol=1e-5)
    assert ENCODER.read(path).isfinite().all()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "DOUBLE", "ULAW"])
def test_samples_of_any_width_are_the_same_sound(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, RATE, subtype=subtype)
    np.testing.assert_allclose(read_wave(path), TONE, atol=0.02)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "ULAW"])
def test_clipped_sound_is_told_and_loud_sound_is_not(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    noise = np.random.default_rng(0).normal(size=2 * RATE)
    smooth = np.convolve(noise, np.hanning(40), "same")
    for level, clipped in ((0.2, False), (1.0, False), (4.0, True)):
        wave = level * smooth / np.abs(smooth).max()
        soundfile.write(path, wave.clip(-1, 1), RATE, subtype=subtype)
        remarks = MEDIA["audio"].fingerprint(path).remarks
        assert any("samples are clipped" in remark for remark in remarks) == clipped
    soundfile.write(path, 4 * smooth, RATE, subtype="FLOAT")  # holds what was meant
    assert MEDIA["audio"].fingerprint(path).remarks == ()


def test_header_is_the_files_own_not_what_is_heard(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav", 0.5, rate=44_100, channels=2)
    expected = {"sampling_rate": 44_100, "channels": 2, "duration": 0.5}
    assert MEDIA["audio"].header(path) == expected


SHORTEN = (
    b"NIST_1A\n   1024\nsample_count -i 16000\nsample_n_bytes -i 2\nchannel_count -i 1\n"
    b"sample_rate -i 16000\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "but empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n", "git lfs pull"),
        (SHORTEN.ljust(1024) + b"ajkg" * 99, "sph2pipe"),
    ],
)
def test_what_is_no_sound_yet_says_how_to_get_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        duration(path)


def test_sound_of_telephones_that_cannot_be_sought_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, RATE, format="WAV", subtype="GSM610")
    whole = read_wave(tmp_path / "a.wav")
    assert len(whole) == pytest.approx(RATE, rel=0.05)
    part = read_wave(Path(f"{tmp_path}/a.wav::t=0.25,0.5"))
    assert np.array_equal(part, whole[RATE // 4 : RATE // 2])
