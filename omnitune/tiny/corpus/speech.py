"""Speaking sentences with eSpeak NG, in many voices, over some background noise.

The synthesiser keeps internal state from one utterance to the next, which not even
initialising it again resets, so a sentence sounds slightly different when it is spoken
a second time. Every `Synthesizer` therefore loads a copy of the library of its own:
what it says depends on what it said before, and on nothing else in the process.
"""

import ctypes
import random
import shutil
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
MIN_SECONDS, MAX_SECONDS = 1.2, 3.5
NOISES = ("none", "white", "pink", "hum")

_NATIVE_RATE = 22_050
_SYNCHRONOUS, _NO_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)

# The library's accents of English, each with the group that the scores name it by: few and large.
_ACCENTS = {
    "en-us": "american",
    "en": "british",
    "en-gb-scotland": "scottish",
    "en-gb-x-rp": "british",
    "en-029": "caribbean",
    "en-us-nyc": "american",
    "en-gb-x-gbclan": "british",
}
ACCENT_GROUPS = tuple(dict.fromkeys(_ACCENTS.values()))
# Left out: voices that breathe, since their breath is different every time, and the
# whispering, robotic and croaking ones, which are hard to understand.
_TRAIN_VARIANTS = (
    "Alex Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike "
    "Nguyen RicishayMax adam anika announcer antonio aunty belinda benjamin boris david ed "
    "edward f1 f4 grandma gustave ian iven iven2 john kaukovalta klatt klatt3 linda m1 m2 m4 m5 "
    "m6 m8 marcelo max michel miguel norbert pablo paul pedro quincy rob robert shelby steph "
    "steph2 travis"
)
_TEST_VARIANTS = "Gene2 RicishayMax2 edward2 grandpa iven3 klatt2 klatt4 m3 m7 mike2 steph3 zac"


def _voices(variants: str, accents_each: int) -> tuple[str, ...]:
    names, accents = variants.split(), list(_ACCENTS)
    return tuple(
        f"{accents[(index + turn * 3) % len(accents)]}+{name}"
        for index, name in enumerate(names)
        for turn in range(accents_each)
    )


TRAIN_VOICES = _voices(_TRAIN_VARIANTS, 2)
TEST_VOICES = _voices(_TEST_VARIANTS, 1)  # speakers that training never hears in any accent


def accent_group(voice: str) -> str:
    """Returns the one of `ACCENT_GROUPS` that a voice such as "en-us+f3" belongs to."""
    return _ACCENTS[voice.split("+")[0]]


@dataclass(frozen=True)
class Utterance:
    """One sentence and how to say it.

    Attributes:
        text: What is said; a question mark raises the voice at the end.
        voice: An accent and a speaker, such as "en-us+f3".
        rate: Words per minute.
        pitch: 0 to 99; 50 is the speaker's own.
        pitch_range: 0 to 99; 50 is the speaker's own.
        peak: The largest amplitude of the speech, a share of full scale.
        noise: One of `NOISES`.
        snr_db: Speech over noise, in decibels.
        seed: For the noise and the pauses around the speech.
    """

    text: str
    voice: str
    rate: int
    pitch: int
    pitch_range: int
    peak: float
    noise: str
    snr_db: float
    seed: int


def sample_utterance(rng: random.Random, text: str, voices: Sequence[str]) -> Utterance:
    """Draws a way to say `text` with one of the voices."""
    longer = max(0, len(text.split()) - 6)
    return Utterance(
        text=text,
        voice=rng.choice(voices),
        rate=rng.randint(150, 195) + 7 * longer,
        pitch=rng.randint(35, 65),
        pitch_range=rng.randint(35, 65),
        peak=round(rng.uniform(0.25, 0.85), 4),
        noise=rng.choice(NOISES),
        snr_db=round(rng.uniform(15.0, 40.0), 2),
        seed=rng.getrandbits(32),
    )


