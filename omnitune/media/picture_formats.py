"""Which of Pillow's readers a picture's first bytes ask for, and what to install for it."""

from __future__ import annotations

from typing import BinaryIO

from PIL import features

from omnitune.sample import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
READ = ", ".join((*FORMATS, "AVIF", "HEIC"))
# What files in boxes, as MP4 has them too, say that they hold.
AVIF = frozenset((b"avif", b"avis"))
HEIC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
EITHER = frozenset((b"mif1", b"msf1"))  # whose other brands tell


def readers(file: BinaryIO) -> tuple[str, ...]:
    """Names of the formats that a file may have; the file is left at its beginning.

    Raises:
        UserError: what reads it is not installed.
    """
    file.seek(0)
    start = file.read(64)
    file.seek(0)
    if start[4:8] != b"ftyp":
        return FORMATS
    end = min(len(start), int.from_bytes(start[:4], "big"))
    brands = {start[8:12], *(start[n : n + 4] for n in range(16, end, 4))}
    if start[8:12] not in AVIF | HEIC | EITHER:
        return FORMATS
    if brands & AVIF and start[8:12] not in HEIC:
        if not features.check("avif"):
            raise UserError(
                "is an AVIF picture, which this Pillow was built without: pip install --upgrade "
                "Pillow (11.3 or newer), or save it as PNG or JPEG"
            )
        return ("AVIF",)
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UserError(
            "is a HEIC picture, as phones take them, and what reads it is not installed: "
            "pip install pillow-heif, or save it as PNG or JPEG"
        ) from None
    register_heif_opener()
    return ("HEIF",)
