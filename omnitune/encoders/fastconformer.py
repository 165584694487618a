"""Sound: reading it safely, log-mel features, and a FastConformer-type encoder at 12.5 Hz."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor, nn
from transformers import ParakeetEncoder, ParakeetEncoderConfig
from transformers.audio_utils import mel_filter_bank

from omnitune.encoders.base import Fingerprint, MediaStats, Modality
from omnitune.encoders.vocab_head import VocabHead, ctc_compress
from omnitune.media.sound_files import open_sound
from omnitune.sample import UserError

SAMPLE_RATE = 16_000
WINDOW, HOP, FFT = 400, 160, 512  # 25 ms every 10 ms, the usual choice for speech
SLOTS_PER_SECOND = SAMPLE_RATE / HOP / 8
QUIET = SAMPLE_RATE // 20  # samples of a pause that is long enough to cut in
BLOCK = 1 << 18  # samples of each channel that are decoded at a time
AT_ONCE = 64  # pieces that are encoded together


class AudioModality(Modality):
    """Mono 16 kHz speech; 8x time reduction of 100 Hz log-mel frames: one slot per 80 ms.

    A clip above ``max_seconds`` is refused or, where ``long_audio`` is ``split``, cut in pauses
    into pieces, each encoded by itself; their slots follow each other and nothing is lost.

    Where the encoder's settings have ``words``, it names that many words in its rows, and of each
    piece ``slot_share`` of the rows become slots, those that say words first.
    """

    name = "audio"
    projector = "proj_a"
    unit = "seconds"
    encoder_part = "audio_encoder"
    reading = 2

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        self.max_seconds: float = encoder_config.get("max_seconds", 30.0)
        self.split: bool = encoder_config.get("long_audio", "refuse") == "split"
        self.slot_share: float = encoder_config.get("slot_share", 1.0) if self.vocab_size else 1.0
        own = ("max_seconds", "long_audio", "words", "slot_share")
        self.parakeet = ParakeetEncoderConfig(
            **{k: v for k, v in encoder_config.items() if k not in own}
        )

    @classmethod
    def check(cls, path: Path) -> None:
        """Checks that the file exists, is sound, whole by its header, and not too short."""
        duration(path)

    def read(self, path: Path) -> Tensor:
        """Reads a file of any rate and channel count to log-mel ``[frames, bins]``.

        Raises:
            UserError: the file is missing, damaged, empty, too long, or holds NaN.
        """
        self.measure(path)
        wave = read_wave(path)
        limit = int(self.max_seconds * SAMPLE_RATE)
        pieces = cut(wave, limit) if self.split else [wave]
        mels = [log_mel(piece, self.parakeet.num_mel_bins) for piece in pieces]
        if len(mels) == 1:
            return mels[0]
        # Where a shorter piece ends is marked by what no frame holds.
        return nn.utils.rnn.pad_sequence(mels, batch_first=True, padding_value=math.nan)

    def measure(self, path: Path) -> MediaStats:
        """Nothing of a clip is lost: one that is too long is refused, or cut into pieces."""
        seconds = duration(path)
        pieces = math.ceil(seconds / self.max_seconds)
        if pieces > 1 and not self.split:
            raise UserError(
                f"{path}: {seconds:.1f} s of sound, the limit is {self.max_seconds:g} s; "
                "cut it into pieces (it is never shortened silently)"
            )
        slots = seconds * SLOTS_PER_SECOND * self.slot_share
        return MediaStats(seconds, 0.0, max(1, int(slots) - 1), math.ceil(slots) + 2 * pieces)

    @classmethod
    def fingerprint(cls, path: Path) -> Fingerprint:
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

    def num_slots(self, inputs: Tensor) -> int:
        """Each of the three stride-2 convolutions rounds up, and so does ``slot_share``."""
        return sum(self._kept(clip) for clip in _pieces(inputs))

    def _kept(self, clip: Tensor) -> int:
        return math.ceil(_rows(clip) * self.slot_share)

    def size(self, inputs: Tensor) -> int:
        """Frames, finer than slots."""
        return inputs.shape[-2]

    @property
    def feature_dim(self) -> int:
        """Width of the encoder."""
        return self.parakeet.hidden_size

    def build_encoder(self) -> nn.Module:
        """A FastConformer encoder (Rekesh et al. 2023).

        Weights start at torch's fan-in scale: under the library's fixed 0.02 a narrow encoder's
        subsampling starts so quiet that CTC does not leave its plateau of blanks.
        """
        encoder = ParakeetEncoder(self.parakeet)
        for module in encoder.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                module.reset_parameters()
        if self.vocab_size:
            encoder.readout = VocabHead(self.feature_dim, self.vocab_size, exclusive=True)
        return encoder

    def encode(self, encoder: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes clips ``[frames, bins]`` to ``[slots, feature_dim]``, padding masked out.

        Of a long clip, ``[pieces, frames, bins]``, the pieces' rows follow each other.
        """
        clips = [_pieces(x) for x in inputs]
        flat = [piece for pieces in clips for piece in pieces]
        step = max(AT_ONCE, len(inputs))
        rows: list[Tensor] = []
        for first in range(0, len(flat), step):
            rows += self._encode(encoder, flat[first : first + step])
        found = iter(rows)
        return [torch.cat([next(found) for _ in pieces]) for pieces in clips]

    def _encode(self, encoder: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        mel_BTM, mask_BT = pad(inputs)
        features_BND = encoder(input_features=mel_BTM, attention_mask=mask_BT).last_hidden_state
        rows = [f[: _rows(x)] for f, x in zip(features_BND, inputs, strict=True)]
        if not self.vocab_size:
            return rows
        readout = cast(VocabHead, encoder.readout)
        return [ctc_compress(f, readout, self._kept(x)) for f, x in zip(rows, inputs, strict=True)]


def _rows(clip: Tensor) -> int:
    """Rows that the encoder makes of a clip or a piece ``[frames, bins]``."""
    return -(-len(clip) // 8)


def _pieces(inputs: Tensor) -> list[Tensor]:
    """The pieces ``[frames, bins]`` of a clip as ``read`` gives it."""
    if inputs.dim() == 2:
        return [inputs]
    return [piece[: int(piece[:, 0].isfinite().sum())] for piece in inputs]


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


def pad(inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads clips ``[frames, bins]`` with zeros to one ``[B, T, bins]`` and its mask ``[B, T]``."""
    mel_BTM = nn.utils.rnn.pad_sequence(inputs, batch_first=True)
    lengths = torch.tensor([x.shape[0] for x in inputs], device=mel_BTM.device)
    mask_BT = torch.arange(mel_BTM.shape[1], device=mel_BTM.device) < lengths[:, None]
    return mel_BTM, mask_BT


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


def log_mel(wave: np.ndarray, bins: int) -> Tensor:
    """Log-mel frames ``[frames, bins]``, each bin brought to mean 0, variance 1 over the clip.

    The normalisation takes level and microphone out (NeMo's ``per_feature``).
    """
    samples = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))
    samples = torch.cat([samples[:1], samples[1:] - 0.97 * samples[:-1]])  # lifts high frequencies
    window = torch.hann_window(WINDOW, periodic=False)
    spectrum = torch.stft(
        samples, FFT, HOP, WINDOW, window, center=True, pad_mode="constant", return_complex=True
    )
    power_FT = spectrum.abs().square()
    mel_TM = (_filters(bins) @ power_FT).add_(2**-24).log_().T
    mean = mel_TM.mean(dim=0, keepdim=True)
    return (mel_TM - mean) / (mel_TM.std(dim=0, keepdim=True) + 1e-5)


@cache
def _filters(bins: int) -> Tensor:
    bank = mel_filter_bank(
        FFT // 2 + 1, bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(bank.T.astype(np.float32)).contiguous()


def duration(path: Path) -> float:
    """Seconds of a sound file, from its header; a UserError says what is wrong with it."""
    with open_sound(path) as sound:
        seconds = sound.frames / sound.samplerate
    if seconds * SAMPLE_RATE < WINDOW:
        raise UserError(
            f"{path}: {seconds * 1000:.0f} ms of sound; too short, {WINDOW * 1000 // SAMPLE_RATE} "
            "ms are the least"
        )
    return seconds
