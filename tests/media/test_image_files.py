"""What a picture's decoder would drop or change in silence: it is kept, counted or refused."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ENCODERS
from PIL import Image, ImageDraw, ImageFile

from omnitune.encoders.vit import VitEncoder
from omnitune.media.image import decode
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError

ENCODER = VitEncoder(ENCODERS["image"])  # 32 x 32


def disc(mode: str, ink: Any, ground: Any, size: int = 32) -> Image.Image:
    image = Image.new(mode, (size, size), ground)
    ImageDraw.Draw(image).ellipse((8, 8, 24, 24), fill=ink)
    return image


def decoded(path: Path) -> np.ndarray:
    return np.asarray(decode(path))


def png(path: Path, depth: int, colour: int, rows: bytes, side: int = 2, **chunks: bytes) -> Path:
    """Writes a PNG by hand; ``rows`` hold a filter byte each."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    parts = [b"IHDR", header], *([n.encode(), d] for n, d in chunks.items())
    parts = *parts, [b"IDAT", zlib.compress(rows)], [b"IEND", b""]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(n, d) for n, d in parts))
    return path


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white(tmp_path: Path, mode: str, name: str) -> None:
    image = disc("LA", (0, 255), (0, 0)).convert(mode)
    image.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    pixels = decoded(tmp_path / name)
    assert pixels[16, 16].tolist() == [0, 0, 0]
    assert pixels[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_transparent_entry_of_a_palette_is_white(tmp_path: Path, name: str) -> None:
    image = disc("P", 1, 0)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / name, transparency=0)
    pixels = decoded(tmp_path / name)
    assert pixels[16, 16].tolist() == [10, 20, 30]
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_palette_with_an_alpha_for_each_colour_is_laid_on_white(tmp_path: Path) -> None:
    disc("RGBA", (0, 0, 9, 255), (0, 0, 0, 0)).quantize(4).save(tmp_path / "a.png")
    pixels = decoded(tmp_path / "a.png")
    assert (pixels[16, 16].tolist(), pixels[0, 0].tolist()) == ([0, 0, 9], [255, 255, 255])


def test_half_transparent_parts_are_half_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (200, 0, 0, 51)).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png")[0, 0].tolist() == [244, 204, 204]


@pytest.mark.parametrize(
    ("depth", "colour", "rows", "key"),
    [
        (1, 0, bytes([0, 0x40, 0, 0x40]), struct.pack(">H", 0)),
        (8, 0, bytes([0, 9, 255, 0, 9, 255]), struct.pack(">H", 9)),
        (16, 0, bytes([0, 1, 2, 255, 255] * 2), struct.pack(">H", 258)),
        (8, 2, bytes([0, 9, 8, 7, 255, 255, 255] * 2), struct.pack(">HHH", 9, 8, 7)),
    ],
)
def test_transparent_colour_is_white(
    tmp_path: Path, depth: int, colour: int, rows: bytes, key: bytes
) -> None:
    """The left column has the transparent colour, the right one is white."""
    assert decoded(png(tmp_path / "a.png", depth, colour, rows))[0, 0, 0] < 100
    assert (decoded(png(tmp_path / "b.png", depth, colour, rows, tRNS=key)) == 255).all()


def test_alpha_that_a_bitmap_leaves_zero_hides_nothing(tmp_path: Path) -> None:
    """Many writers of BMP leave the fourth byte of a pixel zero."""
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)  # the last is of alpha
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks + bytes(52)
    start = struct.pack("<2sIHHI", b"BM", 130, 0, 0, 122)
    for alpha, expected in ((0, [3, 2, 1]), (255, [3, 2, 1])):
        (tmp_path / "a.bmp").write_bytes(start + header + bytes([1, 2, 3, alpha, 4, 5, 6, 0]))
        assert Image.open(tmp_path / "a.bmp").mode == "RGBA"
        assert decoded(tmp_path / "a.bmp")[0, 0].tolist() == expected
    assert decoded(tmp_path / "a.bmp")[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB"])
def test_other_modes_keep_their_colours(tmp_path: Path, mode: str) -> None:
    image = disc("RGB", (200, 40, 40), (250, 250, 250))
    kept = image if mode != "LAB" else None
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        kept = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert kept is not None
    kept.convert(mode).save(tmp_path / "a.tiff")
    expected = np.asarray(image.convert(mode if mode in "1LP" else "RGB").convert("RGB"), int)
    assert np.abs(decoded(tmp_path / "a.tiff").astype(int) - expected).max() <= 3


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0, 1, 64, dtype=np.float32),
        np.linspace(-3e30, 3e30, 64, dtype=np.float32),
        np.linspace(-5, 1000, 64).astype(np.int32),
        np.linspace(0, 2**31 - 1, 64).astype(np.int32),
    ],
)
def test_wide_and_signed_shades_are_scaled_by_their_range(
    tmp_path: Path, values: np.ndarray
) -> None:
    Image.fromarray(values.reshape(8, 8)).save(tmp_path / "a.tiff")
    shades = decoded(tmp_path / "a.tiff")[..., 0].ravel().astype(int)
    assert np.abs(shades - np.linspace(0, 255, 64)).max() <= 2


