"""Settings of the standard model: those of its thinker, and of each encoder with its projector."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig

from omnitune.encoders.base import Encoder
from omnitune.encoders.registry import build_encoder
from omnitune.media.registry import MEDIA

MODEL_TYPE = "omnitune"


class EncoderConfig(PreTrainedConfig):
    """An encoder with its projector.

    Args:
        medium: what it encodes, a key of ``MEDIA``.
        settings: of the encoder, from which it can be built again.
        projector: of the projector.
        precision: number formats of the encoder's weights and of the projector's.
    """

    model_type = "omnitune_encoder"

    def __init__(
        self,
        medium: str = "",
        settings: dict[str, Any] | None = None,
        projector: dict[str, Any] | None = None,
        precision: tuple[str, str] | list[str] = ("float32", "float32"),
        **kwargs: Any,
    ) -> None:
        self.medium = medium
        self.settings = settings or {}
        self.projector = projector or {}
        self.precision = list(precision)
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds of it: none of what the library has for language models."""
        names = ("model_type", "medium", "settings", "projector", "precision")
        values = {name: copy.deepcopy(getattr(self, name)) for name in names}
        return values | {"transformers_version": transformers.__version__}  # which a parent drops

    def build(self) -> Encoder:
        """The encoder, without weights."""
        return build_encoder(self.medium, self.settings, self.projector or None)

    @property
    def max_source_positions(self) -> int:
        """Slots of the largest medium, under the name by which vLLM asks for them.

        Raises:
            AttributeError: media of this kind have no largest size.
        """
        encoder = self.build()
        if encoder.most_rows is None:
            raise AttributeError(f"{self.medium} has no largest size")
        return encoder.slots_for(encoder.most_rows)

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Number formats of the encoder's weights and of the projector's."""
        return [getattr(torch, name) for name in self.precision]


class OmniConfig(PreTrainedConfig):
    """Settings of the standard model.

    Args:
        text_config: of the thinker, as its own library class has them, or as a dictionary.
        kwargs: ``vision_config``, ``audio_config`` and those of other media, one an encoder, and
            the id of each one's placeholder (``image_token_id``).
    """

    model_type = MODEL_TYPE
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012  # as the library has it

    def __init__(
        self, text_config: dict[str, Any] | PreTrainedConfig | None = None, **kwargs: Any
    ) -> None:
        if isinstance(text_config, dict):
            settings = dict(text_config)
            text_config = AutoConfig.for_model(settings.pop("model_type", "llama"), **settings)
        self.text_config = text_config if text_config is not None else AutoConfig.for_model("llama")
        media = {m.config_name: kwargs.pop(m.config_name, None) for m in MEDIA.values()}
        for name, config in media.items():
            if config is not None:
                given = config.to_dict() if isinstance(config, EncoderConfig) else dict(config)
                for key in ("model_type", "transformers_version"):
                    given.pop(key, None)
                setattr(self, name, EncoderConfig(**given))
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        super().__init__(**kwargs)

    @property
    def encoders(self) -> dict[str, EncoderConfig]:
        """The encoders by medium, in the order of the registry."""
        found = {name: getattr(self, medium.config_name, None) for name, medium in MEDIA.items()}
        return {name: config for name, config in found.items() if config is not None}

    def placeholder_id(self, medium: str) -> int:
        """Id of the token that fills the slots of a medium."""
        return int(getattr(self, f"{medium}_token_id"))
