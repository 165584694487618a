"""Images: read safely whatever they are, and encoded to a grid of rows, not one vector."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ENCODERS, write_image
from PIL import Image, ImageOps

from omnitune.encoders.vit import VitEncoder
from omnitune.media.image import MAX_PIXELS
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError


@pytest.fixture(scope="module")
def modality() -> VitEncoder:
    return VitEncoder(ENCODERS["image"])


def picture(side: int = 32) -> Image.Image:
    """Smooth colours, so that lossy formats stay close."""
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    return Image.fromarray(np.dstack([red, green, 255 - red]))


def expected(image: Image.Image) -> torch.Tensor:
    array = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1


def test_pixels_are_read_as_they_are(modality: VitEncoder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    pixels = modality.read(path)
    assert pixels.shape == (3, 32, 32)
    assert (pixels.min(), pixels.max()) == (-1, 1)
    torch.testing.assert_close(pixels, expected(picture()))
    assert pixels[0, 0, -1] > 0.9  # channel, row, column: red grows to the right ...
    assert pixels[1, -1, 0] > 0.9  # ... and green downwards


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tiff"])
def test_every_format(modality: VitEncoder, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    picture().save(path)
    modality.medium.check(path)
    assert (modality.read(path) - expected(picture())).abs().mean() < 0.1


def test_format_is_known_by_content_not_by_name(modality: VitEncoder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path, format="JPEG")
    assert (modality.read(path) - expected(picture())).abs().mean() < 0.1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_other_modes_are_read_as_their_colours(
    modality: VitEncoder, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "a.tiff"
    image = picture().convert(mode)
    image.save(path)
    modality.medium.check(path)
    torch.testing.assert_close(modality.read(path), expected(image))
    assert modality.read(path).std() > 0.2


def test_palette_with_transparency(modality: VitEncoder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = picture().convert("P")
    image.save(path, transparency=0)
    torch.testing.assert_close(modality.read(path), expected(image))


def test_sixteen_bit_greyscale_keeps_its_shades(modality: VitEncoder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    shades = np.linspace(0, 255, 32 * 32, dtype=np.uint8).reshape(32, 32)
    Image.fromarray(shades.astype(np.uint16) * 257).save(path)
    difference = modality.read(path) - expected(Image.fromarray(shades))
    assert difference.abs().max() < 0.05


def test_photograph_is_turned_upright(modality: VitEncoder, tmp_path: Path) -> None:
    """A camera that was held sideways says so in the file; every viewer heeds it."""
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(path, exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
    torch.testing.assert_close(modality.read(path), expected(upright))


@pytest.mark.parametrize("size", [(64, 64), (100, 20), (7, 300), (1, 1)])
def test_any_size_becomes_the_encoders(
    modality: VitEncoder, tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "a.png"
    picture(64).resize(size).save(path)
    assert modality.read(path).shape == (3, 32, 32)


def test_smaller_picture_of_the_same_is_nearly_the_same(
    modality: VitEncoder, tmp_path: Path
) -> None:
    picture(128).save(tmp_path / "large.png")
    difference = modality.read(tmp_path / "large.png") - expected(picture())
    assert difference.abs().mean() < 0.05


def test_cut_file_is_damaged(modality: VitEncoder, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        path = write_image(tmp_path / name, size=200)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UserError, match=rf"{name}: the image is damaged"):
            modality.read(path)


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.png", "no such image file"),
        ("folder", "is a folder"),
        ("empty.png", "is not an image"),
        ("text.png", "is not an image"),
        ("icon.ico", "is not an image"),
        ("vector.eps", "is not an image"),
    ],
)
def test_what_is_no_picture_is_refused(
    modality: VitEncoder, tmp_path: Path, name: str, words: str, read: bool
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"not a picture at all")
    picture().save(tmp_path / "icon.ico")
    picture().save(tmp_path / "vector.eps")
    with pytest.raises(UserError, match=rf"{name}.*{words}"):
        (modality.read if read else modality.medium.check)(tmp_path / name)


@pytest.mark.parametrize("side", [8_000, 10_000, 14_000])
def test_huge_picture_is_refused_before_it_is_unpacked(
    modality: VitEncoder, tmp_path: Path, side: int
) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (side, side)).save(path)
    for function in (modality.medium.check, modality.read):
        with pytest.raises(UserError, match=r"huge\.png.*50 megapixels"):
            function(path)


def test_large_picture_below_the_limit_is_read(modality: VitEncoder, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    width = MAX_PIXELS // 1000
    Image.new("1", (width, 1000)).save(path)
    modality.medium.check(path)
    Image.new("1", (width + 1, 1000)).save(path)
    with pytest.raises(UserError, match="50001 x 1000 pixels"):
        modality.medium.check(path)


@pytest.mark.parametrize(("shuffle", "grid"), [(1, 4), (2, 2), (4, 1)])
def test_one_picture_is_a_grid_of_rows(tmp_path: Path, shuffle: int, grid: int) -> None:
    modality = VitEncoder(ENCODERS["image"] | {"pixel_shuffle": shuffle})
    pixels = modality.read(write_image(tmp_path / "a.png"))
    torch.manual_seed(0)
    rows = modality.encode(modality.build().eval(), [pixels])[0]
    assert modality.num_slots(pixels) == grid**2
    assert rows.shape == (grid**2, modality.feature_dim)
    assert modality.feature_dim == 16 * shuffle**2


def test_pixel_shuffle_keeps_neighbours_together(modality: VitEncoder) -> None:
    """Row 2 of a 2 x 2 grid over 4 x 4 patches is the lower left square of patches."""
    patches = torch.arange(16.0).view(1, 16, 1).expand(1, 16, 16)
    rows = modality._shuffle(patches)[0]
    squares = rows.view(4, 4, 16)[:, :, 0].tolist()
    assert squares == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_rows_say_where(modality: VitEncoder) -> None:
    """A change in one corner shows most in that corner's row: features are not pooled."""
    torch.manual_seed(0)
    encoder = modality.build().eval()
    blank = torch.zeros(3, 32, 32)
    for place, (row, column) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        marked = blank.clone()
        marked[:, row : row + 16, column : column + 16] = torch.randn(3, 16, 16)
        before, after = modality.encode(encoder, [blank, marked])
        assert int((after - before).norm(dim=1).argmax()) == place