def test_sixteen_bits_of_either_order_are_scaled_by_all_they_can_hold(tmp_path: Path) -> None:
    shades = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    for order in "<>":
        Image.fromarray(shades.astype(f"{order}u2")).save(tmp_path / "a.tiff")
        assert decoded(tmp_path / "a.tiff")[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_shades_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    values = np.zeros((4, 4), dtype=np.float32)
    values[1, 1] = value
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=r"a\.tiff: holds values that are not numbers"):
        decode(tmp_path / "a.tiff")


def test_constant_shade_is_grey_and_told(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 7.5, dtype=np.float32)).save(tmp_path / "a.tiff")
    assert np.unique(decoded(tmp_path / "a.tiff")).tolist() == [128]
    (remark,) = MEDIA["image"].fingerprint(tmp_path / "a.tiff").remarks
    assert remark.endswith("one colour all over")
    Image.new("RGBA", (4, 4), (9, 9, 9, 0)).save(tmp_path / "b.png")
    (remark,) = MEDIA["image"].fingerprint(tmp_path / "b.png").remarks
    assert remark.endswith("one colour all over (transparent parts are laid on white)")


FRAMES = [disc("RGB", colour, "white") for colour in ("red", "green", "blue")]


def save_frames(path: Path, **options: Any) -> Path:
    FRAMES[0].save(path, save_all=True, append_images=FRAMES[1:], **options)
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_frames_and_pages_after_the_first_are_lost_and_told(tmp_path: Path, name: str) -> None:
    path = save_frames(tmp_path / name)
    extent = ENCODER.measure(path)
    assert (extent.whole, extent.lost) == (3 * 32 * 32, 2 * 32 * 32)
    (remark,) = MEDIA["image"].fingerprint(path).remarks
    assert f"{name}: 3 frames or pages; only the first" in remark
    assert np.abs(decoded(path).astype(int) - np.asarray(FRAMES[0], int)).mean() < 6


def test_cover_of_an_animation_is_shown_and_its_frames_are_lost(tmp_path: Path) -> None:
    path = save_frames(tmp_path / "a.png", default_image=True)
    assert ENCODER.measure(path).lost == 2 * 32 * 32
    assert decoded(path)[16, 16].tolist() == [255, 0, 0]


def test_what_a_camera_puts_beside_a_photograph_is_not_lost(tmp_path: Path) -> None:
    preview = FRAMES[0].resize((16, 16))
    FRAMES[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    assert ENCODER.measure(tmp_path / "a.jpg").lost == 0


def test_preview_is_no_picture(tmp_path: Path) -> None:
    FRAMES[0].save(tmp_path / "raw.tiff", tiffinfo={254: 1})
    with pytest.raises(UserError, match=r"raw\.tiff: its first page is only a preview"):
        MEDIA["image"].check(tmp_path / "raw.tiff")


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_cut_file_of_any_format_is_refused_or_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, allowed: bool
) -> None:
    """Whatever another library told Pillow to tolerate."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)
    path = tmp_path / "a.bin"
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, kind)
    content, whole = path.read_bytes(), decoded(path)
    refused = 0
    for length in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        for function in (MEDIA["image"].check, ENCODER.measure):
            assert_said(path, function)
        refused += assert_said(path, ENCODER.read)
        assert assert_said(path, ENCODER.read) or np.array_equal(decoded(path), whole)
    assert refused > 30


def assert_said(path: Path, function: Callable[[Path], object]) -> bool:
    """Whether a file is refused; if so, in one sentence with its name."""
    try:
        function(path)
    except UserError as error:
        said = str(error)
    else:
        return False
    assert said.startswith(str(path))
    assert "\n" not in said
    return True


def test_flipped_bytes_end_in_a_sentence(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    path = tmp_path / "a.bin"
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        buffer = io.BytesIO()
        FRAMES[0].save(buffer, kind, **({} if kind in ("BMP", "GIF") else {"exif": exif}))
        content = np.frombuffer(buffer.getvalue(), np.uint8)
        for _ in range(15):
            broken = content.copy()
            broken[draw.integers(0, min(200, len(broken)), 3)] = draw.integers(0, 256, 3)
            path.write_bytes(broken.tobytes())
            for function in (ENCODER.measure, MEDIA["image"].fingerprint):
                assert_said(path, function)


def test_zero_pixels_are_refused(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", 8, 0, b"", side=0)
    with pytest.raises(UserError, match=r"a\.png: "):
        MEDIA["image"].check(path)


def test_exif_block_that_cannot_be_read_leaves_the_picture_as_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    FRAMES[0].save(path, exif=b"Exif\0\0MM\0*" + b"\xff" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(path).size == (32, 32)
