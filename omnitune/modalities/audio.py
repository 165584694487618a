"""Sound: reading it safely, log-mel features, and a FastConformer-type encoder at 12.5 Hz."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor, nn
from transformers import ParakeetEncoder, ParakeetEncoderConfig
from transformers.audio_utils import mel_filter_bank

from omnitune.modalities.base import Modality
from omnitune.sample import UserError

SAMPLE_RATE = 16_000
WINDOW, HOP, FFT = 400, 160, 512  # 25 ms every 10 ms, the usual choice for speech


class AudioModality(Modality):
    """Mono 16 kHz speech; 8x time reduction of 100 Hz log-mel frames: one slot per 80 ms."""

    name = "audio"
    projector = "proj_a"
    encoder_part = "audio_encoder"

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        self.max_seconds: float = encoder_config.get("max_seconds", 30.0)
        known = {k: v for k, v in encoder_config.items() if k != "max_seconds"}
        self.parakeet = ParakeetEncoderConfig(**known)

    @classmethod
    def check(cls, path: Path) -> None:
        """Checks that the file exists, is sound and is not empty."""
        duration(path)

    def read(self, path: Path) -> Tensor:
        """Reads a file of any rate and channel count to log-mel ``[frames, bins]``.

        Raises:
            UserError: the file is missing, damaged, empty, too long, or holds NaN.
        """
        seconds = duration(path)
        if seconds > self.max_seconds:
            raise UserError(
                f"{path}: {seconds:.1f} s of sound, the limit is {self.max_seconds:g} s; "
                "cut it into pieces (it is never shortened silently)"
            )
        return log_mel(read_wave(path), self.parakeet.num_mel_bins)

    def num_slots(self, inputs: Tensor) -> int:
        """Each of the three stride-2 convolutions rounds up."""
        frames = inputs.shape[0]
        for _ in range(3):
            frames = (frames - 1) // 2 + 1
        return frames

    def size(self, inputs: Tensor) -> int:
        """Frames, finer than slots."""
        return inputs.shape[0]

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
        return encoder

    def encode(self, encoder: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes clips ``[frames, bins]`` to ``[slots, feature_dim]``, padding masked out."""
        mel_BTM, mask_BT = pad(inputs)
        features_BND = encoder(input_features=mel_BTM, attention_mask=mask_BT).last_hidden_state
        return [f[: self.num_slots(x)] for f, x in zip(features_BND, inputs, strict=True)]


def pad(inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads clips ``[frames, bins]`` with zeros to one ``[B, T, bins]`` and its mask ``[B, T]``."""
    mel_BTM = nn.utils.rnn.pad_sequence(inputs, batch_first=True)
    lengths = torch.tensor([x.shape[0] for x in inputs], device=mel_BTM.device)
    mask_BT = torch.arange(mel_BTM.shape[1], device=mel_BTM.device) < lengths[:, None]
    return mel_BTM, mask_BT


def read_wave(path: Path) -> np.ndarray:
    """Reads a sound file to mono float32 at 16 kHz, ``[samples]`` in [-1, 1]; raises UserError."""
    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise UserError(f"{path}: the sound is damaged ({error})") from None
    mono = wave.mean(axis=1)
    if not np.isfinite(mono).all():
        raise UserError(f"{path}: holds values that are not numbers (NaN or infinity)")
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    if mono.size < WINDOW:
        raise UserError(f"{path}: {mono.size / SAMPLE_RATE * 1000:.0f} ms of sound; too short")
    return mono


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
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, expected a sound file")
        if not path.exists():
            raise UserError(f"{path}: no such sound file")
        info = soundfile.info(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (soundfile.LibsndfileError, RuntimeError):
        raise UserError(f"{path}: is not a sound file (WAV, FLAC, OGG and MP3 are read)") from None
    if info.frames == 0:
        raise UserError(f"{path}: holds no sound (0 samples)")
    return float(info.duration)
