"""Images: reading them safely, SigLIP-type patch features with pixel shuffle, and their encoder."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from omnitune.encoders import attention
from omnitune.encoders.base import (
    Fingerprint,
    MediaStats,
    Modality,
    Projector,
    open_file,
    reason,
)
from omnitune.encoders.vocab_head import VocabHead
from omnitune.sample import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 50_000_000
PREVIEW, MASK = 1, 4  # bits of a TIFF page's kind (NewSubfileType)
LOOK_SIDE = 9  # three colours of 9 x 9 comparisons fill four words of 64 bits
LOOK_STEP = 8  # of 255: a smaller rise is noise of the file format
THUMBNAIL = 16
SAME_COLOUR = 24  # of 255: copies differ by no more anywhere in their thumbnails
TURNS = {  # by what EXIF calls the orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow finds odd about a picture that it reads all the same is told by `fingerprint`.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageModality(Modality):
    """96x96 RGB pictures by default; ``pixel_shuffle`` x as many patches become one slot per side.

    Pixel shuffle stacks each square of neighbouring patches into one longer row (Shi et al. 2016,
    used so by Idefics3 and nanoVLM): fewer slots for the thinker, no information thrown away.
    """

    name = "image"
    projector = "proj_v"
    unit = "pixels"
    hash_words, hash_distance = 4, 4
    encoder_part = "vision_encoder"
    is_spatial = True
    reading = 2

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
        with _open(path):
            pass

    def measure(self, path: Path) -> MediaStats:
        """What is finer than the encoder's square is lost, and all pictures but the first."""
        with _open(path) as image:
            width, height = image.size
            whole = width * height + _not_shown(path, image)[1]
        shown = min(width, self.image_size) * min(height, self.image_size)
        return MediaStats(whole, whole - shown, self.grid**2, self.grid**2)

    @classmethod
    def fingerprint(cls, path: Path) -> Fingerprint:
        """Hash of the pixels; its look is where each colour rises from left to right (dHash)."""
        rgb = _decode(path)
        remarks = _remarks(path)
        if rgb.getcolors(1):
            with _open(path) as image:
                why = " (transparent parts are laid on white)" * image.has_transparency_data
            remarks += (f"{path}: one colour all over{why}",)
        content = hashlib.blake2b(f"{rgb.size}".encode(), digest_size=8)
        content.update(rgb.tobytes())
        small = rgb.resize((LOOK_SIDE + 1, LOOK_SIDE), Image.Resampling.BILINEAR)
        rises = np.diff(np.asarray(small, dtype=np.int16), axis=1) > LOOK_STEP
        bits = np.zeros(64 * cls.hash_words, dtype=bool)
        bits[: rises.size] = rises.ravel()
        perceptual_hash = np.packbits(bits).view(np.uint64)
        digest, amount = int.from_bytes(content.digest(), "big"), rgb.width * rgb.height
        return Fingerprint(digest, amount, tuple(perceptual_hash.tolist()), remarks)

    @classmethod
    def similarity(cls, path: Path, other: Path) -> float:
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
        if self.vocab_size:
            tower.readout = VocabHead(self.feature_dim, self.vocab_size, exclusive=False)
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
    def zero_init_(self) -> None:
        """Features and places are zero."""
        super().zero_init_()
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


