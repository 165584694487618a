"""Images: reading them safely, SigLIP-type patch features with pixel shuffle, and their encoder."""

from __future__ import annotations

import hashlib
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from omnitune.modalities import attention
from omnitune.modalities.base import Extent, Fingerprint, Modality, Projector
from omnitune.modalities.readout import Readout
from omnitune.sample import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 50_000_000
LOOK_SIDE = 9  # three colours of 9 x 9 comparisons fill four words of 64 bits
LOOK_STEP = 8  # of 255: a smaller rise is noise of the file format
THUMBNAIL = 16
SAME_COLOUR = 24  # of 255: copies differ by no more anywhere in their thumbnails


class ImageModality(Modality):
    """96x96 RGB pictures by default; ``pixel_shuffle`` x as many patches become one slot per side.

    Pixel shuffle stacks each square of neighbouring patches into one longer row (Shi et al. 2016,
    used so by Idefics3 and nanoVLM): fewer slots for the thinker, no information thrown away.
    """

    name = "image"
    projector = "proj_v"
    unit = "pixels"
    look_words, look_distance = 4, 4
    encoder_part = "vision_encoder"
    glimpsed = True

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        self.pixel_shuffle: int = encoder_config.get("pixel_shuffle", 2)
        self.stem_channels: tuple[int, ...] = tuple(encoder_config.get("stem_channels", ()))
        own = ("pixel_shuffle", "stem_channels", "words")
        known = {k: v for k, v in encoder_config.items() if k not in own}
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

    @classmethod
    def check(cls, path: Path) -> None:
        """Checks that the file exists, is one of ``FORMATS`` and is not huge."""
        _open(path).close()

    def measure(self, path: Path) -> Extent:
        """Every picture is brought to the encoder's square; what is finer than that is lost."""
        with _open(path) as image:
            width, height = image.size
        shown = min(width, self.image_size) * min(height, self.image_size)
        return Extent(width * height, width * height - shown, self.grid**2, self.grid**2)

    @classmethod
    def fingerprint(cls, path: Path) -> Fingerprint:
        """Hash of the pixels; its look is where each colour rises from left to right (dHash)."""
        rgb = _decode(path)
        content = hashlib.blake2b(f"{rgb.size}".encode(), digest_size=8)
        content.update(rgb.tobytes())
        small = rgb.resize((LOOK_SIDE + 1, LOOK_SIDE), Image.Resampling.BILINEAR)
        rises = np.diff(np.asarray(small, dtype=np.int16), axis=1) > LOOK_STEP
        bits = np.zeros(64 * cls.look_words, dtype=bool)
        bits[: rises.size] = rises.ravel()
        look = np.packbits(bits).view(np.uint64)
        amount = rgb.width * rgb.height
        return Fingerprint(int.from_bytes(content.digest(), "big"), amount, tuple(look.tolist()))

    @classmethod
    def likeness(cls, path: Path, other: Path) -> float:
        """By the largest difference between two thumbnails."""
        one, two = (
            np.asarray(_decode(p).resize((THUMBNAIL,) * 2, Image.Resampling.BILINEAR), np.int16)
            for p in (path, other)
        )
        difference = int(np.abs(one - two).max())
        return 1 - difference / 255 if difference <= SAME_COLOUR else 0.0

    def read(self, path: Path) -> Tensor:
        """Reads a file to ``[3, size, size]``, values in [-1, 1]; raises UserError."""
        rgb = _decode(path)
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
        tower = SiglipVisionModel(self.siglip)
        if self.stem_channels:
            stem = ConvStem((3, *self.stem_channels, self.siglip.hidden_size))
            embeddings = tower.get_submodule("embeddings")
            embeddings.patch_embedding = stem
        # As loud as what is seen: where something stands must be there to be read from the start.
        nn.init.normal_(tower.get_parameter("embeddings.position_embedding.weight"), std=0.5)
        if self.words:
            tower.readout = Readout(self.feature_dim, self.words, exclusive=False)
        return tower

    def build_projector(self, width: int) -> nn.Module:
        """The usual projector, with a learnt embedding for each slot of the grid."""
        return GridProjector(self.feature_dim, width, self.grid**2)

    def encode(self, encoder: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes B pictures ``[3, S, S]`` to B tensors ``[grid**2, feature_dim]``."""
        pixels_BCHW = torch.stack(inputs)
        patches_BPD = encoder(pixel_values=pixels_BCHW).last_hidden_state
        return list(self._shuffle(patches_BPD))

    def encode_apart(self, encoder: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """As ``encode``, but no slot's patches see those of another."""
        pixels_BCHW = torch.stack(inputs)
        squares_BSD = self._shuffle(encoder.get_submodule("embeddings")(pixels_BCHW))
        patches_NPD = squares_BSD.view(-1, self.pixel_shuffle**2, self.siglip.hidden_size)
        hidden_NPD = encoder.get_submodule("encoder")(inputs_embeds=patches_NPD).last_hidden_state
        normed_NPD = encoder.get_submodule("post_layernorm")(hidden_NPD)
        return list(normed_NPD.reshape(squares_BSD.shape))

    def _shuffle(self, patches_BPD: Tensor) -> Tensor:
        batch, _, width = patches_BPD.shape
        r, g = self.pixel_shuffle, self.grid
        squares = patches_BPD.view(batch, g, r, g, r, width).permute(0, 1, 3, 2, 4, 5)
        return squares.reshape(batch, g * g, r * r * width)


class GridProjector(Projector):
    """Adds to each slot an embedding of its place, so that "top left" can be looked up at once."""

    def __init__(self, feature_dim: int, width: int, slots: int) -> None:
        super().__init__(feature_dim, width)
        self.place_SE = nn.Parameter(torch.randn(slots, width) * 0.02)

    def forward(self, features_RD: Tensor) -> Tensor:
        """Projects the rows of whole pictures, ``[pictures * slots, D]``."""
        rows_RE = super().forward(features_RD)
        pictures = -(-len(rows_RE) // len(self.place_SE))
        return rows_RE + self.place_SE.repeat(pictures, 1)[: len(rows_RE)]

    @torch.no_grad()
    def match_scale(self, embeddings_VD: Tensor) -> None:
        """Scales features and places to the spread of the thinker's embeddings."""
        self.place_SE.zero_()
        super().match_scale(embeddings_VD)
        # Two independent parts of half the power each are together as loud as one word.
        self.down.weight.mul_(0.5**0.5)
        self.place_SE.normal_(std=float(embeddings_VD.float().std()) * 0.5**0.5)

    @torch.no_grad()
    def silence(self) -> None:
        """Features and places are zero."""
        super().silence()
        self.place_SE.zero_()


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


def _decode(path: Path) -> Image.Image:
    """Reads a file to upright RGB; raises UserError."""
    with _open(path) as image:
        try:
            return _to_rgb(ImageOps.exif_transpose(image))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path}: the image is damaged ({error})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    """Eight bits a channel; 16-bit greyscale is scaled, where Pillow would clip it to white."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    return image.convert("RGB")


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
