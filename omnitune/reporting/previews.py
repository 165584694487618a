"""Previews of media for a page: data URIs of pictures and sound, small enough for it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from omnitune.media.registry import MEDIA
from omnitune.sample import Media, UserError

SOUND_BUDGET = 1_700_000  # characters of base64 that all players of a page may take
PICTURE_SIDE = 256  # pixels of the longer side, at most
GLANCE_SIDE = 160
_SHARP = 30_000  # bytes up to which a picture is a PNG, which keeps its edges sharp


@dataclass(frozen=True)
class Preview:
    """What a page shows of a medium.

    Attributes:
        words: what the picture shows; stands alone where there is no picture.
        picture: data URI; "" for none.
        sound: data URI of what a player plays; "" for none.
        left_out: what is missing, and why.
    """

    words: str
    picture: str = ""
    sound: str = ""
    left_out: str = ""

    @property
    def wide(self) -> bool:
        """Whether the picture takes the whole width, as that of a sound does."""
        return bool(self.sound or self.left_out)


def show_media(
    examples: Sequence[tuple[Media, ...]], budget: int | None = None
) -> list[list[Preview]]:
    """Previews the media of each example; leaves sound out once the budget is spent.

    Args:
        budget: characters of base64; ``SOUND_BUDGET`` if None.
    """
    left = SOUND_BUDGET if budget is None else budget
    shown = []
    for media in examples:
        previews = [preview(medium, PICTURE_SIDE) for medium in media]
        for n, found in enumerate(previews):
            if len(found.sound) > left:
                left_out = "(sound left out to keep the page small)"
                previews[n] = replace(found, sound="", left_out=left_out)
            left -= len(previews[n].sound)
        shown.append(previews)
    return shown


def preview(medium: Media, side: int) -> Preview:
    """A medium's preview; words in its place if it has none or cannot be read.

    Args:
        side: pixels of the longer side of a picture, at most.
    """
    kind = MEDIA.get(medium.modality)
    try:
        picture = kind.picture(medium.path, side) if kind else None
        sound = kind.sound(medium.path) if kind else b""
    except UserError:
        return Preview(f"({medium.modality}: cannot be shown)")
    if kind is None or picture is None:
        return Preview(medium.path.name, sound=_data_uri("audio/wav", sound))
    sharp = side == PICTURE_SIDE and not sound  # elsewhere nobody would see the difference
    words = f"the {kind.noun} of this question"
    return Preview(words, _picture_uri(picture, sharp), _data_uri("audio/wav", sound))


def _picture_uri(picture: Image.Image, sharp: bool) -> str:
    for kind in ("png", "jpeg") if sharp else ("jpeg",):
        buffer = io.BytesIO()
        picture.save(buffer, kind, quality=85)
        if len(buffer.getvalue()) <= _SHARP:
            break
    return _data_uri(f"image/{kind}", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}" if content else ""
