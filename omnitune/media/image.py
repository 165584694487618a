"""Images: reading them safely."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile

from omnitune.media.base import Fingerprint, Medium, open_file, reason
from omnitune.media.picture_formats import READ, readers
from omnitune.media.segments import MARK, split_time
from omnitune.sample import UserError

MAX_PIXELS = 50_000_000
PREVIEW, MASK = 1, 4  # bits of a TIFF page's kind (NewSubfileType)
LOOK_SIDE = 9  # three colours of 9 x 9 comparisons fill four words of 64 bits
LOOK_STEP = 8  # of 255: a smaller rise is noise of the file format
THUMBNAIL = 16
BLACK = 16  # of 255: no brighter than a picture that a camera took with its lid on
FLAT = 4  # of 255: the noise that JPEG puts on one colour
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
SHOWN = {"PNG": "png", "JPEG": "jpeg", "GIF": "gif", "WEBP": "webp", "BMP": "bmp"}  # by browsers
# What Pillow finds odd about a picture that it reads all the same is told by `fingerprint`.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageMedium(Medium):
    """Pictures; of a file with several the first one counts."""

    name = "image"
    caption_key = "caption"
    unit = "pixels"
    aliases = ("images", "image_path", "image_url", "picture", "img")
    noun, verb = "picture", "look at"
    hash_words, hash_distance = 4, 4
    is_spatial = True
    reader_version = 3
    projector_part = "proj_v"
    encoder_part = "vision_encoder"
    config_name, tensor_name, argument = "vision_config", "pixel_values", "images"
    token_type = 1
    apart = True

    def check(self, path: Path) -> None:
        """Checks that the file exists, is a picture of a known format and is not huge."""
        with _open(path):
            pass

    def fingerprint(self, path: Path) -> Fingerprint:
        """Hash of the pixels; its look is where each colour rises from left to right (dHash)."""
        rgb = decode(path)
        remarks = _remarks(path)
        if flat := _flat(rgb):
            with _open(path) as image:
                why = " (transparent parts are laid on white)" * image.has_transparency_data
            remarks += (f"{path}: {flat}{why}",)
        content = hashlib.blake2b(f"{rgb.size}".encode(), digest_size=8)
        content.update(rgb.tobytes())
        small = rgb.resize((LOOK_SIDE + 1, LOOK_SIDE), Image.Resampling.BILINEAR)
        rises = np.diff(np.asarray(small, dtype=np.int16), axis=1) > LOOK_STEP
        bits = np.zeros(64 * self.hash_words, dtype=bool)
        bits[: rises.size] = rises.ravel()
        perceptual_hash = np.packbits(bits).view(np.uint64)
        digest, amount = int.from_bytes(content.digest(), "big"), rgb.width * rgb.height
        return Fingerprint(digest, amount, tuple(perceptual_hash.tolist()), remarks)

    def header(self, path: Path) -> dict[str, float]:
        """``width`` and ``height`` of the first picture, as it lies in the file."""
        width, height, _ = dimensions(path)
        return {"width": width, "height": height}

    def similarity(self, path: Path, other: Path) -> float:
        """By the largest difference between two thumbnails."""
        one, two = (
            np.asarray(decode(p).resize((THUMBNAIL,) * 2, Image.Resampling.BILINEAR), np.int16)
            for p in (path, other)
        )
        difference = int(np.abs(one - two).max())
        return 1 - difference / 255 if difference <= SAME_COLOUR else 0.0

    def picture(self, path: Path, side: int) -> Image.Image:
        """The picture as the model is shown it: upright, on white."""
        found = decode(path)
        found.thumbnail((side, side))
        return found

    def portable(self, path: Path) -> tuple[str, bytes]:
        """What every browser shows, as it is; anything else as PNG."""
        with _open(path) as image:
            kind = SHOWN.get(image.format or "")
        if kind:
            with open_file(path, "image file") as file:
                return f"image/{kind}", file.read()
        buffer = io.BytesIO()
        decode(path).save(buffer, "PNG", compress_level=1)
        return "image/png", buffer.getvalue()

    def store(self, given: Any, folder: Path) -> Path:
        """A Pillow image, or pixels ``[H, W]`` or ``[H, W, C]`` of 8 bits a channel.

        Raises:
            UserError: it is neither.
        """
        try:
            image = given if isinstance(given, Image.Image) else Image.fromarray(np.asarray(given))
            path = folder / "image.png"
            image.save(path, compress_level=1, exif=image.getexif())
        except (TypeError, ValueError, AttributeError, OSError) as error:
            raise UserError(
                f"a picture is given as {type(given).__name__} ({error}), expected a path, a "
                "Pillow image or an array [H, W, 3] of uint8"
            ) from None
        return path


def dimensions(path: Path) -> tuple[int, int, int]:
    """Width and height of a file's first picture, and the pixels of its others; by the header."""
    with _open(path) as image:
        return (*image.size, _not_shown(path, image)[1])


def _flat(rgb: Image.Image) -> str:
    """What nothing can be seen on is called; "" for any other picture."""
    ranges = np.array(rgb.getextrema())  # least and most of each channel
    if ranges.max() <= BLACK:
        return "black all over"
    if (ranges[:, 1] - ranges[:, 0]).max() <= FLAT:
        return "one colour all over"
    return ""


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
    except Exception as error:  # as in decode
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


def decode(path: Path) -> Image.Image:
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
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode.startswith("I;16"):
        bits = tags.get(258, (16,))[0]
        grey = values * (255 / (2**bits - 1))
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
    elif not np.isfinite(values).all():
        raise UserError("holds values that are not numbers (NaN or infinity)")
    else:
        least, most = values.min(), values.max()
        grey = (values - least) * (255 / (most - least)) if most > least else values * 0 + 128
    if tags.get(262) == 0:  # zero is white, which Pillow heeds up to eight bits only
        grey = 255 - grey
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Opens an image file (header only) or raises a UserError that says what is wrong."""
    if split_time(path)[0] != path:
        raise UserError(f"{path}: a picture has no times; leave out what begins with {MARK}")
    with open_file(path, "image file") as file:
        try:
            image = Image.open(file, formats=readers(file))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise UserError(
                f"{path}: more than {MAX_PIXELS // 10**6} megapixels; reduce it"
            ) from None
        except Exception as error:  # readers raise nearly everything over a damaged header
            if isinstance(error, OSError) and error.errno:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from None
            raise UserError(f"{path}: is not an image ({READ} are read), or is damaged") from None
        with image:
            _check_size(path, image)
            yield image
