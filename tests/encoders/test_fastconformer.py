"""Sound: any rate and channel count, never cut, never not-a-number; 12.5 rows a second."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import ENCODERS, write_wave
from torch import nn

from omnitune.encoders.fastconformer import FastConformerEncoder, log_mel
from omnitune.media.audio import SAMPLE_RATE, cut, read_wave
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError


@pytest.fixture(scope="module")
def modality() -> FastConformerEncoder:
    return FastConformerEncoder(ENCODERS["audio"] | {"max_seconds": 3.0})


@pytest.fixture(scope="module")
def encoder(modality: FastConformerEncoder) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return modality.build().eval()


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def test_mono_16_khz_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5, 16_000), 16_000, subtype="FLOAT")
    wave = read_wave(path)
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave, tone(0.5, 16_000), atol=1e-6)


def test_stereo_is_the_mean_of_its_channels_and_one_clip(
    modality: FastConformerEncoder, tmp_path: Path
) -> None:
    stereo, mono = tmp_path / "stereo.wav", tmp_path / "mono.wav"
    write_wave(stereo, 0.5, channels=2)
    channels, rate = soundfile.read(stereo)
    assert not np.allclose(channels[:, 0], channels[:, 1])
    soundfile.write(mono, channels.mean(axis=1), rate, subtype="FLOAT")
    np.testing.assert_allclose(read_wave(stereo), read_wave(mono), atol=1e-6)
    torch.testing.assert_close(modality.read(stereo), modality.read(mono), atol=1e-2, rtol=0)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(
    modality: FastConformerEncoder, tmp_path: Path, rate: int
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, rate), rate)
    wave = read_wave(path)
    assert abs(len(wave) - SAMPLE_RATE) <= 2
    spectrum = np.abs(np.fft.rfft(wave))
    assert abs(int(spectrum.argmax()) - 440) <= 1  # the pitch stays
    inside = slice(1600, -1600)
    np.testing.assert_allclose(wave[:SAMPLE_RATE][inside], tone(1.0, 16_000)[inside], atol=0.01)
    assert abs(modality.read(path).shape[0] - 101) <= 1


def test_tone_above_half_the_rate_does_not_fold_back(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, 44_100, hertz=15_000), 44_100)
    assert np.abs(read_wave(path)[1600:-1600]).max() < 0.01


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(1.0, 16_000), 16_000)
    MEDIA["audio"].check(path)
    wave = read_wave(path)
    assert abs(len(wave) - SAMPLE_RATE) < 2500  # MP3 pads
    assert 0.15 < wave.std() < 0.3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(
    modality: FastConformerEncoder, tmp_path: Path, value: float
) -> None:
    path = tmp_path / "a.wav"
    wave = tone(0.5, 16_000)
    wave[4000] = value
    soundfile.write(path, np.stack([wave, tone(0.5, 16_000)], axis=1), 16_000, subtype="FLOAT")
    with pytest.raises(UserError, match=r"a\.wav: .*not numbers"):
        modality.read(path)


def test_too_long_is_refused_and_never_cut(modality: FastConformerEncoder, tmp_path: Path) -> None:
    modality.read(write_wave(tmp_path / "fits.wav", 3.0))
    path = write_wave(tmp_path / "long.wav", 3.01, rate=44_100)
    with pytest.raises(UserError, match=r"long\.wav: 3\.0 s of sound, the limit is 3 s"):
        modality.read(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.wav", "no such sound file"),
        ("folder", "is a folder"),
        ("zero.wav", "is not a sound file"),
        ("text.wav", "is not a sound file"),
        ("empty.wav", "holds no sound"),
    ],
)
def test_what_is_no_sound_is_refused(
    modality: FastConformerEncoder, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_bytes(b"no sound at all" * 20)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    for function in (modality.medium.check, modality.read):
        with pytest.raises(UserError, match=rf"{name}.*{words}"):
            function(tmp_path / name)


def test_very_short_sound_is_refused_and_the_shortest_is_encoded(
    modality: FastConformerEncoder, encoder: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="10 ms of sound; too short"):
        modality.read(write_wave(tmp_path / "short.wav", 0.01))
    clip = modality.read(write_wave(tmp_path / "shortest.wav", 0.025))
    rows = modality.encode(encoder, [clip])[0]
    assert rows.shape == (modality.num_slots(clip), 16)
    assert rows.isfinite().all()


def test_silence_gives_finite_features(
    modality: FastConformerEncoder, encoder: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(8000), 16_000)
    mel = modality.read(path)
    assert mel.isfinite().all()
    assert modality.encode(encoder, [mel])[0].isfinite().all()


def test_features_do_not_depend_on_the_level() -> None:
    wave = np.random.default_rng(0).normal(size=8000).astype(np.float32) * 0.1
    torch.testing.assert_close(log_mel(wave, 40), log_mel(0.25 * wave, 40), atol=0.2, rtol=0)
    assert log_mel(wave, 40).mean(0).abs().max() < 1e-4
    torch.testing.assert_close(log_mel(wave, 40).std(0), torch.ones(40), atol=1e-3, rtol=0)


def test_higher_tones_lie_in_higher_bins() -> None:
    """Of a tone after silence, the bin that rises most."""
    peaks = []
    for hertz in (300, 800, 2000, 5000):
        wave = np.concatenate([1e-4 * tone(0.5, 16_000, 100), tone(0.5, 16_000, hertz)])
        noise = np.random.default_rng(0).normal(size=wave.size) * 1e-4
        mel = log_mel(wave + noise, 40)
        assert mel.shape == (101, 40)
        loud, soft = mel[60:90], mel[10:40]
        peaks.append(int((loud.mean(0) - soft.mean(0)).div(loud.std(0) + 0.05).argmax()))
    assert peaks == sorted(set(peaks))


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 16, 17, 50, 101, 299])
def test_announced_slots_are_the_encoders_rows(
    modality: FastConformerEncoder, encoder: nn.Module, frames: int
) -> None:
    torch.manual_seed(frames)
    clip = torch.randn(frames, 40)
    assert modality.encode(encoder, [clip])[0].shape[0] == modality.num_slots(clip)
    assert modality.num_slots(clip) == -(-frames // 8)  # 12.5 Hz of 100 Hz


def test_padded_batch_equals_single_clips(
    modality: FastConformerEncoder, encoder: nn.Module
) -> None:
    torch.manual_seed(0)
    clips = [torch.randn(frames, 40) for frames in (33, 120, 8, 97)]
    together = modality.encode(encoder, clips)
    for clip, rows in zip(clips, together, strict=True):
        alone = modality.encode(encoder, [clip])[0]
        assert rows.shape == alone.shape
        torch.testing.assert_close(rows, alone, atol=1e-4, rtol=0)
    assert together[1].std() > 0.1


def test_rows_follow_time(modality: FastConformerEncoder, encoder: nn.Module) -> None:
    """A change at the end of a clip shows most in its last rows: sound is not pooled."""
    torch.manual_seed(0)
    clip = torch.randn(160, 40)
    for start, expected in ((0, 0), (152, 19)):
        other = clip.clone()
        other[start : start + 8] += 3 * torch.randn(8, 40)
        difference = modality.encode(encoder, [clip])[0] - modality.encode(encoder, [other])[0]
        assert abs(int(difference.norm(dim=1).argmax()) - expected) <= 1


def test_limit_is_no_setting_of_the_encoder(modality: FastConformerEncoder) -> None:
    assert modality.max_seconds == 3
    assert FastConformerEncoder(ENCODERS["audio"]).max_seconds == 30
    assert not hasattr(modality.parakeet, "max_seconds")


def splitting(**rest: float) -> FastConformerEncoder:
    return FastConformerEncoder(
        ENCODERS["audio"] | {"max_seconds": 1.0, "long_audio": "split", **rest}
    )


@pytest.mark.parametrize("samples", [16_001, 31_999, 32_000, 32_001, 57_123, 100_000])
def test_pieces_are_the_whole_clip_within_the_limit(samples: int) -> None:
    wave = np.random.default_rng(samples).normal(size=samples).astype(np.float32)
    pieces = cut(wave, 16_000)
    assert len(pieces) == -(-samples // 16_000)
    assert max(map(len, pieces)) <= 16_000
    assert min(map(len, pieces)) > 4_000
    np.testing.assert_array_equal(np.concatenate(pieces), wave)


def test_cuts_are_in_pauses() -> None:
    wave = np.random.default_rng(0).normal(size=48_000).astype(np.float32)
    for pause in (13_000, 29_500):
        wave[pause - 600 : pause + 600] *= 0.01
    ends = np.cumsum([len(piece) for piece in cut(wave, 20_000)])
    assert np.abs(ends[:2] - [13_000, 29_500]).max() < 600


def test_long_clip_is_its_pieces_one_after_the_other(encoder: nn.Module, tmp_path: Path) -> None:
    modality = splitting()
    path = write_wave(tmp_path / "long.wav", 2.6)
    short = write_wave(tmp_path / "short.wav", 0.7)
    clip = modality.read(path)
    pieces = [log_mel(piece, 40) for piece in cut(read_wave(path), SAMPLE_RATE)]
    expected = torch.cat([modality.encode(encoder, [piece])[0] for piece in pieces])
    rows = modality.encode(encoder, [modality.read(short), clip])
    torch.testing.assert_close(rows[1], expected, atol=1e-4, rtol=0)
    assert [len(found) for found in rows] == [
        modality.num_slots(modality.read(short)), modality.num_slots(clip)
    ]  # fmt: skip
    assert rows[1].isfinite().all()
    assert modality.read(short).shape == FastConformerEncoder(ENCODERS["audio"]).read(short).shape


@pytest.mark.parametrize("seconds", [0.025, 0.3, 1.0, 1.01, 2.0, 3.4567])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_header_bounds_the_slots(tmp_path: Path, seconds: float, rate: int) -> None:
    modality = splitting()
    path = write_wave(tmp_path / "a.wav", seconds + 0.001, rate=rate)
    extent = modality.measure(path)
    assert extent.least <= modality.num_slots(modality.read(path)) <= extent.most
    assert extent.most - extent.least <= 4 + 2 * (int(seconds) + 1)
    assert (extent.whole, extent.lost) == (pytest.approx(seconds, abs=0.002), 0)


def test_same_sound_has_the_same_print_in_any_file(tmp_path: Path) -> None:
    wave = write_wave(tmp_path / "a.wav", 0.5)
    samples, rate = soundfile.read(wave)
    soundfile.write(tmp_path / "b.flac", samples, rate)
    soundfile.write(tmp_path / "c.wav", samples, 2 * rate)
    samples[100] += 0.01
    soundfile.write(tmp_path / "d.wav", samples, rate)
    prints = [
        MEDIA["audio"].fingerprint(tmp_path / n) for n in ("a.wav", "b.flac", "c.wav", "d.wav")
    ]
    assert prints[0] == prints[1]
    assert prints[0].amount == 0.5
    assert len({found.content for found in prints}) == 3


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_a_share_of_the_rows_becomes_slots_as_counted_before(share: float, tmp_path: Path) -> None:
    settings = {"words": 20, "slot_share": share, "max_seconds": 1.0, "long_audio": "split"}
    shared = FastConformerEncoder(ENCODERS["audio"] | settings)
    plain = FastConformerEncoder(ENCODERS["audio"] | {"max_seconds": 1.0, "long_audio": "split"})
    encoder = shared.build().eval()
    paths = [write_wave(tmp_path / f"{s}.wav", s, seed=n) for n, s in enumerate((0.1, 0.77, 2.6))]
    inputs = [shared.read(path) for path in paths]
    with torch.no_grad():
        rows = shared.encode(encoder, inputs)
    for path, found, heard in zip(paths, rows, inputs, strict=True):
        assert len(found) == shared.num_slots(heard)
        extent = shared.measure(path)
        assert extent.least <= len(found) <= extent.most
        assert share * plain.num_slots(heard) <= len(found) < share * plain.num_slots(heard) + 3


def test_a_share_needs_an_encoder_that_names_words() -> None:
    assert FastConformerEncoder(ENCODERS["audio"] | {"slot_share": 0.5}).slot_share == 1.0


@pytest.mark.parametrize("given", [math.nan, math.inf, 0.5, True, "30", None])
def test_a_limit_that_is_no_number_of_seconds_is_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"max_seconds is .*, not 1 or more"):
        FastConformerEncoder(ENCODERS["audio"] | {"max_seconds": given})


@pytest.mark.parametrize("shape", [(1, 10, 16), (10,), (10, 7)])
def test_features_of_another_shape_are_refused(
    modality: FastConformerEncoder,
    encoder: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
) -> None:
    monkeypatch.setattr(modality, "encode", lambda *given: [torch.zeros(shape)])
    width = ENCODERS["audio"]["hidden_size"]
    expected = rf"gives features of the shape .*; expected \[slots, {width}\]"
    with pytest.raises(UserError, match=expected):
        modality.encode_checked(encoder, [torch.zeros(80, 40)])


def test_rows_that_are_no_slots_are_refused_also_if_their_sum_is_right(
    modality: FastConformerEncoder, encoder: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [torch.zeros(80, 40), torch.zeros(160, 40)]
    assert [len(x) for x in modality.encode_checked(encoder, clips)] == [10, 20]
    swapped = {80: 20, 160: 10}
    monkeypatch.setattr(modality, "num_slots", lambda x: swapped[len(x)])
    with pytest.raises(UserError, match=r"'fastconformer' gives \[10, 20\] feature rows"):
        modality.encode_checked(encoder, clips)
