"""Media that browsers cannot show, as PNG or WAV that every browser can."""

from __future__ import annotations

import io
import tempfile
import threading
from pathlib import Path

from omnitune.media.registry import MEDIA
from omnitune.sample import UserError
from omnitune.serving.encoded_media import EncodedMedia, TooLargeError

SIDE = 1024  # pixels of the longer side, at most: it is looked at, the model gets the file
_one_at_a_time = threading.Lock()  # a large picture takes hundreds of megabytes


def shown(kind: str, content: bytes, limits: EncodedMedia) -> tuple[str, bytes]:
    """What people are shown of a medium: its type (``"image/png"``) and content.

    Args:
        kind: key of the registry. content: of a file of any format that is read here.
        limits: of the server, on how much a medium may hold.

    Raises:
        UserError: there is no such kind, or the file cannot be read.
        TooLargeError: it holds more than the server takes.
    """
    if kind not in MEDIA:
        raise UserError(f"there is no medium {kind!r}; there are {', '.join(MEDIA)}")
    if not content:
        raise UserError("the file is empty; choose another one")
    medium = MEDIA[kind]
    with _one_at_a_time, tempfile.TemporaryDirectory(prefix="omnitune-") as folder:
        path = Path(folder) / "medium"
        path.write_bytes(content)
        try:
            if kind in limits.model.modalities:
                limits.check_amount(kind, path, "the file")
            sound = medium.sound(path)
            picture = None if sound else medium.picture(path, SIDE)
        except TooLargeError:
            raise
        except UserError as error:
            raise UserError(str(error).replace(str(path), "the file")) from None
    if picture is None:
        return "audio/wav", sound
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return "image/png", buffer.getvalue()
