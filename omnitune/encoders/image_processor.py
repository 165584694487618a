"""How a pretrained encoder is shown a picture: transformers' own image processors, and tiles.

Only processors of the Pillow backend are used, which need no torchvision.

Shape suffixes: T tiles of a picture, C colours, H and W pixels; P patches, V values of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    Siglip2ImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)
from transformers.image_processing_backends import PilBackend
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    get_image_size_for_max_height_width,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    get_image_size_for_max_num_patches,
)

from omnitune.sample import UserError

MAX_PATCHES = 1 << 14  # of one picture: attention takes memory by the square
# They say where the library computes and what it returns, not what the encoder is shown.
NOT_SETTINGS = frozenset({"data_format", "device", "disable_grouping", "return_tensors"})


class _Dinov3ImageProcessor(ViTImageProcessorPil):
    """The library has this one for torchvision only, which resizes before it rounds to 8 bits."""

    image_mean, image_std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


PROCESSORS: dict[str, type[PilBackend]] = {
    "SiglipImageProcessor": SiglipImageProcessorPil,
    "Siglip2ImageProcessor": Siglip2ImageProcessorPil,
    "CLIPImageProcessor": CLIPImageProcessorPil,
    "BitImageProcessor": BitImageProcessorPil,
    "DINOv3ViTImageProcessor": _Dinov3ImageProcessor,
    "ViTImageProcessor": ViTImageProcessorPil,
}


@dataclass(frozen=True)
class Layout:
    """What becomes of a picture.

    Attributes:
        tiles: how many pictures the encoder gets for it.
        height, width: pixels of each of them.
        shown: pixels of the picture itself that they hold, at most.
    """

    tiles: int
    height: int
    width: int
    shown: int


class PictureReader:
    """Brings pictures to what an encoder takes.

    Args:
        settings: of a ``preprocessor_config.json``.
        patch: height and width of the encoder's patches.
        any_shape: the encoder takes pictures in their own shape, up to so many patches (NaFlex).
        max_tiles: most tiles that a large picture is cut into; up to 1: it is never cut.

    Raises:
        UserError: the settings are of no processor known here, or do not fit the encoder.
    """

    def __init__(
        self, settings: Mapping[str, Any], patch: tuple[int, int], any_shape: bool, max_tiles: int
    ) -> None:
        self.patch, self.any_shape, self.max_tiles = patch, any_shape, max_tiles
        self.processor: Any = build_processor(settings)  # of attributes that its class gives it
        if isinstance(self.processor, Siglip2ImageProcessorPil) != any_shape:
            wanted = "" if any_shape else "another than "
            raise UserError(
                f"image processor: is a {type(self.processor).__name__.removesuffix('Pil')}, and "
                f"this encoder needs {wanted}Siglip2ImageProcessor, which keeps a picture's shape"
            )
        if any_shape and (self.processor.patch_size,) * 2 != patch:
            raise UserError(
                f"image processor: patch_size is {self.processor.patch_size}, and the encoder's "
                f"patches have {patch[0]} pixels a side"
            )
        if max_tiles > 1 and any_shape:
            raise UserError(
                f"max_tiles is {max_tiles}, and this encoder takes pictures in their own shape; "
                "expected 0 or 1 (max_num_patches of its processor says how finely it looks)"
            )
        if max_tiles > 1 and self.square is None:
            raise UserError(
                f"max_tiles is {max_tiles}, and the processor gives pictures of no fixed size; "
                "expected 0 or 1, or a processor with a fixed size or crop_size"
            )

    @cached_property
    def square(self) -> tuple[int, int] | None:
        """Height and width of what every picture becomes, where that is fixed."""
        processor = self.processor
        if self.any_shape:
            return None
        if processor.do_center_crop:
            return processor.crop_size.height, processor.crop_size.width
        size = processor.size
        fixed = processor.do_resize and size.height and size.width
        return (size.height, size.width) if fixed else None

    def layout(self, height: int, width: int) -> Layout:
        """What becomes of a picture of so many pixels."""
        columns, rows = self._tiles(height, width)
        if columns * rows > 1:
            assert self.square is not None
            tile_height, tile_width = self.square
            shown = min(height, rows * tile_height) * min(width, columns * tile_width)
            return Layout(columns * rows + 1, *self._whole(self.square), shown)
        resized = self._resized(height, width)
        whole = self._whole(self.square or resized)
        high, wide = (
            # What a crop keeps of a side, in the picture's own pixels.
            min(own * min(1.0, kept / scaled), kept, scaled)
            for own, scaled, kept in zip((height, width), resized, whole, strict=True)
        )
        return Layout(1, *whole, round(high * wide))

    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths among which is a picture of the most patches, whatever its shape.

        Empty where a picture's shape changes nothing, or nothing bounds what it becomes.
        """
        if self.any_shape:
            most, (high, wide) = self.processor.max_num_patches, self.patch
        elif self.max_tiles > 1 and self.square is not None:
            most, (high, wide) = self.max_tiles, self.square
        else:
            return []
        return [(n * high, most // n * wide) for n in range(1, most + 1)]

    def _whole(self, size: tuple[int, int]) -> tuple[int, int]:
        """Pixels of the whole patches in a size; a convolution over patches sees no others."""
        return size[0] // self.patch[0] * self.patch[0], size[1] // self.patch[1] * self.patch[1]

    def read(self, rgb: Image.Image) -> Tensor:
        """A picture as ``[T, C, H, W]``: its tiles in reading order and then the whole, or itself.

        Raises:
            UserError: it has more patches than can be encoded.
        """
        layout = self.layout(rgb.height, rgb.width)
        patches = (layout.height // self.patch[0]) * (layout.width // self.patch[1])
        if not 0 < patches <= MAX_PATCHES:
            raise UserError(
                f"{rgb.width} x {rgb.height} pixels become {patches} patches; expected 1 to "
                f"{MAX_PATCHES} (the image processor gives this picture {layout.width} x "
                f"{layout.height} pixels)"
            )
        if layout.tiles > 1:
            return self._cut(rgb)[..., : layout.height, : layout.width].contiguous()
        found = self.processor(rgb, return_tensors="pt")
        if self.any_shape:
            return _to_pixels(found["pixel_values"][0], *found["spatial_shapes"][0].tolist())
        return found["pixel_values"][..., : layout.height, : layout.width].contiguous()

    def _cut(self, rgb: Image.Image) -> Tensor:
        """The tiles of a large picture, and the whole; nothing is cropped off."""
        assert self.square is not None
        height, width = self.square
        columns, rows = self._tiles(rgb.height, rgb.width)
        canvas_CHW = self._squeezed(rgb, rows * height, columns * width)[0]
        tiles = canvas_CHW.view(-1, rows, height, columns, width).permute(1, 3, 0, 2, 4)
        tiles_TCHW = tiles.reshape(rows * columns, -1, height, width)
        return torch.cat([tiles_TCHW, self._squeezed(rgb, height, width)])

    def _squeezed(self, rgb: Image.Image, height: int, width: int) -> Tensor:
        size = {"height": height, "width": width}
        found = self.processor(
            rgb, size=size, do_resize=True, do_center_crop=False, return_tensors="pt"
        )
        return found["pixel_values"]

    def _tiles(self, height: int, width: int) -> tuple[int, int]:
        if self.max_tiles < 2 or self.square is None:
            return 1, 1
        return tile_grid(width, height, self.square[1], self.square[0], self.max_tiles)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width behind the processor's resizing, before it crops."""
        processor, size = self.processor, self.processor.size
        if self.any_shape:
            limit = processor.max_num_patches
            return get_image_size_for_max_num_patches(height, width, self.patch[0], limit)
        if not processor.do_resize:
            return height, width
        if size.shortest_edge:
            return get_size_with_aspect_ratio(
                (height, width), size.shortest_edge, size.longest_edge
            )
        if size.max_height:
            limits = size.max_height, size.max_width
            return get_image_size_for_max_height_width((height, width), *limits)
        return size.height, size.width


def build_processor(settings: Mapping[str, Any]) -> Any:
    """The library's processor of these settings, by the Pillow backend.

    Raises:
        UserError: names the processor or what is wrong with its settings.
    """
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    plain = str(name).removesuffix("Fast").removesuffix("Pil")
    plain = plain.replace("FeatureExtractor", "ImageProcessor")  # as it was called before
    if plain not in PROCESSORS:
        raise UserError(
            f"image processor: image_processor_type is {name!r}; known: {', '.join(PROCESSORS)}"
        )
    known = {
        # Null switches a step off, also one that the class has on by itself.
        key: bool(value) if key.startswith("do_") else value
        for key, value in settings.items()
        if key not in NOT_SETTINGS and (value is not None or key.startswith("do_"))
    }
    try:
        processor = PROCESSORS[plain].from_dict(known)
        with np.errstate(divide="ignore", invalid="ignore"):  # it is looked for below
            found = processor(Image.new("RGB", (32, 48)), return_tensors="pt")["pixel_values"]
        if not all(one.isfinite().all() for one in found):
            raise ValueError("it gives numbers without end; image_std must be above 0")
    except Exception as error:  # the library raises anything over settings that it cannot use
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"image processor: its settings cannot be used ({said})") from None
    if processor.do_pad or (processor.size and processor.size.min_pixels):
        raise UserError("image processor: do_pad and a size in min_pixels are not known here")
    return processor


def tile_grid(
    width: int, height: int, tile_width: int, tile_height: int, most: int
) -> tuple[int, int]:
    """Columns and rows of tiles, ``most`` at most, whose shape is nearest to a picture's.

    As InternVL does (Chen et al. 2024, "How far are we to GPT-4V?"), but no side gets more tiles
    than it has pixels for: a picture a little larger than a tile would be blown up to twelve.
    """
    columns = min(most, math.ceil(width / tile_width))
    rows = min(most, math.ceil(height / tile_height))
    grids = [(c, r) for c in range(1, columns + 1) for r in range(1, rows + 1) if c * r <= most]
    shape = math.log(width / height)

    def misfit(grid: tuple[int, int]) -> tuple[float, int]:
        own = math.log(grid[0] * tile_width / (grid[1] * tile_height))
        return round(abs(own - shape), 9), -grid[0] * grid[1]

    return min(grids, key=misfit)


def _to_pixels(patches_PV: Tensor, rows: int, columns: int) -> Tensor:
    """Patches of a NaFlex processor to the picture ``[1, C, H, W]`` they were cut from."""
    side = math.isqrt(patches_PV.shape[1] // 3)
    patches = patches_PV[: rows * columns].view(rows, columns, side, side, 3)
    return patches.permute(4, 0, 2, 1, 3).reshape(1, 3, rows * side, columns * side)


def to_patches(pixels_CHW: Tensor, side: int) -> Tensor:
    """A picture to the patches ``[P, V]`` that a NaFlex encoder takes, in reading order."""
    colours, height, width = pixels_CHW.shape
    grid = pixels_CHW.view(colours, height // side, side, width // side, side)
    return grid.permute(1, 3, 2, 4, 0).reshape(-1, side * side * colours)
