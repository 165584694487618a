"""Which encoders there are, by ``type``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnitune.config.settings import listed
from omnitune.encoders.base import Encoder, Pretrained
from omnitune.encoders.fastconformer import FastConformerEncoder
from omnitune.encoders.pretrained_audio import PretrainedAudioEncoder
from omnitune.encoders.pretrained_vision import PretrainedVisionEncoder
from omnitune.encoders.projectors import PROJECTORS, resolve
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

# What an encoder lacks that has not the setting by which a projector joins rows.
JOINED = {"pixel_shuffle": "no grid to shuffle", "stack": "no rows to stack"}


def with_settings(
    medium: str, config: dict[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """An encoder's configuration with the settings of a run.

    Raises:
        UserError: the encoder has no such setting, or a run may not change it.
    """
    kind = _encoder_class(medium, config)
    known = kind.run_settings
    for name in settings:
        if name not in known:
            raise UserError(
                f"encoder_settings.{medium}.{name}: is no setting of this encoder that a run may "
                f"change; known: {listed(name, known)}"
            )
    changed = config | dict(settings)
    if changed != config and config.get("words"):
        before, after = kind(config).feature_dim, kind(changed).feature_dim
        if before != after:
            raise UserError(
                f"the {medium} encoder names words in rows of {before} numbers, and with "
                f"{', '.join(f'{name} {value!r}' for name, value in settings.items())} they would "
                f"have {after}; leave the encoder's rows as they were when it was trained"
            )
    return changed


def configure(
    medium: str,
    config: dict[str, Any],
    settings: Mapping[str, Any],
    projector: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An encoder's configuration with the settings of a run, and those of its projector, complete.

    A projector that joins rows (``pixel_shuffle_mlp``, ``stack_mlp``) sets a setting of the
    encoder: joining needs no weights, so the encoder's own rows are joined already.

    Args:
        settings: of the encoder, laid over ``config``.
        projector: what a run says of it; what it leaves out is as the encoder's default has it.

    Raises:
        UserError: a setting is unknown, or encoder and projector do not fit together.
    """
    changed = with_settings(medium, config, settings)
    kind = _encoder_class(medium, config)
    given = dict(projector or {})
    usual = {} if "type" in given else kind(changed).default_projector
    resolved = resolve(medium, usual | given)
    setting = PROJECTORS[resolved["type"]].encoder_setting
    if not setting:
        return changed, resolved
    if setting not in kind.run_settings:
        raise UserError(
            f"projectors.{medium}.type is {resolved['type']!r}, but the {medium} encoder "
            f"{config.get('type', kind.type)!r} has {JOINED[setting]} (no setting {setting}); take "
            "mlp"
        )
    factor = given.get("factor", changed.get(setting, resolved["factor"]))
    if factor != settings.get(setting, factor):
        raise UserError(
            f"projectors.{medium}.factor is {factor}, and encoder_settings.{medium}.{setting} is "
            f"{settings[setting]!r}; they are the same thing, give one of them"
        )
    changed = with_settings(medium, changed, {setting: factor})
    return changed, resolve(medium, resolved | {"factor": factor})


def build_encoder(
    medium: str, config: dict[str, Any], projector: Mapping[str, Any] | None = None
) -> Encoder:
    """The encoder of a medium's settings; without a ``type`` the first one for that medium.

    Args:
        projector: settings of its projector; None for the encoder's own choice.

    Raises:
        UserError: no encoder of this type is known, or none for this medium, or the projector
            does not fit it.
    """
    changed, resolved = configure(medium, config, {}, projector)
    encoder = _encoder_class(medium, config)(changed)
    encoder.projector = resolved
    return encoder


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
            f"the {medium} encoder has the type {name!r}; known for {medium}: {listed(name, known)}"
        )
    return known[name]
