"""Which encoders there are, by ``type``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnitune.config.settings import nearest
from omnitune.encoders.base import Encoder, Pretrained
from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.encoders.pretrained_audio import PretrainedAudioEncoder
from omnitune.encoders.pretrained_vision import PretrainedVisionEncoder
from omnitune.encoders.vit import VitEncoder
from omnitune.encoders.whisper import WhisperSpeechEncoder
from omnitune.hub import read_config
from omnitune.sample import UserError

ENCODERS: dict[str, type[Encoder]] = {
    encoder.type: encoder
    for encoder in (
        VitEncoder,
        PretrainedVisionEncoder,
        FastConformerEncoder,
        WhisperSpeechEncoder,
        PretrainedAudioEncoder,
    )
}


def with_settings(
    medium: str, config: dict[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """An encoder's configuration with the settings of a run.

    Raises:
        UserError: the encoder has no such setting, or a run may not change it.
    """
    known = _encoder_class(medium, config).run_settings
    for name in settings:
        if name not in known:
            near = nearest(name, known)
            raise UserError(
                f"encoder_settings.{medium}.{name}: is no setting of this encoder that a run may "
                f"change; known: {', '.join(known) or 'none'}"
                f"{f'; did you mean {near}?' if near else ''}"
            )
    return config | dict(settings)


def build_encoder(medium: str, config: dict[str, Any]) -> Encoder:
    """The encoder of a medium's settings; without a ``type`` the first one for that medium.

    Raises:
        UserError: no encoder of this type is known, or none for this medium.
    """
    return _encoder_class(medium, config)(config)


def read_pretrained(medium: str, folder: Path) -> Pretrained:
    """The encoder of a folder in Hugging Face's layout.

    Raises:
        UserError: the folder is not whole, or of a family that no encoder of this medium takes.
    """
    values = read_config(folder)
    known = {
        family: kind
        for kind in ENCODERS.values()
        if kind.medium_name == medium
        for family in kind.families
    }
    family = values["model_type"]
    if family not in known:
        raise UserError(
            f"{folder}: is of the family {family!r}, which is no {medium} encoder known here; "
            f"known: {', '.join(sorted(known)) or 'none'}"
        )
    return known[family].from_folder(folder, values)


def _encoder_class(medium: str, config: dict[str, Any]) -> type[Encoder]:
    known = {name: kind for name, kind in ENCODERS.items() if kind.medium_name == medium}
    name = config.get("type", next(iter(known), None))
    if name not in known:
        raise UserError(
            f"the {medium} encoder has the type {name!r}; known for {medium}: "
            f"{', '.join(known) or 'none'}"
        )
    return known[name]
