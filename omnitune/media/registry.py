"""Which media there are, by name."""

from __future__ import annotations

from omnitune.media.audio import AudioMedium
from omnitune.media.base import Medium
from omnitune.media.image import ImageMedium

MEDIA: dict[str, Medium] = {medium.name: medium for medium in (ImageMedium(), AudioMedium())}
