"""Which encoders there are, by ``type``."""

from __future__ import annotations

from typing import Any

from omnitune.encoders.base import Encoder
from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.encoders.vit import VitEncoder
from omnitune.sample import UserError

ENCODERS: dict[str, type[Encoder]] = {
    encoder.type: encoder for encoder in (VitEncoder, FastConformerEncoder)
}


def build_encoder(medium: str, config: dict[str, Any]) -> Encoder:
    """The encoder of a medium's settings; without a ``type`` the first one for that medium.

    Raises:
        UserError: no encoder of this type is known, or none for this medium.
    """
    known = {name: kind for name, kind in ENCODERS.items() if kind.medium_name == medium}
    name = config.get("type", next(iter(known), None))
    if name not in known:
        raise UserError(
            f"the {medium} encoder has the type {name!r}; known for {medium}: "
            f"{', '.join(known) or 'none'}"
        )
    return known[name](config)
