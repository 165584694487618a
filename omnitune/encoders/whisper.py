"""Whisper's encoder: log-mel frames to 50 rows a second, four of them to a slot by default."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnitune.encoders.base import Pretrained
from omnitune.encoders.speech import (
    PretrainedSpeech,
    from_settings,
    in_groups,
    one_of,
    read_settings,
    weights_dtype,
)
from omnitune.hub import load_pretrained
from omnitune.media.audio import SAMPLE_RATE
from omnitune.sample import UserError

HOP = 160  # samples between frames
FRAMES = 2  # to a row
SPILL = 2  # frames behind the last row that the sound still reaches: a frame is 400 samples wide
# Seconds of silence at least in a window under ``audio_window: auto``. In shorter windows Whisper's
# decoder falls into loops (docs/log.md).
MARGIN = 6
ROWS_AT_ONCE = 12_000  # of windows that are encoded together: eight whole ones


class WhisperSpeechEncoder(PretrainedSpeech):
    """Whisper's encoder (Radford et al. 2022), without its decoder.

    It hears windows of 30 s. A longer clip is cut in pauses. A shorter one is followed by silence,
    and the rows of that are left out. With ``audio_window: auto`` the window is as short as the
    clip allows, with the first position embeddings; with ``full`` it is 30 s, as in pretraining.
    """

    type = "whisper"
    families = ("whisper",)
    run_settings = (*PretrainedSpeech.run_settings, "audio_window")
    layers_name, depth_key, last_norm = "layers", "encoder_layers", "layer_norm"
    extractor_class = WhisperFeatureExtractor
    samples_per_row = HOP * FRAMES

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.full = one_of(config, "audio_window", ("auto", "full")) == "full"
        # In the configuration: a model goes on to hear as it was trained.
        self.margin: int = config.get("window_margin", MARGIN)
        self.window: int = self.model_config.max_source_positions
        bins, given = self.model_config.num_mel_bins, self.extractor.feature_size
        if given != bins:
            raise UserError(
                f"audio encoder: its feature extractor's feature_size is {given}, and the "
                f"encoder's num_mel_bins is {bins}; take both from one repository"
            )
        self.longest = self.window * self.samples_per_row / SAMPLE_RATE

    @classmethod
    def from_folder(cls, folder: Path, values: dict[str, Any]) -> Pretrained:
        """The encoder of a whole Whisper; the decoder's weights are not loaded."""
        config = read_settings(folder, values, cls.type) | {"window_margin": MARGIN}
        whole = from_settings(cls, config, folder).model_config
        only = {r"^(model\.)?encoder\.": ""}
        module = load_pretrained(WhisperEncoder, folder, config=whole, key_mapping=only)
        return Pretrained(config, module.state_dict())

    @staticmethod
    def configure(values: dict[str, Any]) -> WhisperConfig:
        """Whisper's configuration; its layers are never dropped here."""
        return WhisperConfig(**values)

    def fresh(self) -> nn.Module:
        """The encoder alone."""
        return WhisperEncoder(self.model_config)

    def listen(self, wave: np.ndarray) -> Tensor:
        """Log-mel ``[frames, bins]`` of the sound; the silence behind it follows in ``hear``."""
        rows = math.ceil(len(wave) / self.samples_per_row)
        frames = rows * FRAMES + SPILL
        # Two frames more, as the last ones would see the sound mirrored at its end.
        samples = min((frames + 2) * HOP, self.window * self.samples_per_row)
        found = self.extractor(
            wave, sampling_rate=SAMPLE_RATE, max_length=samples, return_tensors="pt"
        )
        mel_TM = found["input_features"][0].T[:frames].contiguous()
        return window_mel(mel_TM, frames)  # a whole window has no frames to spill to

    def rows(self, piece_TC: Tensor) -> int:
        """One for 20 ms that are begun."""
        return (len(piece_TC) - SPILL) // FRAMES

    def window_of(self, piece_TC: Tensor) -> int:
        """Rows of the window in which a piece is heard."""
        if self.full:
            return self.window
        a_second = SAMPLE_RATE // self.samples_per_row
        seconds = math.ceil(self.rows(piece_TC) / a_second) + self.margin
        return min(self.window, seconds * a_second)

    def hear(self, module: nn.Module, pieces: list[Tensor]) -> list[Tensor]:
        """Encodes ``[frames, bins]`` each; those of one window together, as nothing masks."""
        return in_groups(pieces, self.window_of, lambda group: self._hear(module, group))

    def _hear(self, module: nn.Module, pieces: list[Tensor]) -> list[Tensor]:
        window = self.window_of(pieces[0])
        step = max(1, ROWS_AT_ONCE // window)
        rows: list[Tensor] = []
        for first in range(0, len(pieces), step):
            mels = [window_mel(p, FRAMES * window) for p in pieces[first : first + step]]
            rows += run_window(module, torch.stack(mels)).unbind()
        return [found[: self.rows(piece)] for found, piece in zip(rows, pieces, strict=True)]


def run_window(module: Any, mel_BTM: Tensor) -> Tensor:
    """``[B, 2 T, bins]`` to ``[B, T, D]``; Whisper's own ``forward`` takes whole windows only."""
    hidden_BDT = gelu(module.conv1(mel_BTM.transpose(1, 2).to(weights_dtype(module))))
    hidden_BTD = gelu(module.conv2(hidden_BDT)).transpose(1, 2)
    hidden_BTD = hidden_BTD + module.embed_positions.weight[: hidden_BTD.shape[1]]
    for layer in module.layers:
        hidden_BTD = layer(hidden_BTD, None)
    return module.layer_norm(hidden_BTD)


def window_mel(mel_TM: Tensor, frames: int) -> Tensor:
    """The first ``frames`` of a clip and the silence after it.

    The extractor holds each value at 8 tenfolds below the loudest or above, and at -10; scaled
    as it scales them that is 2 below, and -1.5.
    """
    # No Python number is made of it: programs that trace the encoder would stop here.
    silence = (mel_TM.max() - 2.0).clamp(min=-1.5)
    missing = max(0, frames - len(mel_TM))
    return torch.cat([mel_TM[:frames], silence.expand(missing, mel_TM.shape[1])])
