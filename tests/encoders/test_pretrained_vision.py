"""Pretrained vision towers: miniatures of every family, saved by the library's own classes."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import write_image
from PIL import Image, ImageDraw
from torch import Tensor, nn

from omnitune.encoders.base import Encoder
from omnitune.encoders.image_processor import tile_grid
from omnitune.encoders.pretrained_vision import TOWERS, WHOLE, PretrainedVisionEncoder
from omnitune.encoders.registry import build_encoder, read_pretrained, with_settings
from omnitune.sample import UserError

DEPTH = 3
NUMBERS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
LONG = NUMBERS | {"intermediate_size": 32}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "projection_size": 16,
}
NAFLEX_TOWER = {k: v for k, v in LONG.items() if k != "image_size"} | {"num_patches": 16}
SQUARE = {"size": {"height": 32, "width": 32}}
CROP = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
FLEXIBLE = {"patch_size": 8, "max_num_patches": 24}


@dataclass(frozen=True)
class Family:
    """How the library makes a tower, and how many rows of it are no patches."""

    name: str
    config: dict[str, Any]
    processor: str
    settings: dict[str, Any] = field(default_factory=lambda: dict(SQUARE))
    before: int = 0
    default_layer: int | str = -2

    @property
    def naflex(self) -> bool:
        return self.name == "Siglip2"


LAST = {"default_layer": "last"}
FAMILIES = {
    "siglip": Family("Siglip", LONG, "SiglipImageProcessor", **LAST),
    "siglip2": Family("Siglip2", NAFLEX_TOWER, "Siglip2ImageProcessor", FLEXIBLE, **LAST),
    "clip": Family("CLIP", LONG, "CLIPImageProcessor", CROP, before=1),
    "dinov2": Family("Dinov2", NUMBERS | {"image_size": 56}, "BitImageProcessor", CROP, before=1),
    "dinov2_with_registers": Family(
        "Dinov2WithRegisters",
        NUMBERS | {"num_register_tokens": 3},
        "BitImageProcessor",
        CROP,
        before=4,
    ),
    "dinov3_vit": Family(
        "DINOv3ViT",
        LONG | {"num_register_tokens": 2},
        "DINOv3ViTImageProcessorFast",
        SQUARE | IMAGENET,
        before=3,
    ),
    "vit": Family("ViT", LONG, "ViTImageProcessor", before=1),
}
EVERY = pytest.mark.parametrize("name", FAMILIES)
FIXED = pytest.mark.parametrize("name", [n for n in FAMILIES if n != "siglip2"])


def randomise(module: nn.Module) -> nn.Module:
    """Weights that are large enough for every layer and place to matter."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in module.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = (1 + 0.1 * noise if "norm" in name else 0.3 * noise).to(weight.dtype)
    return module.eval()


def tower_class(family: Family) -> Any:
    of_pair = getattr(transformers, f"{family.name}VisionModel", None)
    return of_pair or getattr(transformers, f"{family.name}Model")


