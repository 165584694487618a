"""How the parts that a run would begin with read samples; no model is assembled for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omnitune.data.audit.truncation import ReadLimits
from omnitune.data.chat_template import renderer_of
from omnitune.encoders.registry import build_encoder
from omnitune.models.loading import read_part


def reading_of_parts(
    thinker: Path, encoders: Mapping[str, Path], max_tokens: int
) -> ReadLimits | None:
    """The tokens of a thinker's checkpoint and the slots of encoders'; None without the thinker.

    Args:
        encoders: checkpoints by medium; one that is not there is left out.
    """
    if not thinker.is_file():
        return None
    found = {
        name: build_encoder(name, read_part(path, name)["config"])
        for name, path in encoders.items()
        if path.is_file()
    }
    return ReadLimits(renderer_of(read_part(thinker, "thinker")), found, max_tokens)