class Synthesizer:
    """A fresh copy of the eSpeak NG library; use it as a context.

    Raises:
        RuntimeError: The library does not start.
    """

    def __init__(self) -> None:
        # Loaded here and not on import: the library is GPL software, and nothing but
        # building a corpus needs it.
        import espeakng_loader

        self._chunks: list[bytes] = []
        original = Path(espeakng_loader.get_library_path())
        # A file is loaded once per process, so state of its own takes a file of its own;
        # it can go as soon as it is loaded (where the system allows it).
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._library = ctypes.CDLL(shutil.copy(original, folder))
        data = Path(espeakng_loader.get_data_path())
        self._speakers = {path.name for path in (data / "voices" / "!v").iterdir()}
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _NO_EXIT)
        if rate != _NATIVE_RATE:
            raise RuntimeError(f"eSpeak NG did not start: expected 22050 Hz, it answered {rate}")
        self._callback = _CALLBACK(self._collect)  # kept, or it would be freed while in use
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> "Synthesizer":
        return self

    def __exit__(self, *error: object) -> None:
        self._library.espeak_Terminate()

    def _collect(self, samples: object, count: int, events: object) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, count * 2))  # type: ignore[arg-type]
        return 0

    def say(self, utterance: Utterance, rate: int) -> NDArray[np.float32]:
        """Returns the plain speech.

        Args:
            utterance: The text, voice and pitch.
            rate: Words per minute, instead of the utterance's own.

        Returns:
            Samples at 22,050 Hz, float32 [samples] in [-1, 1].

        Raises:
            ValueError: There is no such voice.
        """
        # The library itself falls back on its own voice when only the speaker is unknown.
        known = utterance.voice.split("+")[-1] in self._speakers
        if not known or self._library.espeak_SetVoiceByName(utterance.voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice named {utterance.voice!r}")
        settings = ((_RATE, rate), (_PITCH, utterance.pitch), (_RANGE, utterance.pitch_range))
        for parameter, value in settings:
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        text = utterance.text.encode()
        self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
        samples = np.frombuffer(b"".join(self._chunks), dtype=np.int16)
        return samples.astype(np.float32) / np.float32(32768)


def trim(samples: NDArray[np.float32], share: float = 0.02) -> NDArray[np.float32]:
    """Cuts off both ends as far as they are quieter than `share` of the peak."""
    loud = np.flatnonzero(np.abs(samples) > share * np.abs(samples).max(initial=0.0))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def make_noise(kind: str, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns background noise of root mean square 1.

    Args:
        kind: One of `NOISES`; "none" gives silence.
        count: How many samples, at 16 kHz.
        rng: The source of randomness.

    Returns:
        float32 [count].
    """
    if kind == "none":
        return np.zeros(count, dtype=np.float32)
    if kind == "white":
        return rng.standard_normal(count, dtype=np.float32)
    if kind == "hum":
        base = rng.uniform(48, 62)
        phases = 2 * np.pi * base * np.arange(count) / SAMPLE_RATE
        noise = sum(np.sin(phases * k + rng.uniform(0, 6.28)) / k for k in (1, 2, 3, 5))
    else:  # pink: power falls with frequency
        size = 1 << (count - 1).bit_length()  # a power of two transforms fastest
        spectrum = np.fft.rfft(rng.standard_normal(size))
        spectrum /= np.sqrt(np.arange(1, len(spectrum) + 1))
        noise = np.fft.irfft(spectrum)[:count]
    level = float(np.sqrt(np.mean(np.square(noise))))
    return np.asarray(noise / level, dtype=np.float32)


def _fitting_speech(synthesizer: Synthesizer, utterance: Utterance) -> NDArray[np.float32]:
    """Says the utterance, again faster or slower where it lasts too long or too short."""
    rate = utterance.rate
    for _ in range(3):
        speech = trim(synthesizer.say(utterance, rate))
        seconds = len(speech) / _NATIVE_RATE
        if MIN_SECONDS - 0.1 <= seconds <= MAX_SECONDS - 0.2:
            break
        wanted = 1.4 if seconds < MIN_SECONDS else 3.0
        rate = max(80, min(450, round(rate * seconds / wanted)))
    return speech


def render(synthesizer: Synthesizer, utterance: Utterance) -> NDArray[np.int16]:
    """Says an utterance and lays it over its noise.

    Returns:
        int16 [samples] at 16 kHz, with 50-100 ms before and after the speech.
    """
    import soxr

    rng = np.random.default_rng(utterance.seed)
    speech = _fitting_speech(synthesizer, utterance)
    speech = soxr.resample(speech, _NATIVE_RATE, SAMPLE_RATE, quality="HQ")
    speech = speech * np.float32(utterance.peak / max(float(np.abs(speech).max()), 1e-6))
    before, after = rng.integers(SAMPLE_RATE // 20, SAMPLE_RATE // 10, size=2)
    noise_level = np.sqrt(np.mean(np.square(speech))) * 10 ** (-utterance.snr_db / 20)
    sound = np.pad(speech, (before, after))
    sound = sound + make_noise(utterance.noise, len(sound), rng) * np.float32(noise_level)
    return np.asarray(np.round(np.clip(sound, -1, 1) * 32767), dtype=np.int16)


def write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    """Writes mono samples at 16 kHz, int16 [samples]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def speak_block(jobs: Sequence[tuple[Path, Utterance]]) -> float:
    """Writes WAV files in order; the same jobs give the same bytes, whatever was said before.

    Returns:
        Their total length in seconds.
    """
    total = 0
    with Synthesizer() as synthesizer:
        for path, utterance in jobs:
            samples = render(synthesizer, utterance)
            write_wav(path, samples)
            total += len(samples)
    return total / SAMPLE_RATE