def test_pictures_of_a_batch_do_not_mix(modality: VitEncoder) -> None:
    torch.manual_seed(0)
    encoder = modality.build().eval()
    inputs = list(torch.randn(3, 3, 32, 32))
    together = modality.encode(encoder, inputs)
    for one, rows in zip(inputs, together, strict=True):
        torch.testing.assert_close(modality.encode(encoder, [one])[0], rows, atol=1e-5, rtol=0)


def test_slots_encoded_apart_do_not_see_each_other(modality: VitEncoder) -> None:
    """The first slot's patches are plain, without a convolutional stem that overlaps."""
    torch.manual_seed(0)
    encoder = modality.build().eval()
    one, other = torch.randn(3, 32, 32), torch.randn(3, 32, 32)
    side = 32 // modality.grid
    other[:, :side, :side] = one[:, :side, :side]
    with torch.no_grad():
        apart, other_apart = modality.encode_apart(encoder, [one, other])
        together, other_together = modality.encode(encoder, [one, other])
    torch.testing.assert_close(apart[0], other_apart[0])
    assert not torch.allclose(together[0], other_together[0], atol=1e-3)
    assert not torch.allclose(apart[1], other_apart[1], atol=1e-3)
    assert apart.shape == together.shape


def test_one_slot_alone_is_encoded_apart_as_together() -> None:
    modality = VitEncoder({**ENCODERS["image"], "pixel_shuffle": 2, "image_size": 16})
    encoder = modality.build().eval()
    assert modality.grid == 1
    with torch.no_grad():
        pixels = [torch.randn(3, 16, 16)]
        (apart,), (together,) = (
            f(encoder, pixels) for f in (modality.encode_apart, modality.encode)
        )
    torch.testing.assert_close(apart, together)


def test_patches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match=r"4 patches a side do not divide .* pixel_shuffle = 3"):
        VitEncoder(ENCODERS["image"] | {"pixel_shuffle": 3})


def test_what_is_finer_than_the_encoders_square_is_lost(tmp_path: Path) -> None:
    modality = VitEncoder(ENCODERS["image"])  # 32 x 32
    for size, lost in ((16, 0), (32, 0), (64, 64 * 64 - 32 * 32)):
        extent = modality.measure(write_image(tmp_path / "a.png", size=size))
        assert (extent.whole, extent.lost) == (size * size, lost)
        assert extent.least == extent.most == modality.grid**2
    Image.new("RGB", (100, 20)).save(tmp_path / "wide.png")
    assert modality.measure(tmp_path / "wide.png").lost == 100 * 20 - 32 * 20


def scene(seed: int) -> Image.Image:
    """Three coloured boxes on a plain ground."""
    draw = np.random.default_rng(seed)
    pixels = np.full((96, 96, 3), draw.integers(0, 256, 3), dtype=np.uint8)
    for _ in range(3):
        y, x = draw.integers(0, 70, 2)
        pixels[y : y + 24, x : x + 24] = draw.integers(0, 256, 3)
    return Image.fromarray(pixels)


def test_copies_are_known_by_their_looks_and_others_are_not(tmp_path: Path) -> None:
    def alike(one: Path, other: Path) -> float:
        looks = [MEDIA["image"].fingerprint(path).perceptual_hash for path in (one, other)]
        bits = sum((a ^ b).bit_count() for a, b in zip(*looks, strict=True))
        near = bits <= MEDIA["image"].hash_distance
        return MEDIA["image"].similarity(one, other) if near else 0.0

    original, copy = tmp_path / "a.png", tmp_path / "b.jpg"
    found = []
    for seed in range(20):
        scene(seed).save(original)
        assert MEDIA["image"].similarity(original, original) == 1
        for changed in (scene(seed), scene(seed).resize((160, 160)), scene(seed).resize((64, 64))):
            changed.save(copy, quality=85)
            found.append(0.9 <= alike(original, copy) < 1)
        scene(seed + 100).save(copy)
        assert alike(original, copy) == 0
    assert np.mean(found) > 0.9


def test_same_pixels_have_the_same_print_in_any_file(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.png")
    scene(0).save(tmp_path / "b.bmp")
    scene(1).save(tmp_path / "c.png")
    prints = [MEDIA["image"].fingerprint(tmp_path / n) for n in ("a.png", "b.bmp", "c.png")]
    assert prints[0] == prints[1] != prints[2]
    assert prints[0].amount == 96 * 96
