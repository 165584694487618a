"""The modalities there are. One more is one more file and one more line here."""

from __future__ import annotations

from omnitune.modalities.audio import AudioModality
from omnitune.modalities.base import Modality
from omnitune.modalities.image import ImageModality

MODALITIES: dict[str, type[Modality]] = {"image": ImageModality, "audio": AudioModality}
