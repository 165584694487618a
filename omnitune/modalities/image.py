"""Images: reading them safely, SigLIP-type patch features with pixel shuffle, and their encoder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from omnitune.modalities.base import Modality
from omnitune.sample import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 50_000_000


class ImageModality(Modality):
    """96x96 RGB pictures by default; ``pixel_shuffle`` x as many patches become one slot per side.

    Pixel shuffle stacks each square of neighbouring patches into one longer row (Shi et al. 2016,
    used so by Idefics3 and nanoVLM): fewer slots for the thinker, no information thrown away.
    """

    name = "image"
    projector = "proj_v"

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        self.pixel_shuffle: int = encoder_config.get("pixel_shuffle", 2)
        known = {k: v for k, v in encoder_config.items() if k != "pixel_shuffle"}
        self.siglip = SiglipVisionConfig(**known, vision_use_head=False)
        self.image_size = cast(int, self.siglip.image_size)
        side = self.image_size // cast(int, self.siglip.patch_size)
        if side % self.pixel_shuffle:
            raise UserError(
                f"vision encoder: {side} patches a side do not divide into squares of "
                f"pixel_shuffle = {self.pixel_shuffle}"
            )
        self.grid = side // self.pixel_shuffle

    @classmethod
    def check(cls, path: Path) -> None:
        """Checks that the file exists, is one of ``FORMATS`` and is not huge."""
        _open(path).close()

    def read(self, path: Path) -> Tensor:
        """Reads a file to ``[3, size, size]``, values in [-1, 1]; raises UserError."""
        with _open(path) as image:
            try:
                rgb = image.convert("RGB")
            except (OSError, SyntaxError, ValueError) as error:
                raise UserError(f"{path}: the image is damaged ({error})") from None
        size = self.image_size
        if rgb.size != (size, size):
            rgb = rgb.resize((size, size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(rgb, dtype=np.float32).copy())
        return pixels.permute(2, 0, 1) / 127.5 - 1.0

    def num_slots(self, inputs: Tensor) -> int:
        """The same for every image: the shuffled grid."""
        return self.grid**2

    @property
    def feature_dim(self) -> int:
        """Width of the tower times the patches stacked into one row."""
        return self.siglip.hidden_size * self.pixel_shuffle**2

    def build_encoder(self) -> nn.Module:
        """A SigLIP vision tower without its pooling head."""
        return SiglipVisionModel(self.siglip)

    def encode(self, encoder: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes B pictures ``[3, S, S]`` to B tensors ``[grid**2, feature_dim]``."""
        pixels_BCHW = torch.stack(inputs)
        patches_BPD = encoder(pixel_values=pixels_BCHW).last_hidden_state
        return list(self._shuffle(patches_BPD))

    def _shuffle(self, patches_BPD: Tensor) -> Tensor:
        batch, _, width = patches_BPD.shape
        r, g = self.pixel_shuffle, self.grid
        squares = patches_BPD.view(batch, g, r, g, r, width).permute(0, 1, 3, 2, 4, 5)
        return squares.reshape(batch, g * g, r * r * width)


def _open(path: Path) -> Image.Image:
    """Opens an image file (header only) or raises a UserError that says what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, expected an image file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{path}: more than {MAX_PIXELS // 10**6} megapixels; reduce it") from None
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"{path}: is not an image ({', '.join(FORMATS)} are read)") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise UserError(
            f"{path}: {image.width} x {image.height} pixels, the limit is "
            f"{MAX_PIXELS // 10**6} megapixels; reduce it"
        )
    return image
