"""FastConformer-type encoders of log-mel features, at 12.5 Hz."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ParakeetEncoder, ParakeetEncoderConfig
from transformers.audio_utils import mel_filter_bank

from omnitune.encoders.speech import SpeechEncoder, pad
from omnitune.encoders.vocab_head import VocabHead, ctc_compress
from omnitune.media.audio import SAMPLE_RATE

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms every 10 ms, the usual choice for speech
SAMPLES_PER_ROW = 8 * HOP


class FastConformerEncoder(SpeechEncoder):
    """8x time reduction of 100 Hz log-mel frames: one slot per 80 ms.

    Where the encoder's settings have ``words``, it names that many words in its rows, and of each
    piece ``slot_share`` of the rows become slots, those that say words first.
    """

    type = "fastconformer"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.slot_share: float = config.get("slot_share", 1.0) if self.vocab_size else 1.0
        own = ("max_seconds", "long_audio", "words", "slot_share")
        self.parakeet = ParakeetEncoderConfig(**{k: v for k, v in config.items() if k not in own})

    @property
    def samples_per_row(self) -> float:
        """80 ms, more where only a share of the rows becomes slots."""
        return SAMPLES_PER_ROW / self.slot_share

    def listen(self, wave: np.ndarray) -> Tensor:
        """Log-mel ``[frames, bins]``."""
        return log_mel(wave, self.parakeet.num_mel_bins)

    def rows(self, piece_TC: Tensor) -> int:
        """Each of the three stride-2 convolutions rounds up, and so does ``slot_share``."""
        return math.ceil((len(piece_TC) + 7) // 8 * self.slot_share)

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

    def hear(self, module: nn.Module, pieces: list[Tensor]) -> list[Tensor]:
        """Encodes ``[frames, bins]`` to ``[slots, feature_dim]`` each, padding masked out."""
        mel_BTM, mask_BT = pad(pieces)
        features_BND = module(input_features=mel_BTM, attention_mask=mask_BT).last_hidden_state
        rows = [f[: (len(x) + 7) // 8] for f, x in zip(features_BND, pieces, strict=True)]
        if not self.vocab_size:
            return rows
        readout = cast(VocabHead, module.readout)
        return [ctc_compress(f, readout, self.rows(x)) for f, x in zip(rows, pieces, strict=True)]


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
