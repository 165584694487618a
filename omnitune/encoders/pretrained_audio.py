"""wav2vec2, HuBERT, WavLM, wav2vec2-BERT and Parakeet, each with its own feature extractor."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    ParakeetFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
)

from omnitune.encoders.base import Pretrained
from omnitune.encoders.speech import (
    PretrainedSpeech,
    from_settings,
    in_groups,
    pad,
    read_settings,
    weights_dtype,
)
from omnitune.hub import load_pretrained
from omnitune.media.audio import SAMPLE_RATE, SHORTEST

HOP = 160  # samples between the frames of those that hear a spectrum
WAVE, PAIRS, MEL = Wav2Vec2FeatureExtractor, SeamlessM4TFeatureExtractor, ParakeetFeatureExtractor
EXTRACTORS: dict[str, Any] = {
    "wav2vec2": WAVE,
    "hubert": WAVE,
    "wavlm": WAVE,
    "wav2vec2-bert": PAIRS,
    "parakeet_encoder": MEL,
}
WHOLE_PARAKEETS = ("parakeet_ctc", "parakeet_rnnt", "parakeet_tdt")
# What spoils features in training mode; an adapter at the end serves the recogniser behind it.
OFF = {
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "layerdrop": 0.0,
    "add_adapter": False,
}


class PretrainedAudioEncoder(PretrainedSpeech):
    """A pretrained encoder through transformers' own forward pass, up to a layer.

    Padding is masked. Where the first layers are normalised over a whole clip (``group``: the base
    sizes of wav2vec2, HuBERT and WavLM), no mask helps, so only clips of equal length go together.
    """

    type = "pretrained_audio"
    families = (*EXTRACTORS, *WHOLE_PARAKEETS)

    @classmethod
    def from_folder(cls, folder: Path, values: dict[str, Any]) -> Pretrained:
        """The encoder alone; what stands on it (a recogniser, a quantizer) is not loaded."""
        if values["model_type"] in WHOLE_PARAKEETS:
            inner = values.get("encoder_config") or {}
            values = inner | {"model_type": "parakeet_encoder"}
        config = read_settings(folder, values, cls.type)
        whole = from_settings(cls, config, folder).model_config
        module = load_pretrained(AutoModel, folder, config=whole)
        return Pretrained(config, module.state_dict())

    @staticmethod
    def configure(values: dict[str, Any]) -> Any:
        """The library's configuration, without masking, dropped layers and adapter."""
        kind = CONFIG_MAPPING[values["model_type"]]
        rest = {key: value for key, value in values.items() if key != "model_type"}
        known = kind().to_dict()
        return kind(**rest | {key: value for key, value in OFF.items() if key in known})

    @property
    def extractor_class(self) -> Any:
        """That of the family."""
        return EXTRACTORS[self.values["model_type"]]

    @property
    def depth_key(self) -> str:  # type: ignore[override]
        """All families have the same."""
        return "num_hidden_layers"

    @property
    def layers_name(self) -> str:  # type: ignore[override]
        """Parakeet's encoder is the whole module."""
        return "layers" if self.extractor_class is MEL else "encoder.layers"

    @property
    def last_norm(self) -> str | None:
        """Only where norms stand before the layers."""
        before = getattr(self.model_config, "do_stable_layer_norm", False)
        return "encoder.layer_norm" if before else None

    @property
    def samples_per_row(self) -> float:
        """20 ms; Parakeet's rows are 80 ms."""
        if self.extractor_class is WAVE:
            return math.prod(self.model_config.conv_stride)
        if self.extractor_class is PAIRS:
            return HOP * self.extractor.stride
        return HOP * self.model_config.subsampling_factor

    @property
    def _least(self) -> int:
        """Samples of which there is a row."""
        if self.extractor_class is PAIRS:
            return SHORTEST + HOP * (self.extractor.stride - 1)
        if self.extractor_class is MEL:
            return SHORTEST
        samples = 1
        config = self.model_config
        for width, step in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
            samples = (samples - 1) * step + width
        return samples

    @property
    def missed(self) -> int:  # type: ignore[override]
        """Windows that do not fit in any more give no row; one for a piece more than expected."""
        if self.extractor_class is MEL:
            return 0
        return math.ceil(self._least / self.samples_per_row) + 1

    def fresh(self) -> nn.Module:
        """The library's module, without a head."""
        return AutoModel.from_config(self.model_config, dtype=torch.float32)

    def listen(self, wave: np.ndarray) -> Tensor:
        """Samples ``[T, 1]``, or frames ``[T, C]``; silence follows what is shorter than a row."""
        wave = np.pad(wave, (0, max(0, self._least - len(wave))))
        found = self.extractor(
            wave,
            sampling_rate=SAMPLE_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        values = found["input_values" if self.extractor_class is WAVE else "input_features"][0]
        real = found["attention_mask"][0].bool()
        return values[real].reshape(int(real.sum()), -1)

    def rows(self, piece_TC: Tensor) -> int:
        """By the convolutions' widths and steps."""
        config, rows = self.model_config, len(piece_TC)
        if self.extractor_class is WAVE:
            for width, step in zip(config.conv_kernel, config.conv_stride, strict=True):
                rows = (rows - width) // step + 1
        elif self.extractor_class is MEL:
            edges = 2 * ((config.subsampling_conv_kernel_size - 1) // 2)
            for _ in range(int(math.log2(config.subsampling_factor))):
                rows = (rows + edges - config.subsampling_conv_kernel_size) // (
                    config.subsampling_conv_stride
                ) + 1
        return rows

    def hear(self, module: nn.Module, pieces: list[Tensor]) -> list[Tensor]:
        """Runs the library's forward pass; see the class for what goes together."""
        if getattr(self.model_config, "feat_extract_norm", None) == "group":
            return in_groups(pieces, len, lambda group: self._hear(module, group))
        return self._hear(module, pieces)

    def _hear(self, module: nn.Module, pieces: list[Tensor]) -> list[Tensor]:
        padded_BTC, mask_BT = pad(pieces)
        inputs = padded_BTC.to(weights_dtype(module))
        if self.extractor_class is WAVE:
            inputs = inputs.squeeze(-1)
        # Equal lengths go without a mask: the faster, and the only way for norms over a clip.
        mask = None if bool(mask_BT.all()) else mask_BT.long()
        features_BND = module(inputs, attention_mask=mask).last_hidden_state
        return [f[: self.rows(x)] for f, x in zip(features_BND, pieces, strict=True)]