def save(folder: Path, family: Family, whole: bool = False, **more: Any) -> nn.Module:
    """Saves a miniature and its processor's settings; returns the library's own model."""
    kind = getattr(transformers, f"{family.name}Model") if whole else tower_class(family)
    if whole:
        config = kind.config_class(text_config=TEXT, vision_config=family.config)
    else:
        config = kind.config_class(**family.config, **more)
    model = randomise(kind(config))
    model.save_pretrained(folder)
    settings = {"image_processor_type": family.processor, **family.settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return model.vision_model if whole else model


def load(folder: Path, **settings: Any) -> tuple[Encoder, nn.Module]:
    """The encoder of a folder as a run builds it: settings laid over, weights loaded."""
    found = read_pretrained("image", folder)
    config = json.loads(json.dumps(with_settings("image", found.config, settings)))
    encoder = build_encoder("image", config)
    module = encoder.build()
    module.load_state_dict(found.state)
    return encoder, module.eval()


def library_inputs(family: Family, image: Image.Image) -> dict[str, Tensor]:
    """What the library's own processor makes of a picture."""
    name = family.processor.removesuffix("Fast").replace("DINOv3ViT", "ViT") + "Pil"
    return dict(getattr(transformers, name)(**family.settings)(image, return_tensors="pt"))


def wide(folder: Path, width: int = 90, height: int = 60) -> Path:
    """A picture with something to see everywhere."""
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    channels = [np.sin(x + y), np.cos(x * y / 5), np.sin(x - 2 * y)]
    pixels = np.dstack([(one * 127 + 128) for one in channels]).astype(np.uint8)
    path = folder / f"{width}x{height}.png"
    Image.fromarray(pixels).save(path)
    return path


@torch.no_grad()
def rows_of(encoder: Encoder, module: nn.Module, *paths: Path) -> list[Tensor]:
    return encoder.encode_checked(module, [encoder.read(path) for path in paths])


@torch.no_grad()
def library_rows(family: Family, model: nn.Module, image: Image.Image, layer: int | str) -> Tensor:
    """Rows of the library's own model for its own processor's input, without what is no patch."""
    inputs = library_inputs(family, image)
    if family.name in ("Siglip", "CLIP", "ViT"):
        inputs["interpolate_pos_encoding"] = True  # type: ignore[assignment]
    found = model(**inputs, output_hidden_states=True)
    rows_PD = (found.last_hidden_state if layer == "last" else found.hidden_states[layer])[0]
    if family.naflex:
        rows_PD = rows_PD[: int(inputs["spatial_shapes"][0].prod())]
    return rows_PD[family.before :]


@pytest.mark.parametrize("layer", [None, "last", -1, -2, 1, 0])
@EVERY
def test_rows_are_the_librarys_hidden_states(
    tmp_path: Path, name: str, layer: int | str | None
) -> None:
    family = FAMILIES[name]
    model = save(tmp_path, family)
    settings = {} if layer is None else {"vision_feature_layer": layer}
    path = wide(tmp_path)
    (rows_ND,) = rows_of(*load(tmp_path, **settings), path)
    asked = family.default_layer if layer is None else layer
    expected = library_rows(family, model, Image.open(path), asked)
    assert rows_ND.std() > 0.1
    torch.testing.assert_close(rows_ND, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", WHOLE)
def test_the_vision_tower_of_a_whole_model(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    model = save(tmp_path, family, whole=True)
    path = wide(tmp_path)
    encoder, module = load(tmp_path)
    (rows_ND,) = rows_of(encoder, module, path)
    expected = library_rows(family, model, Image.open(path), family.default_layer)
    torch.testing.assert_close(rows_ND, expected, atol=1e-4, rtol=1e-4)
    assert not [key for key in read_pretrained("image", tmp_path).state if "text" in key]


def test_a_classifier_lends_its_tower(tmp_path: Path) -> None:
    """Many folders of plain ViT are classifiers, without the pooler of the bare model."""
    family = FAMILIES["vit"]
    model = randomise(transformers.ViTForImageClassification(transformers.ViTConfig(**LONG)))
    model.save_pretrained(tmp_path)
    settings = {"image_processor_type": "ViTFeatureExtractor", **SQUARE}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    path = wide(tmp_path)
    (rows_ND,) = rows_of(*load(tmp_path), path)
    torch.testing.assert_close(
        rows_ND, library_rows(family, model.vit, Image.open(path), -2), atol=1e-4, rtol=1e-4
    )


def test_every_family_has_a_miniature_here() -> None:
    assert set(PretrainedVisionEncoder.families) == {*TOWERS, *WHOLE}
    assert {WHOLE.get(name, name) for name in FAMILIES} == set(TOWERS)


@EVERY
def test_layers_behind_the_feature_layer_are_not_kept(tmp_path: Path, name: str) -> None:
    save(tmp_path, FAMILIES[name])
    weights = []
    for layer in range(DEPTH + 1):
        _, module = load(tmp_path, vision_feature_layer=layer)
        weights.append(sum(weight.numel() for weight in module.parameters()))
        assert not [n for n in module.state_dict() if f".{layer}." in n or "head" in n]
    steps = np.diff(weights)
    assert (steps == steps[0]).all()
    assert steps[0] > 1000


@EVERY
def test_what_was_built_is_built_again_from_its_own_weights(tmp_path: Path, name: str) -> None:
    """A saved model holds the cut tower: its weights fit the module of the same settings."""
    save(tmp_path, FAMILIES[name])
    encoder, module = load(tmp_path)
    again = build_encoder("image", json.loads(json.dumps(encoder.config)))
    other = again.build().eval()
    other.load_state_dict(module.state_dict())
    path = wide(tmp_path)
    torch.testing.assert_close(rows_of(again, other, path), rows_of(encoder, module, path))
    assert again.feature_dim == encoder.feature_dim == 16


def test_a_tower_in_a_larger_model_takes_its_weights_too(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["dinov2"])
    found = read_pretrained("image", tmp_path)
    held = nn.ModuleDict({"image": build_encoder("image", found.config).build()})
    held.load_state_dict({f"image.{name}": weight for name, weight in found.state.items()})
    assert f"encoder.layer.{DEPTH - 1}.norm1.weight" in found.state  # the caller's stay whole


@FIXED
def test_pictures_are_read_as_the_librarys_processor_does(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    save(tmp_path, family)
    encoder = load(tmp_path)[0]
    for size in ((90, 60), (20, 33), (32, 32)):
        path = wide(tmp_path, *size)
        expected = library_inputs(family, Image.open(path))["pixel_values"]
        assert encoder.read(path).shape == (1, 3, 32, 32)
        torch.testing.assert_close(encoder.read(path), expected)


def test_dinov3_is_read_as_its_processor_would(tmp_path: Path) -> None:
    """The library has it for torchvision only: it resizes what is already scaled to 0..1."""
    save(tmp_path, FAMILIES["dinov3_vit"])
    settings = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "crop_size": None,
        "data_format": "channels_first",
        "device": None,
        "disable_grouping": None,
        "do_center_crop": None,
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        **IMAGENET,
        "input_data_format": None,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "return_tensors": None,
        "size": {"height": 32, "width": 32},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    path = wide(tmp_path, 150, 70)
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
    resized = nn.functional.interpolate(pixels, (32, 32), mode="bilinear", antialias=True)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in IMAGENET.values())
    difference = load(tmp_path)[0].read(path) - (resized - mean) / deviation
    assert difference.abs().max() < 1.1 / 255 / 0.224  # a pixel's rounding to 8 bits
    for key in IMAGENET:
        del settings[key]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    again = load(tmp_path)[0].read(path) - (resized - mean) / deviation
    torch.testing.assert_close(again, difference)  # the class's own mean and deviation


def test_processor_settings_are_heeded(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["siglip"])
    path = wide(tmp_path)

    def read(**settings: Any) -> Tensor:
        values = {"image_processor_type": "SiglipImageProcessor", **SQUARE, **settings}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
        return load(tmp_path)[0].read(path)

    plain = read()
    torch.testing.assert_close(read(image_mean=[0, 0, 0], image_std=[1, 1, 1]), plain / 2 + 0.5)
    torch.testing.assert_close(read(do_normalize=False), plain / 2 + 0.5)
    assert not torch.allclose(read(resample=0), plain)
    assert read(size={"height": 48, "width": 16}).shape == (1, 3, 48, 16)


def test_settings_nested_in_processor_config(tmp_path: Path) -> None:
    """So the library saves a processor of several parts since version 5."""
    save(tmp_path, FAMILIES["clip"])
    path = wide(tmp_path)
    before = load(tmp_path)[0].read(path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    values = {"processor_class": "CLIPProcessor", "image_processor": settings}
    (tmp_path / "processor_config.json").write_text(json.dumps(values))
    torch.testing.assert_close(load(tmp_path)[0].read(path), before)


@FIXED
def test_a_processor_of_another_size_than_the_towers(tmp_path: Path, name: str) -> None:
    """Positions are interpolated; equal sizes give what the library gives without being told."""
    family = FAMILIES[name]
    settings = {"size": {"height": 48, "width": 40}, "do_center_crop": False, **IMAGENET}
    family = Family(family.name, family.config, family.processor, settings, family.before)
    model = save(tmp_path, family)
    path = wide(tmp_path)
    (rows_ND,) = rows_of(*load(tmp_path, vision_feature_layer=-2), path)
    assert len(rows_ND) == 6 * 5
    expected = library_rows(family, model, Image.open(path), -2)
    torch.testing.assert_close(rows_ND, expected, atol=1e-4, rtol=1e-4)


def test_pictures_of_their_own_shape_without_a_crop(tmp_path: Path) -> None:
    """Each has its own grid; those of one shape are encoded together."""
    settings = {"size": {"shortest_edge": 32}, "do_center_crop": False}
    family = Family("Dinov2", NUMBERS, "BitImageProcessor", settings, before=1)
    model = save(tmp_path, family)
    paths = [wide(tmp_path, *size) for size in ((90, 60), (60, 90), (32, 32), (91, 61))]
    encoder, module = load(tmp_path)
    together = rows_of(encoder, module, *paths)
    assert [len(rows) for rows in together] == [24, 24, 16, 20]
    for path, rows_ND in zip(paths, together, strict=True):
        image = Image.open(path)
        grid = [side // 8 * 8 for side in library_inputs(family, image)["pixel_values"].shape[2:]]
        assert tuple(grid) == tuple(encoder.read(path).shape[2:])
        (alone,) = rows_of(encoder, module, path)
        torch.testing.assert_close(rows_ND, alone, atol=1e-5, rtol=0)
    expected = library_rows(family, model, Image.open(paths[2]), -2)
    torch.testing.assert_close(together[2], expected, atol=1e-4, rtol=1e-4)
    Image.new("RGB", (40_000, 10)).save(tmp_path / "thread.png")
    with pytest.raises(UserError, match=r"thread\.png: 40000 x 10 pixels become 64000 patches"):
        encoder.read(tmp_path / "thread.png")


# NaFlex


def test_naflex_keeps_each_pictures_shape(tmp_path: Path) -> None:
    family = FAMILIES["siglip2"]
    model = save(tmp_path, family)
    encoder, module = load(tmp_path)
    paths = [wide(tmp_path, *size) for size in ((90, 60), (52, 40), (64, 64), (8, 8), (500, 9))]
    together = rows_of(encoder, module, *paths)
    for path, rows_ND in zip(paths, together, strict=True):
        inputs = encoder.read(path)
        shape = library_inputs(family, Image.open(path))["spatial_shapes"][0]
        assert inputs.shape == (1, 3, *(8 * shape).tolist())
        assert len(rows_ND) == encoder.num_slots(inputs) == int(shape.prod()) <= 24
        (alone,) = rows_of(encoder, module, path)
        torch.testing.assert_close(rows_ND, alone, atol=1e-5, rtol=0)
        expected = library_rows(family, model, Image.open(path), "last")
        torch.testing.assert_close(rows_ND, expected, atol=1e-4, rtol=1e-4)
    assert len({len(rows) for rows in together}) > 1  # some were padded


def test_naflex_shuffles_by_each_pictures_grid(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["siglip2"])
    paths = [wide(tmp_path, *size) for size in ((90, 60), (500, 9))]
    plain, shuffled = (rows_of(*load(tmp_path, pixel_shuffle=r), *paths) for r in (1, 2))
    encoder = load(tmp_path)[0]
    for path, patches_PD, rows_ND in zip(paths, plain, shuffled, strict=True):
        rows, columns = (side // 8 for side in encoder.read(path).shape[2:])
        assert rows_ND.shape == (-(-rows // 2) * -(-columns // 2), 4 * 16)
        torch.testing.assert_close(rows_ND[0, :16], patches_PD[0])
        if columns > 1:
            torch.testing.assert_close(rows_ND[0, 16:32], patches_PD[1])


# Pixel shuffle


@pytest.mark.parametrize("r", [2, 4])
def test_a_grid_that_divides_is_only_laid_out_anew(tmp_path: Path, r: int) -> None:
    save(tmp_path, FAMILIES["siglip"])
    path = wide(tmp_path)
    (plain,), (shuffled,) = (rows_of(*load(tmp_path, pixel_shuffle=n), path) for n in (1, r))
    grid = plain.view(4, 4, 16)
    for place, row_D in enumerate(shuffled):
        top, left = divmod(place, 4 // r)
        square = grid[top * r : (top + 1) * r, left * r : (left + 1) * r]
        torch.testing.assert_close(row_D, square.reshape(-1))


def test_a_grid_that_does_not_divide_is_filled_with_zeros(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["siglip"])
    path = wide(tmp_path)
    (plain,), (shuffled,) = (rows_of(*load(tmp_path, pixel_shuffle=n), path) for n in (1, 3))
    assert shuffled.shape == (4, 9 * 16)
    full = torch.zeros(6, 6, 16)
    full[:4, :4] = plain.view(4, 4, 16)
    torch.testing.assert_close(shuffled[3], full[3:, 3:].reshape(-1))
    torch.testing.assert_close(shuffled[1], full[:3, 3:].reshape(-1))
    assert (shuffled[3].view(9, 16).abs().sum(1) > 0).tolist() == [True] + [False] * 8


# Tiles


@pytest.mark.parametrize(
    ("size", "most", "grid"),
    [
        ((32, 32), 4, (1, 1)),
        ((20, 31), 4, (1, 1)),
        ((64, 64), 4, (2, 2)),
        ((64, 64), 3, (1, 1)),
        ((1000, 1000), 12, (3, 3)),
        ((64, 32), 4, (2, 1)),
        ((32, 96), 4, (1, 3)),
        ((1000, 500), 2, (2, 1)),
        ((1000, 500), 9, (4, 2)),
        ((43, 32), 12, (1, 1)),  # the nearest shape, 4 x 3 tiles, would blow it up
        ((5000, 10), 6, (6, 1)),
    ],
)
def test_grid_of_tiles(size: tuple[int, int], most: int, grid: tuple[int, int]) -> None:
    assert tile_grid(*size, 32, 32, most) == grid
    assert tile_grid(*size[::-1], 32, 32, most) == grid[::-1]


@FIXED
def test_tiles_are_read_in_reading_order_and_the_whole_last(tmp_path: Path, name: str) -> None:
    save(tmp_path, FAMILIES[name])
    encoder, module = load(tmp_path, max_tiles=6)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250)]
    image = Image.new("RGB", (96, 64))
    for place, colour in enumerate(colours):
        row, column = divmod(place, 3)
        image.paste(colour, (32 * column, 32 * row, 32 * column + 32, 32 * row + 32))
    image.save(tmp_path / "six.png")
    pixels_TCHW = encoder.read(tmp_path / "six.png")
    assert pixels_TCHW.shape == (7, 3, 32, 32)
    for place, colour in enumerate(colours):
        Image.new("RGB", (32, 32), colour).save(tmp_path / "one.png")
        torch.testing.assert_close(pixels_TCHW[place], encoder.read(tmp_path / "one.png")[0])
    whole = pixels_TCHW[6]
    torch.testing.assert_close(whole[:, 2, 2], pixels_TCHW[0, :, 2, 2])  # nothing is cropped off
    torch.testing.assert_close(whole[:, -2, -2], pixels_TCHW[5, :, -2, -2])
    (rows_ND,) = rows_of(encoder, module, tmp_path / "six.png")
    assert len(rows_ND) == 7 * 16
    with torch.no_grad():
        for place in range(7):
            (alone,) = encoder.encode(module, [pixels_TCHW[place : place + 1]])
            rows = rows_ND[16 * place : 16 * (place + 1)]
            torch.testing.assert_close(rows, alone, atol=1e-5, rtol=0)


def test_a_small_picture_stays_one(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["clip"])
    path = wide(tmp_path, 32, 20)
    cut, whole = (load(tmp_path, max_tiles=n)[0].read(path) for n in (6, 0))
    torch.testing.assert_close(cut, whole)


@EVERY
def test_pictures_of_a_batch_do_not_mix(tmp_path: Path, name: str) -> None:
    save(tmp_path, FAMILIES[name])
    settings = {"pixel_shuffle": 3} | ({} if name == "siglip2" else {"max_tiles": 4})
    encoder, module = load(tmp_path, **settings)
    paths = [wide(tmp_path, *size) for size in ((90, 60), (20, 20), (40, 200), (64, 64))]
    together = rows_of(encoder, module, *paths)
    for path, rows_ND in zip(paths, together, strict=True):
        (alone,) = rows_of(encoder, module, path)
        torch.testing.assert_close(rows_ND, alone, atol=1e-5, rtol=0)


def test_more_tiles_than_are_encoded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, FAMILIES["vit"])
    encoder, module = load(tmp_path, max_tiles=4)
    paths = [wide(tmp_path, *size) for size in ((90, 60), (20, 20), (64, 64))]
    before = rows_of(encoder, module, *paths)
    monkeypatch.setattr("omnitune.encoders.pretrained_vision.AT_ONCE", 2)
    torch.testing.assert_close(rows_of(encoder, module, *paths), before, atol=1e-5, rtol=0)


# Measuring


@pytest.mark.parametrize(("name", "tiles"), [("clip", 6), ("siglip", 5), ("siglip2", 0)])
def test_no_picture_has_more_rows_than_the_largest(tmp_path: Path, name: str, tiles: int) -> None:
    """Engines make room by it; a square has fewer tiles than a picture twice as wide may have."""
    save(tmp_path, FAMILIES[name])
    encoder = load(tmp_path, pixel_shuffle=3, max_tiles=tiles)[0]
    sides = (1, 32, 33, 64, 90, 200, 3000)
    rows = [encoder.rows_of_size((high, wide)) for high in sides for wide in sides]
    assert encoder.most_rows is not None
    assert max(rows) <= encoder.most_rows == encoder.rows_of_size(encoder.largest_size)


@pytest.mark.parametrize(("name", "tiles"), [("clip", 0), ("siglip", 5), ("siglip2", 0)])
def test_slots_are_within_what_the_header_says(tmp_path: Path, name: str, tiles: int) -> None:
    save(tmp_path, FAMILIES[name])
    encoder = load(tmp_path, pixel_shuffle=3, max_tiles=tiles)[0]
    for size in ((1, 1), (32, 32), (33, 32), (70, 50), (50, 70), (300, 20), (7, 900)):
        for turn in (1, 6):  # a camera that was held sideways
            exif = Image.Exif()
            exif[0x0112] = turn
            path = wide(tmp_path, *size)
            Image.open(path).save(path, exif=exif)
            stats = encoder.measure(path)
            assert stats.least <= encoder.num_slots(encoder.read(path)) <= stats.most
            assert stats.whole == size[0] * size[1]
            assert 0 <= stats.lost < stats.whole


def lost(folder: Path, size: tuple[int, int], **settings: Any) -> float:
    return load(folder, **settings)[0].measure(write_size(folder, size)).lost


def write_size(folder: Path, size: tuple[int, int]) -> Path:
    Image.new("RGB", size).save(folder / "blank.png")
    return folder / "blank.png"


def test_what_is_finer_than_the_encoder_holds_is_lost(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["siglip"])
    assert lost(tmp_path, (32, 32)) == lost(tmp_path, (8, 30)) == 0
    assert lost(tmp_path, (64, 64)) == 64 * 64 - 32 * 32
    assert lost(tmp_path, (100, 20)) == 100 * 20 - 32 * 20
    assert lost(tmp_path, (64, 64), max_tiles=4) == 0
    assert lost(tmp_path, (128, 128), max_tiles=4) == 128 * 128 - 64 * 64
    assert lost(tmp_path, (96, 32), max_tiles=3) == 0


def test_what_is_cropped_off_is_lost(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["clip"])  # the shorter side to 40, and 32 x 32 of its middle
    assert lost(tmp_path, (40, 40)) == 40 * 40 - 32 * 32
    assert lost(tmp_path, (20, 20)) == 20 * 20 - 16 * 16
    assert lost(tmp_path, (400, 40)) == 400 * 40 - 32 * 32


# Precision


@EVERY
def test_weights_keep_their_precision(tmp_path: Path, name: str) -> None:
    model = save(tmp_path, FAMILIES[name])
    path = wide(tmp_path)
    encoder, module = load(tmp_path)
    expected = rows_of(encoder, module, path)[0]
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    found = read_pretrained("image", tmp_path)
    assert {weight.dtype for weight in found.state.values()} == {torch.bfloat16}
    (rows_ND,) = rows_of(encoder, module.to(torch.bfloat16), path)
    assert rows_ND.dtype == torch.bfloat16
    assert (rows_ND.float() - expected).norm() < 0.1 * expected.norm()


# Errors


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pixel_shuffle": 0}, "pixel_shuffle is 0; expected a whole number from 1 on"),
        ({"pixel_shuffle": 1.5}, r"pixel_shuffle is 1\.5"),
        ({"pixel_shuffle": True}, "pixel_shuffle is True"),
        ({"max_tiles": -1}, "max_tiles is -1; expected a whole number from 0 on"),
        ({"vision_feature_layer": 4}, "vision_feature_layer is 4; expected 'last' or .* -4 to 3"),
        ({"vision_feature_layer": -5}, "vision_feature_layer is -5"),
        ({"vision_feature_layer": "first"}, "vision_feature_layer is 'first'"),
        ({"vision_feature_layer": [-2]}, r"vision_feature_layer is \[-2\]"),
        ({"patch_size": 7}, "patch_size: is no setting of this encoder"),
    ],
)
def test_unknown_values_of_settings(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    save(tmp_path, FAMILIES["vit"])
    with pytest.raises(UserError, match=words):
        load(tmp_path, **settings)


def test_naflex_is_not_cut_into_tiles(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["siglip2"])
    with pytest.raises(UserError, match="max_tiles is 4, and this encoder takes pictures in their"):
        load(tmp_path, max_tiles=4)


def test_tiles_need_a_fixed_size(tmp_path: Path) -> None:
    settings = {"size": {"shortest_edge": 32}, "do_center_crop": False}
    save(tmp_path, Family("Dinov2", NUMBERS, "BitImageProcessor", settings))
    with pytest.raises(
        UserError, match=r"max_tiles is 4, and the processor gives .* no fixed size"
    ):
        load(tmp_path, max_tiles=4)


def without_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def with_processor(**settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))

    return change


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


VIT = "ViTImageProcessor"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_processor, "holds no preprocessor_config.json.*copy it"),
        (without_weights, "holds no weights"),
        (with_processor(size=32), "image_processor_type is None; known: Siglip"),
        (with_processor(image_processor_type="DPTImageProcessor"), "is 'DPTImageProcessor'; known"),
        (
            with_processor(image_processor_type="Siglip2ImageProcessor"),
            "needs another than Siglip2",
        ),
        (
            with_processor(image_processor_type=VIT, size={"side": 3}),
            "settings cannot be used .size",
        ),
        (with_processor(image_processor_type=VIT, image_mean="grey"), "settings cannot be used"),
        (with_processor(image_processor_type=VIT, image_mean=[0.5]), "settings cannot be used"),
        (with_processor(image_processor_type=VIT, image_std=[0, 0, 0]), "image_std must be above"),
    ],
)
def test_folders_that_are_not_whole(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    save(tmp_path, FAMILIES["vit"])
    change(tmp_path)
    with pytest.raises(UserError, match=rf"{tmp_path.name}.*{words}"):
        load(tmp_path)


def test_naflex_needs_its_own_processor(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["siglip2"])
    with_processor(image_processor_type="SiglipImageProcessor")(tmp_path)
    with pytest.raises(UserError, match="this encoder needs Siglip2ImageProcessor"):
        load(tmp_path)
    with_processor(image_processor_type="Siglip2ImageProcessor", patch_size=16)(tmp_path)
    with pytest.raises(UserError, match="patch_size is 16, and the encoder's patches have 8"):
        load(tmp_path)


def test_weights_of_another_size_are_named(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["vit"])
    values = json.loads((tmp_path / "config.json").read_text()) | {"intermediate_size": 40}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=tmp_path.name):
        load(tmp_path)


def test_another_medium_has_no_such_family(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["vit"])
    with pytest.raises(UserError, match="'vit', which is no audio encoder"):
        read_pretrained("audio", tmp_path)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["vit"])
    path = write_image(tmp_path / "a.png", size=200)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UserError, match=r"a\.png: the image is damaged"):
        load(tmp_path)[0].read(path)


