"""An open sound: what its header tells, and how its samples are had, whoever decodes them.

Shape suffixes: S samples, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import soundfile

from omnitune.sample import UserError

RATES = (1_000, 768_000)  # of heart sounds, and the finest recorders
MAX_CHANNELS = 64
MAX_SAMPLES = 1 << 30  # of all channels of a sound that is decoded at once: 4 GiB
# Seconds by which a stretch may end behind the sound: manifests round, and measure MP3 otherwise.
BEYOND = 0.1


@dataclass(frozen=True)
class Sound:
    """A sound whose header was read, or a stretch of one.

    Attributes:
        samplerate: samples a second.
        channels: how many there are.
        frames: samples of each channel that the header says are there, of the stretch.
        decode: gives the samples ``[S, C]`` from a place on, so many of them; fewer where the file
            ends too early.
        first: where in the file the stretch begins, in samples.
        remarks: what its owner should know of it, to be put after the path.
    """

    samplerate: int
    channels: int
    frames: int
    decode: Callable[[int, int], np.ndarray]
    first: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it is by its header."""
        return self.frames / self.samplerate

    def read(self) -> np.ndarray:
        """The samples ``[S, C]``, float32; fewer than ``frames`` if the file ends too early."""
        return self.decode(self.first, self.frames)

    def stretch(self, start: float, stop: float | None) -> Sound:
        """The part between two times in seconds, without decoding what lies outside.

        Raises:
            UserError: it does not lie within the sound.
        """
        end = self.seconds if stop is None else stop
        if start >= self.seconds or end > self.seconds + BEYOND:
            raise UserError(
                f"the stretch goes from {start:g} s to {end:g} s, but the sound is only "
                f"{self.seconds:.2f} s long"
            )
        first = round(start * self.samplerate)
        last = min(round(end * self.samplerate), self.frames)
        if last <= first:
            raise UserError(f"the stretch from {start:g} s to {end:g} s holds no sound (0 samples)")
        return replace(self, first=self.first + first, frames=last - first)


def of_soundfile(opened: soundfile.SoundFile) -> Sound:
    """A sound that libsndfile decodes, as long as it is open."""

    def decode(place: int, count: int) -> np.ndarray:
        if not opened.seekable():  # GSM 6.10, as telephones have it
            return opened.read(place + count, dtype="float32", always_2d=True)[place:]
        opened.seek(place)
        return opened.read(count, dtype="float32", always_2d=True)

    return Sound(opened.samplerate, opened.channels, opened.frames, decode)


def check_length(sound: Sound) -> None:
    """Refuses, by its header, a sound that is too long to be held in memory."""
    samples = sound.frames * sound.channels
    if samples > MAX_SAMPLES:
        hours, most = (sound.seconds * n / samples / 3600 for n in (samples, MAX_SAMPLES))
        raise UserError(
            f"{hours:,.1f} hours of sound; of this kind {most:.1f} are read at once; name a "
            "stretch of it (FILE::t=START,STOP, in seconds)"
        )


def check_limits(rate: int, channels: int) -> None:
    """Refuses what a header may promise and no sound for speech holds."""
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{rate:,} samples a second; {RATES[0]:,} to {RATES[1]:,} are read")
    if channels > MAX_CHANNELS:
        raise UserError(f"{channels} channels; {MAX_CHANNELS} at most are read")
