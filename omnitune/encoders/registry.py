"""The modalities there are. One more is one more file and one more line here."""

from __future__ import annotations

from omnitune.encoders.base import Modality
from omnitune.encoders.fastconformer import AudioModality
from omnitune.encoders.vit import ImageModality

MODALITIES: dict[str, type[Modality]] = {"image": ImageModality, "audio": AudioModality}
