"""What the classes of the standard model have in common: media by name, and how weights arrive.

Shape suffixes: R slots, D feature width, E embedding width.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from omnitune.encoders.base import Encoder
from omnitune.models.media_tensors import SIZES, apart, unstack
from omnitune.models.standard_config import OmniConfig


class OmniPreTrainedModel(PreTrainedModel):
    """What both classes have in common."""

    config_class = OmniConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012  # as the library has it

    @classmethod
    def _from_config(cls, config: OmniConfig, **kwargs: Any) -> Any:
        """A new model; a ``dtype`` that is asked for holds in all its parts.

        Parts have formats of their own only as they were saved. Engines ask for one: they replace
        some layers by theirs in that format and others in the layer's own, and two do not meet.
        """
        dtype: torch.dtype | str | None = kwargs.get("dtype")
        if dtype is not None:
            name = str(dtype).removeprefix("torch.")
            for part in config.encoders.values():
                part.precision = [name, name]
        return super()._from_config(config, **kwargs)

    def init_weights(self) -> None:
        """Draws nothing: each part has the weights that it was built with."""
        self.tie_weights(recompute_mapping=False)

    def initialize_weights(self) -> None:
        """After loading: the library has emptied the buffers that no checkpoint holds."""
        super().initialize_weights()
        backbone: Any = self.base_model
        backbone.restore_buffers()

    def _media_of(self, arguments: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Takes the media out of the arguments of a call: by name, tensor and sizes."""
        media = {}
        for name, encoder in self.modalities.items():
            tensor = encoder.medium.tensor_name
            found, sizes = arguments.pop(tensor, None), arguments.pop(tensor + SIZES, None)
            if found is not None:
                media[name] = found, sizes
        return media

    @property
    def modalities(self) -> dict[str, Encoder]:
        """The encoders without their weights, by medium."""
        backbone: Any = self.base_model
        return backbone.modalities

    def get_features(
        self, name: str, tensor: Tensor, sizes: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """What the thinker reads of some media, slot by slot.

        ``get_image_features``, ``get_audio_features`` and so on are this for one medium.

        Args:
            tensor: as the processor gives it. sizes: each medium's own form.

        Returns:
            ``pooler_output``: ``[R, E]``, of all media end to end, or of each medium where its
            kind is ``apart``; ``last_hidden_state``: the encoder's rows ``[R, D]``.
        """
        encoder, backbone = self.modalities[name], cast(Any, self.base_model)
        sizes = kwargs.get(encoder.medium.tensor_name + SIZES, sizes)
        found = backbone.encode_media(name, tensor, sizes)
        found.pooler_output = apart(encoder, found.pooler_output, unstack(tensor, sizes))
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("get_") and name.endswith("_features"):
            medium = name.removeprefix("get_").removesuffix("_features")
            if medium in self.modalities:
                return partial(self.get_features, medium)
        return super().__getattr__(name)