# A trained tower

PARTS = Path(os.environ.get("OMNITUNE_PARTS", Path(__file__).parents[2] / "parts"))


def drawing(seed: int) -> Image.Image:
    """Discs, bars, boxes or outlines of triangles (seed % 4) in random colours and places."""
    random = np.random.default_rng(seed)
    colours = [tuple(colour) for colour in random.integers(0, 256, (25, 3)).tolist()]
    image = Image.new("RGB", (400, 400), colours[0])
    draw = ImageDraw.Draw(image)
    for colour in colours[1:]:
        (x, y), side = random.integers(-20, 400, 2).tolist(), int(random.integers(20, 90))
        shapes = (
            lambda box, **how: draw.ellipse(box, **how),
            lambda box, **how: draw.line((box[0], 0, box[0], 400), width=8, **how),
            lambda box, **how: draw.rectangle((*box[:3], (box[1] + box[3]) / 2), **how),
            lambda box, **how: draw.line(
                [box[:2], (box[2], box[1] + 5), ((box[0] + box[2]) / 2, box[3]), box[:2]],
                width=4,
                **how,
            ),
        )
        shapes[seed % 4]((x, y, x + side, y + side), fill=colour)
    return image


def alike(encoder: Encoder, module: nn.Module, paths: list[Path]) -> Tensor:
    """Cosines between the mean rows of pictures, what all have in common taken out."""
    means = torch.stack([rows.mean(0) for rows in rows_of(encoder, module, *paths)])
    means = nn.functional.normalize(means - means.mean(0), dim=1)
    return (means @ means.T).fill_diagonal_(-1)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not (PARTS / "vision").is_dir(), reason="no pretrained parts here")
