"""Images: reading them safely."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from omnitune.media.base import Fingerprint, Medium, open_file, reason
from omnitune.sample import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 50_000_000
SUBFILE_TYPE = 254  # tag of a TIFF page; bit 0: it is a smaller copy of another
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
# Pillow reads a picture whose metadata it finds odd all the same.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageMedium(Medium):
    """Pictures; of a file with several the first one counts."""

    name = "image"
    caption_key = "caption"
    unit = "pixels"
    aliases = ("images", "image_path", "image_url", "picture", "img")
    hash_words, hash_distance = 4, 4
    is_spatial = True
    reader_version = 2
    projector_part = "proj_v"
    encoder_part = "vision_encoder"

    def check(self, path: Path) -> None:
        """Checks that the file exists, is one of ``FORMATS`` and is not huge."""
        with _open(path):
            pass

    def fingerprint(self, path: Path) -> Fingerprint:
        """Hash of the pixels; its look is where each colour rises from left to right (dHash)."""
        rgb = decode(path)
        remarks = []
        with _open(path) as image:
            if more := _not_shown(path, image):
                told = f"{more + 1} frames or pages; only the first is shown to the model"
                remarks.append(f"{path}: {told}")
            if rgb.getcolors(1):
                why = " (transparent parts are laid on white)" * image.has_transparency_data
                remarks.append(f"{path}: one colour all over{why}")
        content = hashlib.blake2b(f"{rgb.size}".encode(), digest_size=8)
        content.update(rgb.tobytes())
        small = rgb.resize((LOOK_SIDE + 1, LOOK_SIDE), Image.Resampling.BILINEAR)
        rises = np.diff(np.asarray(small, dtype=np.int16), axis=1) > LOOK_STEP
        bits = np.zeros(64 * self.hash_words, dtype=bool)
        bits[: rises.size] = rises.ravel()
        perceptual_hash = np.packbits(bits).view(np.uint64)
        digest, amount = int.from_bytes(content.digest(), "big"), rgb.width * rgb.height
        return Fingerprint(digest, amount, tuple(perceptual_hash.tolist()), tuple(remarks))

    def similarity(self, path: Path, other: Path) -> float:
        """By the largest difference between two thumbnails."""
        one, two = (
            np.asarray(decode(p).resize((THUMBNAIL,) * 2, Image.Resampling.BILINEAR), np.int16)
            for p in (path, other)
        )
        difference = int(np.abs(one - two).max())
        return 1 - difference / 255 if difference <= SAME_COLOUR else 0.0


def dimensions(path: Path) -> tuple[int, int, int]:
    """Width and height of a file's first picture, and the pixels of its others; by the header."""
    with _open(path) as image:
        return (*image.size, _not_shown(path, image) * image.width * image.height)


def _check_size(path: Path, image: Image.Image) -> None:
    """Raises a UserError for a picture of no or too many pixels, and for a mere preview."""
    size = f"{path}: {image.width} x {image.height} pixels"
    if image.width < 1 or image.height < 1:
        raise UserError(f"{size}; there is nothing to see")
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{size}, the limit is {MAX_PIXELS // 10**6} megapixels; reduce it")
    if getattr(image, "tag_v2", {}).get(SUBFILE_TYPE, 0) == 1:
        raise UserError(
            f"{path}: its first page is only a preview of the picture (a camera's raw file?); "
            "save the picture itself as PNG or JPEG"
        )


def _not_shown(path: Path, image: Image.Image) -> int:
    """How many pictures a file holds beside its first.

    What a camera puts beside a photograph (MPO: a preview, a map of its depth or light) is none.
    """
    try:
        return 0 if image.format == "MPO" else getattr(image, "n_frames", 1) - 1
    except Exception as error:  # as in decode
        raise UserError(f"{path}: the image is damaged ({reason(error)})") from None


def decode(path: Path) -> Image.Image:
    """Reads a file's first picture to upright RGB; raises UserError."""
    with _open(path) as image:
        try:
            ImageFile.LOAD_TRUNCATED_IMAGES = False  # whatever else in this process has set it
            image.load()
            return _to_rgb(_upright(image))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except Exception as error:  # decoders raise nearly everything over a damaged file
            raise UserError(f"{path}: the image is damaged ({reason(error)})") from None


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
