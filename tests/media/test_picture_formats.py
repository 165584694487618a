"""Pictures of every format, depth and colour model look as they were drawn."""

import io
import itertools
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import ENCODERS
from PIL import Image, ImageOps, features
from test_image_files import FRAMES, assert_said, disc, png

from omnitune.encoders.vit import VitEncoder
from omnitune.media import picture_formats
from omnitune.media.image import TURNS, decode
from omnitune.media.registry import MEDIA
from omnitune.sample import UserError

ENCODER = VitEncoder(ENCODERS["image"])
NEEDS_AVIF = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
LOSSY = ("JPEG", "AVIF", "WEBP")


def corners() -> Image.Image:
    """Each corner in another colour, so that no turn leaves it as it is; wider than high."""
    pixels = np.full((32, 48, 3), 255, dtype=np.uint8)
    pixels[:16, :16], pixels[:16, 32:] = (250, 0, 0), (0, 200, 0)
    pixels[16:, :16] = (0, 0, 250)
    return Image.fromarray(pixels)


def difference(path: Path, image: Image.Image) -> float:
    found = decode(path)
    assert found.size == image.size
    return float(np.abs(np.asarray(found, int) - np.asarray(image.convert("RGB"), int)).mean())


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "TIFF", pytest.param("AVIF", marks=NEEDS_AVIF)]
)
def test_picture_is_turned_as_its_camera_was(tmp_path: Path, kind: str, turn: int) -> None:
    image, exif = corners(), Image.Exif()
    exif[0x0112] = turn
    lying = image
    if turn in TURNS:  # what is seen upright once it is turned
        back = {6: 8, 8: 6}.get(turn, turn)
        lying = image.transpose(TURNS[back])
    lying.save(tmp_path / "a", kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert difference(tmp_path / "a", image) < (6 if kind in LOSSY else 0.01)


@NEEDS_AVIF
def test_avif_is_laid_on_white_and_its_first_frame_is_shown(tmp_path: Path) -> None:
    image = disc("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))
    image.save(tmp_path / "a.avif")
    white = Image.new("RGBA", image.size, "white")
    assert difference(tmp_path / "a.avif", Image.alpha_composite(white, image)) < 6
    path = tmp_path / "moving"
    FRAMES[0].save(path, "AVIF", save_all=True, append_images=FRAMES[1:])
    assert difference(path, FRAMES[0]) < 6
    assert ENCODER.measure(path).lost == 2 * 32 * 32
    assert "3 frames or pages" in MEDIA["image"].fingerprint(path).remarks[0]


@NEEDS_AVIF
def test_cut_or_broken_avif_is_refused(tmp_path: Path) -> None:
    buffer, path, draw = io.BytesIO(), tmp_path / "a", np.random.default_rng(0)
    noise = draw.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "AVIF")
    content = buffer.getvalue()
    for length in range(0, len(content) - 1, len(content) // 30):
        path.write_bytes(content[:length])
        assert assert_said(path, ENCODER.read)
    for _ in range(30):
        broken = np.frombuffer(content, np.uint8).copy()
        broken[draw.integers(0, len(broken), 3)] = draw.integers(0, 256, 3)
        path.write_bytes(broken.tobytes())
        assert_said(path, MEDIA["image"].fingerprint)


def test_avif_without_its_reader_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(boxed(b"avif", b"mif1"))
    monkeypatch.setattr(picture_formats.features, "check", lambda name: False)
    with pytest.raises(UserError, match=r"a\.jpg: is an AVIF picture, .* built without"):
        decode(tmp_path / "a.jpg")


def boxed(brand: bytes, *others: bytes) -> bytes:
    brands = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(64)


class HeifStub(Image.Image):
    """A reader that knows one picture."""

    format = "HEIF"
    fp = None

    def __init__(self, fp: Any = None, filename: str = "") -> None:
        super().__init__()
        image = disc("RGB", "red", "white")
        self.im, self._mode, self._size = image.im, image.mode, image.size


@pytest.fixture
def heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if pillow-heif were installed."""
    stub = SimpleNamespace(register_heif_opener=lambda: Image.register_open("HEIF", HeifStub))
    monkeypatch.setitem(sys.modules, "pillow_heif", stub)
    yield
    Image.OPEN.pop("HEIF", None)
    Image.ID[:] = [name for name in Image.ID if name != "HEIF"]


@pytest.mark.parametrize("brands", [(b"heic",), (b"mif1", b"heic"), (b"heix", b"mif1")])
def test_heic_is_read_by_what_reads_it(tmp_path: Path, heif: None, brands: tuple[bytes]) -> None:
    (tmp_path / "a.jpg").write_bytes(boxed(*brands))
    assert difference(tmp_path / "a.jpg", disc("RGB", "red", "white")) == 0


def test_heic_without_its_reader_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(boxed(b"heic", b"mif1"))
    with pytest.raises(UserError, match=r"a\.jpg: is a HEIC picture, .*pip install pillow-heif"):
        MEDIA["image"].check(tmp_path / "a.jpg")
    (tmp_path / "a.png").write_bytes(boxed(b"isom", b"mp41"))  # a video
    with pytest.raises(UserError, match=r"a\.png: is not an image"):
        MEDIA["image"].check(tmp_path / "a.png")


COLOUR = (200, 60, 20)


def test_print_colours_of_a_photograph_are_as_drawn(tmp_path: Path) -> None:
    """Adobe's programs write CMYK the other way round, as Pillow does."""
    image = disc("RGB", COLOUR, (240, 240, 240))
    image.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()[:40]
    assert difference(tmp_path / "a.jpg", image) < 6


def test_print_colours_as_light_and_shade_are_as_drawn(tmp_path: Path) -> None:
    """YCCK: what Photoshop writes; the flag of Adobe's block tells."""
    image = disc("RGB", COLOUR, (240, 240, 240))
    light = ImageOps.invert(image).convert("YCbCr")
    planes = [*light.split(), Image.new("L", image.size, 255)]
    inverted = Image.merge("CMYK", [plane.point(lambda x: 255 - x) for plane in planes])
    inverted.save(tmp_path / "a.jpg", quality=95, subsampling=0)
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    content[content.index(b"Adobe") + 11] = 2
    (tmp_path / "a.jpg").write_bytes(content)
    assert difference(tmp_path / "a.jpg", image) < 6


CHANNELS = {0: 1, 4: 2, 2: 3, 6: 4}  # of PNG's kinds of colour


@pytest.mark.parametrize("colour", CHANNELS)
def test_sixteen_bits_of_a_png_are_scaled_to_eight(tmp_path: Path, colour: int) -> None:
    """Grey or colours from dark to light; where there is alpha, half covered."""
    shades = np.linspace(0, 65535, 8 * 8).astype(">u2").reshape(8, 8, 1)
    channels = CHANNELS[colour]
    pixels = np.repeat(shades, channels, axis=2)
    alpha = 1.0
    if channels in (2, 4):
        pixels[..., -1], alpha = 32768, 128 / 255
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    expected = shades.astype(float) / 257 * alpha + 255 * (1 - alpha)
    found = np.asarray(decode(png(tmp_path / "a.png", 16, colour, rows, side=8)), float)
    assert np.abs(found - expected).max() <= 2


def tiff(
    path: Path, order: str, photometric: int, bits: int, channels: int, data: bytes, packed: int = 1
) -> Path:
    """A TIFF of 8 x 8 pixels by hand; ``order`` is ``<`` or ``>``, ``packed`` 8 if compressed."""
    data = zlib.compress(data) if packed == 8 else data
    entries = [(256, 3, 8), (257, 3, 8), (258, 3, bits), (259, 3, packed), (262, 3, photometric)]
    entries += [(273, 4, 300), (277, 3, channels), (278, 3, 8), (279, 4, len(data))]
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    content += struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        count = channels if tag == 258 else 1
        content += struct.pack(f"{order}HHI", tag, kind, count)
        if count > 2:  # they lie elsewhere
            content += struct.pack(f"{order}I", 200)
        else:
            content += struct.pack(
                f"{order}{'HH' if kind == 3 else 'I'}", value, *[0] * (kind == 3)
            )
    content = content.ljust(200, b"\0") + struct.pack(f"{order}{channels}H", *[bits] * channels)
    path.write_bytes(content.ljust(300, b"\0") + data)
    return path


@pytest.mark.parametrize("packed", [1, 8])
@pytest.mark.parametrize("order", "<>")
def test_sixteen_bits_of_a_coloured_tiff_are_scaled_to_eight(
    tmp_path: Path, order: str, packed: int
) -> None:
    pixels = np.linspace(0, 65535, 8 * 8 * 3).astype(f"{order}u2").reshape(8, 8, 3)
    path = tiff(tmp_path / "a.tif", order, 2, 16, 3, pixels.tobytes(), packed)
    assert np.abs(np.asarray(decode(path), float) - pixels / 257).max() <= 1


def test_grey_whose_zero_is_white_is_no_negative(tmp_path: Path) -> None:
    for bits, packed in itertools.product((8, 16), (1, 8)):
        shades = np.linspace(0, 2**bits - 1, 64).astype(f"<u{bits // 8}").reshape(8, 8)
        path = tiff(tmp_path / "a.tif", "<", 0, bits, 1, shades.tobytes(), packed)
        expected = 255 - shades / (2**bits - 1) * 255
        assert np.abs(np.asarray(decode(path), float)[..., 0] - expected).max() <= 1


def test_twelve_bits_are_not_taken_for_sixteen(tmp_path: Path) -> None:
    """They would be nearly black."""
    shades = np.linspace(0, 4095, 64).astype(int)
    pairs = shades.reshape(-1, 2)
    packed = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    path = tiff(tmp_path / "a.tif", "<", 1, 12, 1, packed)
    found = np.asarray(decode(path), float)[..., 0].ravel()
    assert np.abs(found - shades / 4095 * 255).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_picture_on_which_nothing_is_seen_is_told(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 12, (16, 16, 3), dtype=np.uint8)
    cases = {"black all over": noise, "one colour all over": noise // 6 + 90, "": noise * 20}
    for remark, pixels in cases.items():
        Image.fromarray(pixels).save(tmp_path / "a", kind)
        told = [r.rpartition(": ")[2] for r in MEDIA["image"].fingerprint(tmp_path / "a").remarks]
        assert told == [remark] * bool(remark)


def test_header_is_the_files_own(tmp_path: Path) -> None:
    corners().save(tmp_path / "a.png")
    assert MEDIA["image"].header(tmp_path / "a.png") == {"width": 48, "height": 32}
