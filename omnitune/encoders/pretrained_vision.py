"""Pretrained vision towers of transformers: SigLIP, SigLIP 2, CLIP, DINOv2 and v3, plain ViT.

Shape suffixes: B pictures or tiles, T tiles of one picture, C colours, H and W pixels; P patches,
R rows of one tile behind pixel shuffle, N rows of a picture, D their width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionModel,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2VisionModel,
    SiglipVisionModel,
    ViTModel,
)

from omnitune.encoders import attention
from omnitune.encoders.base import Encoder, MediaStats, Pretrained
from omnitune.encoders.image_processor import PictureReader, to_patches
from omnitune.hub import load_pretrained, read_optional
from omnitune.media.image import decode, dimensions
from omnitune.sample import UserError

AT_ONCE = 64  # tiles that are encoded together
LAST = "last"
# Of the saved configuration: what says nothing of the tower, or counts its layers a second time.
NOT_SETTINGS = frozenset(
    ("_name_or_path", "architectures", "dtype", "transformers_version", "id2label", "label2id")
    + ("out_features", "out_indices", "stage_names", "_out_features", "_out_indices")
    + ("output_hidden_states", "output_attentions", "return_dict")
)
# What reads the whole picture out of the rows; it is never built.
_HEADS = re.compile(r"(head|pooler)\.")
_LAYER = re.compile(r"(?:\w+\.)?layers?\.(\d+)\.")


@dataclass(frozen=True)
class Tower:
    """What differs between the families.

    Attributes:
        kind: the class that loads the tower alone, also out of the folder of a whole model.
        norm: its last layer norm.
        has_class_token: the rows begin with one that stands for the whole picture.
        interpolates: positions fit other sizes of pictures only where it is told to.
        layer: default of ``vision_feature_layer``.
        options: keep the head away where the class asks for that.
    """

    kind: type[PreTrainedModel]
    norm: str
    has_class_token: bool = True
    interpolates: bool = False
    layer: int | str = -2
    options: dict[str, Any] = field(default_factory=dict)


TOWERS: dict[str, Tower] = {
    "siglip_vision_model": Tower(SiglipVisionModel, "post_layernorm", False, True, LAST),
    "siglip2_vision_model": Tower(Siglip2VisionModel, "post_layernorm", False, False, LAST),
    "clip_vision_model": Tower(CLIPVisionModel, "post_layernorm", interpolates=True),
    "dinov2": Tower(Dinov2Model, "layernorm"),
    "dinov2_with_registers": Tower(Dinov2WithRegistersModel, "layernorm"),
    "dinov3_vit": Tower(DINOv3ViTModel, "norm"),
    "vit": Tower(ViTModel, "layernorm", interpolates=True, options={"add_pooling_layer": False}),
}
NAFLEX = "siglip2_vision_model"
WHOLE = {
    "siglip": "siglip_vision_model",
    "siglip2": "siglip2_vision_model",
    "clip": "clip_vision_model",
}


class PretrainedVisionEncoder(Encoder):
    """One row for each patch; class and register tokens are left out, for they are no place.

    Settings:
        model: the tower's configuration. processor: its image processor's.
        vision_feature_layer: a number as in ``hidden_states`` (0: the embeddings; -2: the last
            layer but one) or ``last``: the last one behind the final norm. SigLIP's default is
            ``last`` (PaliGemma, Gemma 3, Idefics3, LFM2-VL and Cohere2 Vision take it so), that of
            the others -2 (LLaVA with CLIP): their last layer serves the class token. Layers behind
            it are neither kept nor computed.
        pixel_shuffle: r x r neighbouring patches become one longer row; a grid that does not
            divide gets rows of zeros at its right and bottom.
        max_tiles: a picture larger than the encoder's is cut into as many tiles at most, each
            encoded by itself, and the whole follows them. 0 or 1: it is never cut.
        crop: ``center``: as the processor does it, of some families only the middle is seen;
            ``none``: the whole picture is brought to the size of that middle.
    """

    type = "pretrained_vision"
    medium_name = "image"
    run_settings = ("vision_feature_layer", "pixel_shuffle", "max_tiles", "crop")
    families = (*TOWERS, *WHOLE)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        model = dict(config.get("model") or {})
        self.family = model.pop("model_type", None)
        if self.family not in TOWERS:
            raise UserError(
                f"vision encoder: model.model_type is {self.family!r}; known: {', '.join(TOWERS)}"
            )
        self.tower = TOWERS[self.family]
        self.depth: int = model["num_hidden_layers"]
        self.layer = _feature_layer(config, self.tower.layer, self.depth)
        self.pixel_shuffle = _whole_number(config, "pixel_shuffle", 1, least=1)
        kind = cast(type[PreTrainedConfig], self.tower.kind.config_class)
        model |= {"num_hidden_layers": self.layer, "attn_implementation": attention.NAME}
        self.model = kind(**model)
        self.patch = _pair(self.model.patch_size)
        self.reader = PictureReader(
            _processor_of(config),
            self.patch,
            any_shape=self.family == NAFLEX,
            max_tiles=_whole_number(config, "max_tiles", 0, least=0),
        )

    @classmethod
    def from_folder(cls, folder: Path, values: dict[str, Any]) -> Pretrained:
        """The vision tower of a folder, also of one that holds a text tower too.

        Raises:
            UserError: weights or processor are missing, or do not fit; names the file.
        """
        family = values["model_type"]
        tower = TOWERS[WHOLE.get(family, family)]
        config = {"type": cls.type, "processor": _processor_settings(folder)}
        module = load_pretrained(tower.kind, folder, **tower.options)
        model = module.config.to_dict()
        config["model"] = {k: v for k, v in model.items() if k not in NOT_SETTINGS}
        try:
            cls(config)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        state = {k: v for k, v in module.state_dict().items() if not _HEADS.match(k)}
        return Pretrained(config, state)

    def read(self, path: Path) -> Tensor:
        """Reads a file to ``[T, C, H, W]``: tiles in reading order, and the whole behind them."""
        rgb = decode(path)
        try:
            return self.reader.read(rgb)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def measure(self, path: Path) -> MediaStats:
        """What a crop or finer pixels than the encoder's hold is lost, and all further pictures."""
        width, height, others = dimensions(path)
        # A header says nothing of the way up.
        ways = [self.reader.layout(height, width), self.reader.layout(width, height)]
        slots = [way.tiles * self._rows(way.height, way.width) for way in ways]
        whole = width * height + others
        return MediaStats(whole, whole - ways[0].shown, min(slots), max(slots))

    def num_slots(self, inputs: Tensor) -> int:
        """Squares of ``pixel_shuffle`` x as many patches in all tiles, begun ones included."""
        return inputs.shape[0] * self._rows(*inputs.shape[-2:])

    def rows_of_size(self, size: Sequence[int]) -> int:
        """Of a picture's height and width, as it is shown upright."""
        way = self.reader.layout(*size)
        return way.tiles * self._rows(way.height, way.width)

    @property
    def largest_size(self) -> tuple[int, int] | None:
        """Height and width of the picture with the most rows; None where any square has them."""
        return max(self.reader.sizes(), key=self.rows_of_size, default=None)

    def _rows(self, height: int, width: int) -> int:
        (rows, columns), r = self._grid(height, width), self.pixel_shuffle
        return -(-rows // r) * -(-columns // r)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        return height // self.patch[0], width // self.patch[1]

    @property
    def feature_dim(self) -> int:
        """Width of the tower times the patches stacked into one row."""
        return self.model.hidden_size * self.pixel_shuffle**2

    def build(self) -> nn.Module:
        """The tower up to its feature layer, without what pools its rows.

        It takes the weights of the whole tower too, and leaves those behind the layer out.
        """
        options = dict(self.tower.options)
        if hasattr(self.model, "vision_use_head"):
            self.model.vision_use_head = False
        module = self.tower.kind(self.model, **options)
        if not self._is_last:
            setattr(module, self.tower.norm, nn.Identity())
        hook = partial(_leave_out, self.layer, "" if self._is_last else f"{self.tower.norm}.")
        module.register_load_state_dict_pre_hook(hook)
        return module

    @property
    def _is_last(self) -> bool:
        return self.config.get("vision_feature_layer", self.tower.layer) == LAST

    def encode(self, module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
        """Encodes B pictures ``[T, C, H, W]`` to B tensors ``[N, D]`` in the module's precision."""
        tiles = [tile for picture in inputs for tile in picture]
        rows: list[Tensor | None] = [None] * len(tiles)
        for numbers in self._batches(tiles):
            some = [tiles[n] for n in numbers]
            encoded = self._encode_any(module, some) if self.family == NAFLEX else None
            for n, rows_RD in zip(numbers, encoded or self._encode(module, some), strict=True):
                rows[n] = rows_RD
        found = iter(cast(list[Tensor], rows))
        return [torch.cat([next(found) for _ in picture]) for picture in inputs]

    def _batches(self, tiles: list[Tensor]) -> Iterator[list[int]]:
        """Numbers of tiles that are encoded together: of one shape, where that is needed."""
        shapes: dict[Any, list[int]] = {}
        for number, tile in enumerate(tiles):
            shapes.setdefault(None if self.family == NAFLEX else tile.shape, []).append(number)
        for numbers in shapes.values():
            for start in range(0, len(numbers), AT_ONCE):
                yield numbers[start : start + AT_ONCE]

    def _encode(self, module: nn.Module, tiles: list[Tensor]) -> list[Tensor]:
        """Tiles ``[C, H, W]`` of one shape to their rows ``[R, D]``."""
        pixels_BCHW = torch.stack(tiles)
        options = {"interpolate_pos_encoding": True} if self.tower.interpolates else {}
        hidden_BPD = module(pixel_values=pixels_BCHW, **options).last_hidden_state
        before = self.tower.has_class_token + getattr(self.model, "num_register_tokens", 0)
        grid = self._grid(*pixels_BCHW.shape[-2:])
        return list(pixel_shuffle(hidden_BPD[:, before:], grid, self.pixel_shuffle))

    def _encode_any(self, module: nn.Module, tiles: list[Tensor]) -> list[Tensor]:
        """Pictures ``[C, H, W]`` of any shapes to their rows ``[R, D]``; padding is masked out."""
        grids = [self._grid(*tile.shape[-2:]) for tile in tiles]
        patches = [to_patches(tile, self.patch[0]) for tile in tiles]
        patches_BPV = nn.utils.rnn.pad_sequence(patches, batch_first=True)
        counts_B = torch.tensor([len(one) for one in patches], device=patches_BPV.device)
        mask_BP = torch.arange(patches_BPV.shape[1], device=patches_BPV.device) < counts_B[:, None]
        hidden_BPD = module(
            pixel_values=patches_BPV,
            # In this form, for the library makes no mask of its own for an attention that it does
            # not know. None where nothing is padded: attention is faster without one.
            pixel_attention_mask=None if bool(mask_BP.all()) else mask_BP[:, None, None, :],
            spatial_shapes=torch.tensor(grids, device=patches_BPV.device),
        ).last_hidden_state
        return [
            pixel_shuffle(rows_PD[None, : len(one)], grid, self.pixel_shuffle)[0]
            for rows_PD, one, grid in zip(hidden_BPD, patches, grids, strict=True)
        ]


def pixel_shuffle(patches_BPD: Tensor, grid: tuple[int, int], r: int) -> Tensor:
    """Stacks each square of r x r neighbouring patches into one row (Shi et al. 2016).

    Args:
        patches_BPD: in reading order. grid: rows and columns of patches.

    Returns:
        ``[B, R, r * r * D]``; a grid that r does not divide is filled up with zeros.
    """
    (rows, columns), width = grid, patches_BPD.shape[-1]
    if r == 1:
        return patches_BPD
    grid_BHWD = patches_BPD.reshape(-1, rows, columns, width)
    grid_BHWD = nn.functional.pad(grid_BHWD, (0, 0, 0, -columns % r, 0, -rows % r))
    high, wide = -(-rows // r), -(-columns // r)
    squares = grid_BHWD.view(-1, high, r, wide, r, width).permute(0, 1, 3, 2, 4, 5)
    return squares.reshape(-1, high * wide, r * r * width)


def _leave_out(
    layers: int, norm: str, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Takes out of weights that are about to be loaded what lies behind the feature layer."""
    for name in list(state):
        own = name.removeprefix(prefix)
        if not name.startswith(prefix):
            continue
        layer = _LAYER.match(own)
        if (layer and int(layer[1]) >= layers) or (norm and own.startswith(norm)):
            del state[name]


def _processor_settings(folder: Path) -> dict[str, Any]:
    """Of ``preprocessor_config.json``, or of the ``processor_config.json`` that nests them."""
    settings = read_optional(folder, "preprocessor_config.json")
    nested = read_optional(folder, "processor_config.json").get("image_processor")
    if found := settings or nested:
        return dict(found)
    raise UserError(
        f"{folder}: holds no preprocessor_config.json, which says how the encoder is shown a "
        "picture (size, mean, interpolation); copy it from where the weights come from"
    )


def _feature_layer(config: dict[str, Any], default: int | str, depth: int) -> int:
    """How many layers are computed."""
    layer = config.get("vision_feature_layer", default)
    if layer == LAST:
        return depth
    is_number = isinstance(layer, int) and not isinstance(layer, bool)
    if not is_number or not -depth - 1 <= layer <= depth:
        raise UserError(
            f"vision encoder: vision_feature_layer is {layer!r}; expected {LAST!r} or a number "
            f"from {-depth - 1} to {depth}, for the tower has {depth} layers"
        )
    return layer % (depth + 1)


def _whole_number(config: dict[str, Any], name: str, default: int, least: int) -> int:
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(
            f"vision encoder: {name} is {value!r}; expected a whole number from {least} on"
        )
    return value


def _pair(sides: Any) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else (int(sides[0]), int(sides[1]))


def _processor_of(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of the image processor, with what a run says of its crop."""
    processor, crop = dict(config.get("processor") or {}), config.get("crop", "center")
    if crop not in ("center", "none"):
        raise UserError(f"vision encoder: crop is {crop!r}; expected center or none")
    middle = processor.get("crop_size")
    if crop == "center" or not processor.get("do_center_crop", middle is not None) or not middle:
        return processor
    if isinstance(middle, int):
        middle = {"height": middle, "width": middle}
    return processor | {"do_center_crop": False, "do_resize": True, "size": dict(middle)}