def test_features_of_a_trained_tower_mean_something(tmp_path: Path) -> None:
    """Colours and places are random: only what is drawn makes the same kind nearest.

    A tower of random weights knows the crops of one picture again by their colours, and no kind.
    """
    encoder, module = load(PARTS / "vision")
    paths = [tmp_path / f"{seed}.png" for seed in range(24)]
    for seed, path in enumerate(paths):
        drawing(seed).save(path)
    kinds = torch.arange(24) % 4
    assert encoder.read(paths[0]).shape == (1, 3, 224, 224)
    assert encoder.num_slots(encoder.read(paths[0])) == 256

    def share_of_kind(tower: nn.Module) -> float:
        nearest = alike(encoder, tower, paths).argmax(1)
        return float((kinds[nearest] == kinds).float().mean())

    torch.manual_seed(0)
    assert share_of_kind(module) > 0.75
    assert share_of_kind(encoder.build().eval()) < 0.5

    crops = [tmp_path / f"{seed}-{side}.png" for seed in range(8) for side in (0, 100)]
    for number, path in enumerate(crops):
        side = 100 * (number % 2)
        drawing(number // 2).crop((side, side, side + 300, side + 300)).save(path)
    cosines = alike(encoder, module, crops)
    same = torch.stack([cosines[n, n + 1] for n in range(0, 16, 2)])
    assert same.mean() > 0.5
    assert cosines.sum() + 16 - 2 * same.sum() < 0  # of other pairs: below zero on average


@pytest.mark.parametrize("name", ["clip", "dinov2", "siglip"])
def test_without_a_crop_the_whole_picture_is_shown(tmp_path: Path, name: str) -> None:
    save(tmp_path, FAMILIES[name])
    config = read_pretrained("image", tmp_path).config
    picture = write_image(tmp_path / "x.png", 32)
    lost = {
        crop: build_encoder("image", config | {"crop": crop}).measure(picture).lost
        for crop in ("center", "none")
    }
    assert lost["none"] == 0
    assert (lost["center"] > 0) == (name != "siglip")
    encoder = build_encoder("image", config | {"crop": "none"})
    assert encoder.read(picture).shape == (1, 3, 32, 32)
    with pytest.raises(UserError, match="crop is 'left'; expected center or none"):
        build_encoder("image", config | {"crop": "left"})