def _check_size(path: Path, image: Image.Image) -> None:
    """Raises a UserError for a picture of no or too many pixels, and for a mere preview."""
    size = f"{path}: {image.width} x {image.height} pixels"
    if image.width < 1 or image.height < 1:
        raise UserError(f"{size}; there is nothing to see")
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{size}, the limit is {MAX_PIXELS // 10**6} megapixels; reduce it")
    if _page_kind(image) & PREVIEW:
        raise UserError(
            f"{path}: its first page is only a preview of the picture (a camera's raw file?); "
            "save the picture itself as PNG or JPEG"
        )


def _page_kind(image: Image.Image) -> int:
    """What the page of a TIFF is besides a picture of its own, as bits; 0 in other formats."""
    kind = getattr(image, "tag_v2", {}).get(254, 0)
    return kind if isinstance(kind, int) else 0


def _not_shown(path: Path, image: Image.Image) -> tuple[int, int]:
    """How many pictures a file holds beside its first, and their pixels.

    A page that only repeats another (smaller, or as its mask) is none, nor is what a camera puts
    beside a photograph (a preview, a map of its depth or light): it is of another size.
    """
    try:
        count = getattr(image, "n_frames", 1) - 1
        size = image.size
        if image.format not in ("TIFF", "MPO"):
            return count, count * size[0] * size[1]
        pixels = []
        for number in range(1, count + 1):
            image.seek(number)
            beside = image.format == "MPO" and image.size != size
            if not beside and not _page_kind(image) & (PREVIEW | MASK):
                pixels.append(image.width * image.height)
        return len(pixels), sum(pixels)
    except Exception as error:  # as in _decode
        if image.format == "MPO":  # a photograph that lost what a camera put beside it
            return 0, 0
        raise UserError(f"{path}: the image is damaged ({reason(error)})") from None


def _remarks(path: Path) -> tuple[str, ...]:
    """What is not shown of a picture that can be used, and what Pillow finds wrong with it."""
    told = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _open(path) as image:
            more = _not_shown(path, image)[0]
        with _open(path) as image:
            try:
                dict(image.getexif() if "exif" in image.info else {})
            except Exception as error:  # as in _upright
                told.append(f"{path}: its EXIF block cannot be read ({reason(error)})")
    if more:
        told.append(f"{path}: {more + 1} frames or pages; only the first is shown to the model")
    told += [f"{path}: {' '.join(str(one.message).split())}" for one in caught]
    return tuple(dict.fromkeys(told))


def _decode(path: Path) -> Image.Image:
    """Reads a file's first picture to upright RGB; raises UserError."""
    with _open(path) as image:
        try:
            ImageFile.LOAD_TRUNCATED_IMAGES = False  # whatever else in this process has set it
            _spread_key(image)
            image.load()
            return _to_rgb(_upright(image))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except Exception as error:  # decoders raise nearly everything over a damaged file
            raise UserError(f"{path}: the image is damaged ({reason(error)})") from None


def _spread_key(image: Image.Image) -> None:
    """Brings the transparent shade or colour of a PNG to the eight bits that its pixels get.

    Pillow leaves it in the file's 2, 4 or 16 bits a channel, where it stands for other pixels.
    """
    key = image.info.get("transparency")
    if key is None or image.format != "PNG" or not isinstance(image, ImageFile.ImageFile):
        return
    raw = image.tile[0][3]
    if raw in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if raw == "L;2" else 17)
    elif raw == "RGB;16B":
        image.info["transparency"] = tuple(channel >> 8 for channel in key)


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF block says; as it lies where that block cannot be read."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # it holds anything; the picture is whole
        turn = None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Eight bits a channel on white.

    16-bit greyscale is scaled by 65535, what has wider or signed numbers by its own range, where
    Pillow would clip both to white.
    """
    if image.mode.startswith(("I", "F")):
        return _scaled(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    if image.format == "BMP" and rgba.getchannel("A").getbbox() is None:
        return rgba.convert("RGB")  # the fourth byte is left zero, not meant
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """One channel of more than eight bits."""
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16"):
        grey = values / 257
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
    elif not np.isfinite(values).all():
        raise UserError("holds values that are not numbers (NaN or infinity)")
    else:
        least, most = values.min(), values.max()
        grey = (values - least) * (255 / (most - least)) if most > least else values * 0 + 128
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Opens an image file (header only) or raises a UserError that says what is wrong."""
    with open_file(path, "image file") as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise UserError(
                f"{path}: more than {MAX_PIXELS // 10**6} megapixels; reduce it"
            ) from None
        except Exception as error:  # readers raise nearly everything over a damaged header
            if isinstance(error, OSError) and error.errno:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from None
            raise UserError(f"{path}: is not an image ({', '.join(FORMATS)} are read)") from None
        with image:
            _check_size(path, image)
            yield image
