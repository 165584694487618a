"""FastConformer-type encoders of log-mel features, at 12.5 Hz."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ParakeetEncoder, ParakeetEncoderConfig
from transformers.audio_utils import mel_filter_bank

from omnitune.encoders.base import Encoder, MediaStats
from omnitune.encoders.vocab_head import VocabHead, ctc_compress
from omnitune.media.audio import SAMPLE_RATE, cut, duration, read_wave
from omnitune.sample import UserError

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms every 10 ms, the usual choice for speech
SLOTS_PER_SECOND = SAMPLE_RATE / HOP / 8
AT_ONCE = 64  # pieces that are encoded together


class FastConformerEncoder(Encoder):
    """Mono 16 kHz speech; 8x time reduction of 100 Hz log-mel frames: one slot per 80 ms.

    A clip above ``max_seconds`` is refused or, where ``long_audio`` is ``split``, cut in pauses
    into pieces, each encoded by itself; their slots follow each other and nothing is lost.

    Where the encoder's settings have ``words``, it names that many words in its rows, and of each
    piece ``slot_share`` of the rows become slots, those that say words first.
    """

    type = "fastconformer"
    medium_name = "audio"
    run_settings = ("max_seconds", "long_audio")

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.max_seconds: float = config.get("max_seconds", 30.0)
        long_audio = config.get("long_audio", "refuse")
        if long_audio not in ("refuse", "split"):
            raise UserError(f"audio encoder: long_audio is {long_audio!r}, not refuse or split")
        number = isinstance(self.max_seconds, int | float) and self.max_seconds is not True
        if not number or not 1 <= self.max_seconds < math.inf:
            raise UserError(f"audio encoder: max_seconds is {self.max_seconds!r}, not 1 or more")
        self.split = long_audio == "split"
        self.slot_share: float = config.get("slot_share", 1.0) if self.vocab_size else 1.0
        own = ("max_seconds", "long_audio", "words", "slot_share")
        self.parakeet = ParakeetEncoderConfig(**{k: v for k, v in config.items() if k not in own})

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

    def build(self) -> nn.Module:
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

    def encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes clips ``[frames, bins]`` to ``[slots, feature_dim]``, padding masked out.

        Of a long clip, ``[pieces, frames, bins]``, the pieces' rows follow each other.
        """
        clips = [_pieces(x) for x in inputs]
        flat = [piece for pieces in clips for piece in pieces]
        step = max(AT_ONCE, len(inputs))
        rows: list[Tensor] = []
        for first in range(0, len(flat), step):
            rows += self._encode(module, flat[first : first + step])
        found = iter(rows)
        return [torch.cat([next(found) for _ in pieces]) for pieces in clips]

    def _encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        mel_BTM, mask_BT = pad(inputs)
        features_BND = module(input_features=mel_BTM, attention_mask=mask_BT).last_hidden_state
        rows = [f[: _rows(x)] for f, x in zip(features_BND, inputs, strict=True)]
        if not self.vocab_size:
            return rows
        readout = cast(VocabHead, module.readout)
        return [ctc_compress(f, readout, self._kept(x)) for f, x in zip(rows, inputs, strict=True)]


def _rows(clip: Tensor) -> int:
    """Rows that the encoder makes of a clip or a piece ``[frames, bins]``."""
    return -(-len(clip) // 8)


def _pieces(inputs: Tensor) -> list[Tensor]:
    """The pieces ``[frames, bins]`` of a clip as ``read`` gives it."""
    if inputs.dim() == 2:
        return [inputs]
    return [piece[: int(piece[:, 0].isfinite().sum())] for piece in inputs]


def pad(inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads clips ``[frames, bins]`` with zeros to one ``[B, T, bins]`` and its mask ``[B, T]``."""
    mel_BTM = nn.utils.rnn.pad_sequence(inputs, batch_first=True)
    lengths = torch.tensor([x.shape[0] for x in inputs], device=mel_BTM.device)
    mask_BT = torch.arange(mel_BTM.shape[1], device=mel_BTM.device) < lengths[:, None]
    return mel_BTM, mask_BT


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
