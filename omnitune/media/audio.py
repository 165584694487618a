"""Sound: reading it safely, and cutting it where it is quiet."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from PIL import Image

from omnitune.media.base import Fingerprint, Medium, open_file
from omnitune.media.segments import split_time
from omnitune.media.sound import Sound
from omnitune.media.sound_files import open_sound
from omnitune.sample import UserError

SAMPLE_RATE = 16_000
SHORTEST = 400  # samples: the usual window of a spectrum of speech, 25 ms
FULL = 0.98  # level from which a sound may be clipped
CLIPPED = 0.002  # share of the samples from which it is told
QUIET = SAMPLE_RATE // 20  # samples of a pause that is long enough to cut in
# Of a spectrogram: from black to white, and in colours from quiet to loud.
DECIBELS = 70.0
BARS = "▁▂▃▄▅▆▇█"
COLOURS = ((13, 8, 45), (96, 26, 128), (190, 55, 84), (249, 142, 9), (252, 255, 200))


class AudioMedium(Medium):
    """Sound, heard as mono at 16 kHz."""

    name = "audio"
    caption_key = "transcript"
    unit = "seconds"
    aliases = ("audios", "audio_path", "audio_url", "input_audio", "sound", "speech", "audio_id")
    noun, verb = "sound", "listen to"
    reader_version = 2
    projector_part = "proj_a"
    tensor_name, processor_name = "input_features", "feature_extractor"
    token_type = 3
    from_microphone = True

    def check(self, path: Path) -> None:
        """Checks that the file exists, is sound, whole by its header, and not too short."""
        duration(path)

    def fingerprint(self, path: Path) -> Fingerprint:
        """Hash of the samples."""
        duration(path)  # not too short
        wave_SC, sound = _decode(path)
        form = f"{sound.samplerate}/{sound.channels}"
        content = hashlib.blake2b(form.encode(), digest_size=8)
        content.update(wave_SC.data)
        remarks = [*sound.remarks, *_remarks(wave_SC)]
        return Fingerprint(
            int.from_bytes(content.digest(), "big"),
            sound.seconds,
            remarks=tuple(f"{path}: {remark}" for remark in remarks),
        )

    def header(self, path: Path) -> dict[str, float]:
        """The file's own ``sampling_rate`` and ``channels``, and its ``duration`` in seconds."""
        with open_sound(path) as sound:
            return {
                "sampling_rate": sound.samplerate,
                "channels": sound.channels,
                "duration": sound.seconds,
            }

    def picture(self, path: Path, side: int) -> Image.Image:
        """The spectrogram."""
        return spectrogram(read_wave(path))

    def store(self, given: Any, folder: Path) -> Path:
        """Samples at 16 kHz, or a pair of samples and their number a second; ``[S]`` or ``[S, C]``.

        Raises:
            UserError: they are no numbers, or of another form.
        """
        wave, rate = given if isinstance(given, tuple) and len(given) == 2 else (given, SAMPLE_RATE)
        try:
            wave = np.asarray(wave, dtype=np.float32)
            if wave.ndim not in (1, 2) or int(rate) < 1:
                raise ValueError(f"samples of the form {wave.shape} at {rate} a second")
            if wave.ndim == 2 and wave.shape[0] < wave.shape[1]:
                wave = wave.T  # channels first, as torch has them
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"a sound is given as {type(given).__name__} ({error}), expected a path or samples "
                "at 16 kHz"
            ) from None
        path = folder / "sound.wav"
        try:
            soundfile.write(path, wave, int(rate), subtype="FLOAT")
        except (soundfile.LibsndfileError, OverflowError) as error:
            raise UserError(
                f"samples of the form {wave.shape} at {rate} a second are no sound ({error})"
            ) from None
        return path

    def sound(self, path: Path) -> bytes:
        """The mono 16 kHz that the model hears."""
        buffer = io.BytesIO()
        soundfile.write(buffer, read_wave(path), SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return buffer.getvalue()

    def sketch(self, path: Path, width: int) -> str:
        """The waveform, its loudest place as a full block, and its length."""
        wave = np.abs(read_wave(path))
        length = f" {len(wave) / SAMPLE_RATE:.1f} s"
        places = np.linspace(0, len(wave), max(1, width - len(length)) + 1).astype(int)[:-1]
        peaks = np.maximum.reduceat(wave, places)
        levels = peaks / max(float(peaks.max()), 1e-4) * len(BARS)
        return "".join(BARS[n] for n in levels.astype(int).clip(0, len(BARS) - 1)) + length

    def portable(self, path: Path) -> tuple[str, bytes]:
        """WAV and MP3 as they are, other files and stretches of files as WAV."""
        with open_file(split_time(path)[0], "sound file") as file:
            content = file.read()
        whole = split_time(path)[0] == path
        if whole and content[:4] == b"RIFF" and content[8:12] == b"WAVE":
            return "audio/wav", content
        if whole and (content[:3] == b"ID3" or path.suffix.lower() == ".mp3"):
            return "audio/mpeg", content
        return "audio/wav", self.sound(path)


def duration(path: Path) -> float:
    """Seconds of a sound file, from its header; a UserError says what is wrong with it."""
    with open_sound(path) as sound:
        seconds = sound.seconds
    if seconds * SAMPLE_RATE < SHORTEST:
        raise UserError(
            f"{path}: {seconds * 1000:.0f} ms of sound; too short, the least are "
            f"{SHORTEST * 1000 // SAMPLE_RATE} ms"
        )
    return seconds


def read_wave(path: Path) -> np.ndarray:
    """Reads a sound file to mono float32 at 16 kHz, ``[samples]`` in [-1, 1]; raises UserError.

    Channels are averaged, unless that leaves nearly nothing of them: then the loudest is taken.
    """
    wave_SC, sound = _decode(path)
    rate = sound.samplerate
    if _cancels(wave_SC):
        mono = wave_SC[:, np.square(wave_SC, dtype=np.float64).sum(axis=0).argmax()]
    else:
        mono = wave_SC.mean(axis=1)
    if (peak := np.abs(mono).max()) > 1:  # floating-point files may hold anything
        mono = mono / peak
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    if not mono.size:
        raise UserError(f"{path}: nothing is left of it at {SAMPLE_RATE} samples a second")
    return mono


def spectrogram(wave: np.ndarray) -> Image.Image:
    """Draws mono 16 kHz sound: time to the right, pitch upwards to 8 kHz, loud parts bright.

    Args:
        wave: ``[samples]``; only its first 30 seconds are drawn.
    """
    pieces_TW = np.lib.stride_tricks.sliding_window_view(wave[: 30 * SAMPLE_RATE], SHORTEST)
    power_TF = np.abs(np.fft.rfft(pieces_TW[:: SAMPLE_RATE // 100] * np.hanning(SHORTEST))) ** 2
    decibel_FT = 10 * np.log10(power_TF + 1e-10).T[::-1]
    level_FT = np.clip(1 + (decibel_FT - decibel_FT.max()) / DECIBELS, 0, 1)
    places = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(level_FT, places, shades) for shades in zip(*COLOURS, strict=True)]
    picture = Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))
    return picture.resize((min(picture.width, 480), 96), Image.Resampling.BOX)


def _cancels(wave_SC: np.ndarray) -> bool:
    """Whether the mean of C channels has 20 dB less energy than if they had nothing in common.

    That would be a C-th of their mean energy. One channel with its poles swapped does this.
    """
    channels = wave_SC.shape[1]
    mean_S = wave_SC.mean(axis=1, dtype=np.float64)
    independent = np.square(wave_SC, dtype=np.float64).sum() / channels**2
    return channels > 1 and bool(np.square(mean_S).sum() < 0.01 * independent)


def _remarks(wave_SC: np.ndarray) -> Iterator[str]:
    """What is odd about samples that can be used."""
    if wave_SC.max() - wave_SC.min() < 2**-15:  # the smallest step of 16 bits
        yield "silent from end to end"
        return
    if _cancels(wave_SC):
        yield "its channels cancel each other out; the loudest is heard in their place"
    if (share := _clipped(wave_SC)) > CLIPPED:
        yield f"too loud: {100 * share:.1f} % of its samples are clipped at the highest level"


def _clipped(wave_SC: np.ndarray) -> float:
    """The share of samples that stay at the highest or lowest level, three or more in a row.

    A tone of full level touches it with fewer, unless it is very low.
    """
    most = np.abs(wave_SC).max()
    if not FULL <= most <= 1:  # floating-point files that go beyond hold what was meant
        return 0.0
    at_SC = np.abs(wave_SC) >= most * (1 - 2**-12)
    return float((at_SC[:-2] & at_SC[1:-1] & at_SC[2:]).mean()) if len(at_SC) > 2 else 0.0


def _decode(path: Path) -> tuple[np.ndarray, Sound]:
    """All samples that the header says are there ``[S, C]``, and what it says."""
    with open_sound(path) as sound:
        wave_SC = sound.read()
    if not np.isfinite(wave_SC).all():
        raise UserError(f"{path}: holds values that are not numbers (NaN or infinity)")
    if len(wave_SC) < sound.frames:
        told, there = (number / sound.samplerate for number in (sound.frames, len(wave_SC)))
        raise UserError(
            f"{path}: the sound is damaged: its header says {told:.2f} s, {there:.2f} s can be "
            "decoded; get the file again"
        )
    return wave_SC, sound


def cut(wave: np.ndarray, limit: int) -> list[np.ndarray]:
    """Cuts samples into as few pieces of at most ``limit`` as will do, where it is quietest.

    A cut lies within a quarter of a piece, or a second, of the place that would make all that is
    left equally long.
    """
    pieces = []
    for count in range(-(-len(wave) // limit), 1, -1):
        even = len(wave) / count
        reach = min(even / 4, SAMPLE_RATE)
        first = max(int(even - reach), len(wave) - (count - 1) * limit)
        last = min(int(even + reach), limit)
        place = _quietest(wave, first, last)
        pieces.append(wave[:place])
        wave = wave[place:]
    return [*pieces, wave]


def _quietest(wave: np.ndarray, first: int, last: int) -> int:
    """The place from ``first`` to ``last`` around which there is least energy."""
    half = QUIET // 2
    power = np.square(wave[first - half : last + half], dtype=np.float64)
    total = np.concatenate([[0.0], np.cumsum(power)])
    return first + int((total[2 * half :] - total[: -2 * half]).argmin())
