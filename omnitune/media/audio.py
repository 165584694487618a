"""Sound: reading it safely, and cutting it where it is quiet."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image

from omnitune.media.base import Fingerprint, Medium
from omnitune.media.sound_files import open_sound
from omnitune.sample import UserError

SAMPLE_RATE = 16_000
SHORTEST = 400  # samples: the usual window of a spectrum of speech, 25 ms
QUIET = SAMPLE_RATE // 20  # samples of a pause that is long enough to cut in
BLOCK = 1 << 18  # samples of each channel that are decoded at a time
# Of a spectrogram: from black to white, and in colours from quiet to loud.
DECIBELS = 70.0
COLOURS = ((13, 8, 45), (96, 26, 128), (190, 55, 84), (249, 142, 9), (252, 255, 200))


class AudioMedium(Medium):
    """Sound, heard as mono at 16 kHz."""

    name = "audio"
    caption_key = "transcript"
    unit = "seconds"
    aliases = ("audios", "audio_path", "audio_url", "input_audio", "sound", "speech")
    noun, verb = "sound", "listen to"
    reader_version = 2
    projector_part = "proj_a"

    def check(self, path: Path) -> None:
        """Checks that the file exists, is sound, whole by its header, and not too short."""
        duration(path)

    def fingerprint(self, path: Path) -> Fingerprint:
        """Hash of the samples."""
        seconds = duration(path)
        content = hashlib.blake2b(digest_size=8)
        levels = Levels()
        with open_sound(path) as sound:
            content.update(f"{sound.samplerate}/{sound.channels}".encode())
            for block_SC in _blocks(path, sound):
                levels.add(block_SC)
                content.update(np.ascontiguousarray(block_SC).data)
        remarks = []
        if levels.silent:
            remarks.append(f"{path}: silent from end to end")
        elif levels.cancels:
            remarks.append(
                f"{path}: its channels cancel each other out; the loudest is heard in their place"
            )
        return Fingerprint(int.from_bytes(content.digest(), "big"), seconds, remarks=tuple(remarks))

    def picture(self, path: Path, side: int) -> Image.Image:
        """The spectrogram."""
        return spectrogram(read_wave(path))

    def sound(self, path: Path) -> bytes:
        """The mono 16 kHz that the model hears."""
        buffer = io.BytesIO()
        soundfile.write(buffer, read_wave(path), SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return buffer.getvalue()


def duration(path: Path) -> float:
    """Seconds of a sound file, from its header; a UserError says what is wrong with it."""
    with open_sound(path) as sound:
        seconds = sound.frames / sound.samplerate
    if seconds * SAMPLE_RATE < SHORTEST:
        raise UserError(
            f"{path}: {seconds * 1000:.0f} ms of sound; too short, the least are "
            f"{SHORTEST * 1000 // SAMPLE_RATE} ms"
        )
    return seconds


def read_wave(path: Path) -> np.ndarray:
    """Reads a sound file to mono float32 at 16 kHz, ``[samples]`` in [-1, 1]; raises UserError.

    Channels are averaged, unless that leaves nearly nothing of them (``Levels.cancels``): then
    the loudest is taken.
    """
    with open_sound(path) as sound:
        rate = sound.samplerate
        wave_SC = np.concatenate(list(_blocks(path, sound)))
    levels = Levels()
    levels.add(wave_SC)
    mono = wave_SC[:, levels.loudest] if levels.cancels else wave_SC.mean(axis=1)
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


class Levels:
    """How loud a clip's channels are, and their mean, as its blocks come in."""

    def __init__(self) -> None:
        self._channels_C: np.ndarray | float = 0.0
        self._mean = 0.0
        self._least, self._most = math.inf, -math.inf

    def add(self, block_SC: np.ndarray) -> None:
        """Takes in samples S of C channels."""
        self._channels_C = self._channels_C + np.square(block_SC, dtype=np.float64).sum(axis=0)
        if block_SC.shape[1] > 1:
            mean_S = block_SC.mean(axis=1, dtype=np.float64)
            self._mean += float(np.square(mean_S).sum())
        self._least = min(self._least, float(block_SC.min()))
        self._most = max(self._most, float(block_SC.max()))

    @property
    def silent(self) -> bool:
        """Whether nothing moves by as much as the smallest step of 16 bits."""
        return self._most - self._least < 2**-15

    @property
    def loudest(self) -> int:
        """Number of the channel that has most energy."""
        return int(np.argmax(self._channels_C))

    @property
    def cancels(self) -> bool:
        """Whether the mean of C channels has 20 dB less energy than if they had nothing in common.

        That would be a C-th of their mean energy. One channel with its poles swapped does this.
        """
        channels_C = np.atleast_1d(self._channels_C)
        independent = channels_C.mean() / len(channels_C)
        return len(channels_C) > 1 and bool(self._mean < 0.01 * independent)


def _blocks(path: Path, sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Decodes samples ``[S, C]`` block by block, all that the header says are there."""
    count = 0
    while len(block_SC := sound.read(BLOCK, dtype="float32", always_2d=True)):
        if not np.isfinite(block_SC).all():
            raise UserError(f"{path}: holds values that are not numbers (NaN or infinity)")
        count += len(block_SC)
        yield block_SC
    if count < sound.frames:
        told, there = (number / sound.samplerate for number in (sound.frames, count))
        raise UserError(
            f"{path}: the sound is damaged: its header says {told:.2f} s, {there:.2f} s can be "
            "decoded; get the file again"
        )


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
