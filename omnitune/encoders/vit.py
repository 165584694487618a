"""Vision transformers: SigLIP-type patch features with pixel shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from omnitune.encoders import attention
from omnitune.encoders.base import Encoder, MediaStats
from omnitune.encoders.pretrained_vision import pixel_shuffle
from omnitune.encoders.vocab_head import VocabHead
from omnitune.media.image import decode, dimensions
from omnitune.sample import UserError


class VitEncoder(Encoder):
    """96x96 RGB pictures by default; ``pixel_shuffle`` x as many patches become one slot per side.

    Pixel shuffle stacks each square of neighbouring patches into one longer row (Shi et al. 2016,
    used so by Idefics3 and nanoVLM): fewer slots for the thinker, no information thrown away.
    """

    type = "vit"
    medium_name = "image"
    run_settings = ("pixel_shuffle",)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.pixel_shuffle: int = config.get("pixel_shuffle", 2)
        if type(self.pixel_shuffle) is not int or self.pixel_shuffle < 1:
            raise UserError(
                f"vision encoder: pixel_shuffle is {self.pixel_shuffle!r}, not 1 or more"
            )
        self.stem_channels: tuple[int, ...] = tuple(config.get("stem_channels", ()))
        own = ("pixel_shuffle", "stem_channels", "words")
        known = {k: v for k, v in config.items() if k not in own}
        known["attn_implementation"] = attention.NAME
        self.siglip = SiglipVisionConfig(**known, vision_use_head=False)
        self.image_size = cast(int, self.siglip.image_size)
        side = self.image_size // cast(int, self.siglip.patch_size)
        if side % self.pixel_shuffle:
            raise UserError(
                f"vision encoder: {side} patches a side do not divide into squares of "
                f"pixel_shuffle = {self.pixel_shuffle}"
            )
        self.grid = side // self.pixel_shuffle
        self.fixed_rows = self.grid**2

    def measure(self, path: Path) -> MediaStats:
        """What is finer than the encoder's square is lost, and all pictures but the first."""
        width, height, others = dimensions(path)
        whole = width * height + others
        shown = min(width, self.image_size) * min(height, self.image_size)
        return MediaStats(whole, whole - shown, self.grid**2, self.grid**2)

    def read(self, path: Path) -> Tensor:
        """Reads a file to ``[3, size, size]``, values in [-1, 1]; raises UserError."""
        rgb = decode(path)
        size = self.image_size
        if rgb.size != (size, size):
            rgb = rgb.resize((size, size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(rgb, dtype=np.float32).copy())
        return pixels.permute(2, 0, 1) / 127.5 - 1.0

    def num_slots(self, inputs: Tensor) -> int:
        """The same for every image: the shuffled grid."""
        return self.grid**2

    def rows_of_size(self, size: Sequence[int]) -> int:
        """The shuffled grid."""
        return self.grid**2

    @property
    def feature_dim(self) -> int:
        """Width of the tower times the patches stacked into one row."""
        return self.siglip.hidden_size * self.pixel_shuffle**2

    def build(self) -> nn.Module:
        """A SigLIP vision tower without its pooling head."""
        tower = SiglipVisionModel(self.siglip)
        if self.stem_channels:
            stem = ConvStem((3, *self.stem_channels, self.siglip.hidden_size))
            embeddings = tower.get_submodule("embeddings")
            embeddings.patch_embedding = stem
        # As loud as what is seen: where something stands must be there to be read from the start.
        nn.init.normal_(tower.get_parameter("embeddings.position_embedding.weight"), std=0.5)
        if self.vocab_size:
            tower.readout = VocabHead(self.feature_dim, self.vocab_size, exclusive=False)
        return tower

    @property
    def default_projector(self) -> dict[str, Any]:
        """The usual projector, with a learnt embedding for each slot of the grid."""
        return {"type": "grid_mlp"}

    def encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes B pictures ``[3, S, S]`` to B tensors ``[grid**2, feature_dim]``."""
        pixels_BCHW = torch.stack(inputs)
        patches_BPD = module(pixel_values=pixels_BCHW).last_hidden_state
        return list(self._shuffle(patches_BPD))

    def encode_apart(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """As ``encode``, but no slot's patches see those of another."""
        pixels_BCHW = torch.stack(inputs)
        squares_BSD = self._shuffle(module.get_submodule("embeddings")(pixels_BCHW))
        patches_NPD = squares_BSD.view(-1, self.pixel_shuffle**2, self.siglip.hidden_size)
        hidden_NPD = module.get_submodule("encoder")(inputs_embeds=patches_NPD).last_hidden_state
        normed_NPD = module.get_submodule("post_layernorm")(hidden_NPD)
        return list(normed_NPD.reshape(squares_BSD.shape))

    def _shuffle(self, patches_BPD: Tensor) -> Tensor:
        side = self.grid * self.pixel_shuffle
        return pixel_shuffle(patches_BPD, (side, side), self.pixel_shuffle)


class ConvStem(nn.Module):
    """Patches by 3x3 convolutions that halve the picture each, in place of one linear map.

    A tower trained from nothing on thousands of pictures, not millions, learns shapes many times
    faster so (Xiao et al. 2021, "Early convolutions help transformers see better").
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(channels[:-1]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(channels[-2], channels[-1], 3, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)

    @property
    def weight(self) -> Tensor:
        """The last weights: the tower asks them for the type of its input."""
        return cast(nn.Conv2d, self.layers[-1]).weight

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """``[B, 3, S, S]`` to ``[B, width, S / patch, S / patch]``."""
        return self.layers(pixels_BCHW)
